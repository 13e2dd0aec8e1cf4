"""How long frames take, and what is behind each number."""
