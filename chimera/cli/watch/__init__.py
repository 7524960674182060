"""`chimera watch` and `chimera anomaly`."""
