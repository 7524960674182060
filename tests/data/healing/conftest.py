"""These are workspaces for `chimera heal judge`: their tests are run there, against patches."""

from __future__ import annotations

collect_ignore_glob = ["*"]
