"""From frames to answers with nothing but a bundle; numpy and one backend."""
