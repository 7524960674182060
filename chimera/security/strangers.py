"""Whose a file is. One that another user has put where ours is looked for says what they like, whatever its mode."""

from __future__ import annotations

import os

ROOT = 0


def is_strangers(status: os.stat_result) -> bool:
    """Whether it is neither this process's user's nor root's, who can do as they please anyway."""
    return status.st_uid not in (ROOT, os.geteuid())
