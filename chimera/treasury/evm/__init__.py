"""Payments on Ethereum, Polygon and their like, out of a Safe that takes two keys. See docs/treasury-chain.md."""
