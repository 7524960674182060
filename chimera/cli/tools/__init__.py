"""The commands `chimera tools`."""
