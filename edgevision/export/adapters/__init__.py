"""A file for each task: how a model becomes a graph with its pixels inside."""
