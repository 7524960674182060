"""The arena: environments that can be verified, duels that can be repeated, evidence that a stranger can audit."""
