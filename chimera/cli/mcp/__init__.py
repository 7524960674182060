"""The commands `chimera mcp`."""
