"""A file for each flavour: a loaded engine, and its executions."""
