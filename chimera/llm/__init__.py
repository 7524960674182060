"""Language models behind one port. The default needs no network and writes nothing of its own."""
