"""Examples of watching metrics. See docs/watching.md."""
