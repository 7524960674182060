"""Examples: missions, and agents of one's own."""
