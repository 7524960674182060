"""The gate for what comes in: limits, detection, taint, and the guard that keeps strangers' words from acting."""
