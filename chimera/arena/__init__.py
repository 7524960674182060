"""The arena: environments that can be verified, duels that can be repeated, evidence that a stranger can audit."""

PACKAGES = frozenset({"bittensor_core", "blake3", "gymnasium", "obstore", "rfc8785"})
"""What the extra `arena` brings, and nothing here can do without."""
