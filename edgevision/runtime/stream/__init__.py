"""Frames at camera rate: policies, deadlines, tickets, the worker."""
