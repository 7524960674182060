"""Zero-knowledge proofs about committed batches: research-grade, unaudited. See `chimera.sandbox.proofs.claim`."""
