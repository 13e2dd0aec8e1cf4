"""What one frame in flight needs, made once and used again."""
