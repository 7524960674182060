"""The arena on the command line: `af`, and the same as `chimera arena`."""
