"""Differential privacy: what was released of a data set, what that costs, and the mechanisms that release it."""
