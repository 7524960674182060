"""The command line: `chimera`, and `python -m chimera`."""
