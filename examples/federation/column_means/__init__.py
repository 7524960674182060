"""An example of a federation: the apps of `flwr run`, on a generator small enough to read."""
