"""The commands `chimera sandbox`."""
