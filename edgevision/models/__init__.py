"""Reference nets in plain PyTorch; they know nothing of edgevision."""
