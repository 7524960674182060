"""Chimera's detector and forecaster beside others, over the same labelled series."""
