"""Detectors of anomalies, each over many metrics at once. See `base.py` for the protocol that all of them keep."""
