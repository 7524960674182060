"""Wiring: settings in, a running Chimera out."""
