"""Where readings come from. `open_source` in `opening.py` knows all of them."""
