"""What an answer is, a file for each task."""
