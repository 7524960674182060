"""Environments of one's own for the arena."""
