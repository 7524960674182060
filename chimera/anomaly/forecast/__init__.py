"""Forecasts with bands, and warnings of limits that will be crossed. See `engine.py`."""
