"""The commands `chimera treasury`."""
