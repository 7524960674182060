"""How a metric with labels is written: as Prometheus does, labels sorted, so that one series has one name."""

from __future__ import annotations

import re
from collections.abc import Mapping

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/\-]*")


def canonical(name: str, labels: Mapping[str, str]) -> str:
    """`name{a="1",b="2"}`. A label's name that could be taken for something else is quoted."""
    if not labels:
        return name
    inside = ",".join(f'{_key(key)}="{_escaped(labels[key])}"' for key in sorted(labels))
    return f"{name}{{{inside}}}"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else f'"{_escaped(key)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
