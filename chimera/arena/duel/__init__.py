"""Duels: champion and contender on the same challenges, until the evidence decides."""
