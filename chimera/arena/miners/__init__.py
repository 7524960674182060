"""Miners: whoever answers challenges, over HTTP or in this process."""
