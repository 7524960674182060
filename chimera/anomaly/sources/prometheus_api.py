"""What Prometheus' query API answers, to readings. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from chimera.anomaly.sources.intake import Raw
from chimera.anomaly.sources.naming import canonical
from chimera.core.errors import QueryRefused, SourceError


def read_answer(status: int, body: bytes, *, query: str) -> tuple[list[Raw], int, int]:
    """The values in order of time, how many series there are, and how many samples were no numbers.

    Raises QueryRefused with Prometheus' own words, and SourceError for what is no answer of its API.
    """
    try:
        answer = json.loads(body)
        if answer["status"] != "success":
            refused = f"{answer.get('errorType', 'error')}: {answer.get('error', '')}"[:1_000]
            raise (QueryRefused if status in (400, 422) else SourceError)(refused)
        data = answer["data"]
        kind, result = data["resultType"], data["result"]
        series = list(_series(kind, result, query))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise SourceError(f"status {status}, and no answer of Prometheus' API: {body[:80]!r}") from None
    raw: list[Raw] = []
    unread = 0
    for name, samples in series:
        for sample in samples:
            try:
                stamp, value = sample
                raw.append((name, float(stamp), float(value)))
            except (ValueError, TypeError, OverflowError):
                unread += 1
    raw.sort(key=lambda each: each[1])  # type: ignore[arg-type,return-value] # floats, just made
    return raw, len(series), unread


def _series(kind: str, result: Any, query: str) -> Iterator[tuple[str, list[Any]]]:
    if kind == "scalar":
        yield query, [result]
        return
    if kind not in ("vector", "matrix"):
        raise QueryRefused(f"bad_data: {query!r} gives a {kind}: ask for numbers")
    for each in result:
        labels = {str(key): str(value) for key, value in each["metric"].items()}
        name = canonical(labels.pop("__name__", query), labels)
        if kind == "matrix":
            yield name, list(each.get("values", ())) or [None]
        else:
            yield name, [each.get("value")]
