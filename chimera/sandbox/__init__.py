"""An adversary of one's own: threats that look like data, made under differential privacy, with proofs about them."""
