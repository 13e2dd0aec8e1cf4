"""Scores in the task's own metric, over folders."""
