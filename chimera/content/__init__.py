"""Content for a brand's own channels: what people talk about, something made of it, checked, published, learnt from."""
