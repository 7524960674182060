"""Series in the layout of the Numenta Anomaly Benchmark: `data/GROUP/NAME.csv`, and their windows in `labels/`.

Format: https://github.com/numenta/NAB/wiki. A CSV has the columns `timestamp` and `value`; `combined_windows.json`
gives each file's windows as pairs of timestamps, and `combined_labels.json` the instants where the anomalies begin. A
folder of one's own in this layout is read as well.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from chimera.anomaly.evaluate.series import MAX_POINTS, Floats, Series, Window, probation
from chimera.core.errors import SourceError

MAX_FILES = 10_000

MAX_LABEL_BYTES = 16 << 20

SAME_S = 1e-3
"""A label's timestamp is a point's when they are this near."""


def load_nab(folder: Path, groups: Collection[str] | None = None) -> list[Series]:
    """The labelled series of `folder`, by name; of `groups` (folders below `data/`) alone where given.

    Raises SourceError where a file is missing or is not what it should be.
    """
    windows = _labels(folder / "labels" / "combined_windows.json")
    instants = _labels(folder / "labels" / "combined_labels.json")
    names = sorted(name for name in windows if groups is None or name.partition("/")[0] in groups)
    if not names:
        raise SourceError(f"{folder} labels no series" + (f" of {', '.join(sorted(groups))}" if groups else ""))
    return [_series(folder, name, windows[name], instants.get(name, [])) for name in names]


def _labels(path: Path) -> dict[str, list[object]]:
    try:
        if path.stat().st_size > MAX_LABEL_BYTES:
            raise SourceError(f"{path} is larger than {MAX_LABEL_BYTES} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(labels, list) for labels in found.values()):
        raise SourceError(f"{path} must map each file to a list")
    if len(found) > MAX_FILES:
        raise SourceError(f"{path} names {len(found)} files, at most {MAX_FILES} are read")
    return found


def _series(folder: Path, name: str, windows: list[object], instants: list[object]) -> Series:
    root, path = (folder / "data").resolve(), (folder / "data" / name).resolve()
    if not path.is_relative_to(root):
        raise SourceError(f"{name} lies outside of {root}")
    timestamps, values = _points(path)
    try:
        labels = [_seconds(str(instant)) for instant in instants]
        made = tuple(_window(timestamps, labels, *(_seconds(str(end)) for end in pair)) for pair in windows)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise SourceError(f"{name}: its labels must be pairs of timestamps: {error}") from error
    return Series(name, "nab", name.partition("/")[0], timestamps, values, made, probation(len(values)))


def _window(timestamps: Floats, labels: list[float], opens: float, closes: float) -> Window:
    found = np.searchsorted(timestamps, (opens - SAME_S, closes - SAME_S))
    first, last = np.minimum(found, len(timestamps) - 1).tolist()
    within = [label for label in labels if opens <= label <= closes]
    instant = int(np.searchsorted(timestamps, within[0] - SAME_S)) if within else first
    return Window(first, last, instant)


def _points(path: Path) -> tuple[Floats, Floats]:
    timestamps, values = [], []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                timestamps.append(_seconds(row["timestamp"]))
                values.append(float(row["value"]))
                if len(values) > MAX_POINTS:
                    raise SourceError(f"{path} has more than {MAX_POINTS} points")
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        where = f"after {len(values)} points" if values else "at its start"
        raise SourceError(f"{path} is no CSV with timestamp and value, {where}: {error!r}") from error
    if not values:
        raise SourceError(f"{path} holds no points")
    return np.array(timestamps), np.array(values)


def _seconds(text: str) -> float:
    """Unix seconds of an ISO timestamp; one without a zone is taken for UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
