"""Streaming anomaly detection and forecasts over many metrics. See `chimera.anomaly.engine`."""
