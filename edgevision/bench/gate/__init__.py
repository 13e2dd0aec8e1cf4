"""Whether one thing is slower than another, decided so that a busy machine does not lie."""
