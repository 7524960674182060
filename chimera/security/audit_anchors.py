"""Where the signed heads of an audit log go: out of reach of whoever can write the log.

A store is anything that takes an `Anchor`; a function of your own is one. What it raises is kept as `anchor_error` of
the log, which tries again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from chimera.core.errors import AuditError
from chimera.security.audit_entry import Anchor, append_anchor, read_anchors

AnchorStore: TypeAlias = Callable[[Anchor], object]

KEEP_DAYS = 400

_NAME = re.compile(r"^anchors-(\d{4}-\d{2}-\d{2})\.jsonl$")


class FileAnchors:
    """Anchors in a folder, a file for each day, of which the last 400 are kept. Best on another disk or machine."""

    def __init__(self, folder: Path, *, keep_days: int = KEEP_DAYS) -> None:
        self._folder = folder
        self._keep_days = keep_days

    def __call__(self, anchor: Anchor) -> None:
        """Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"anchors-{datetime.fromtimestamp(anchor.at_s, UTC):%Y-%m-%d}.jsonl"
        is_new = not path.exists()
        append_anchor(path, anchor)
        if is_new:
            with suppress(PermissionError):  # where one may only append, old ones stay
                for old in self._files()[: -self._keep_days]:
                    old.unlink()

    def read(self) -> tuple[Anchor, ...]:
        """All of them, the oldest first. Raises AuditError for what cannot be read."""
        return tuple(anchor for path in self._files() for anchor in read_anchors(path))

    def latest(self) -> Anchor | None:
        """The head that was put here last, if there is any. Raises AuditError for what cannot be read."""
        if self._folder.is_dir():
            for path in reversed(self._files()):
                for anchor in reversed(read_anchors(path)):
                    if anchor.kind == "head":
                        return anchor
        return None

    def _files(self) -> list[Path]:
        try:
            return sorted(self._folder / name for name in os.listdir(self._folder) if _NAME.match(name))
        except OSError as error:
            raise AuditError(f"{self._folder} holds no anchors: {error.strerror}") from None


def syslog_anchors(anchor: Anchor) -> None:
    """Writes an anchor to the machine's syslog (LOG_AUTHPRIV), from where it can be sent to another."""
    import syslog

    syslog.syslog(syslog.LOG_NOTICE | syslog.LOG_AUTHPRIV, f"chimera audit anchor {anchor.model_dump_json()}")
