"""Content credentials (C2PA), and the registry that still knows a picture after a platform stripped them."""
