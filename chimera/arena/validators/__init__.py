"""Validators: they sample, publish signed evidence, audit one another's, and agree on who takes the weight."""
