"""A file for each way to run shards: here, in processes, on Ray."""
