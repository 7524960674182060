"""Where a mission's events are kept: the journal port and its adapters."""
