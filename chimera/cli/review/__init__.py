"""The commands `chimera review`."""
