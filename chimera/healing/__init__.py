"""Patches: written by a model, tried in a sandbox, applied whole or not at all, remembered."""
