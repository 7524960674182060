"""A client of a node's API, over HTTP: no Ray needed."""

from chimera.http_client.client import Client

__all__ = ["Client"]
