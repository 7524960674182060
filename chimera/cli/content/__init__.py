"""The commands `chimera content`."""
