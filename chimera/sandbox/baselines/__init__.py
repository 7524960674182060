"""Synthesizers that a private GAN is measured against: two private and simple ones, and a GAN that is not private."""
