"""Tools of other people's servers, over the Model Context Protocol: found, approved, called, and never believed."""

from __future__ import annotations
