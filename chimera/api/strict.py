"""JSON that says one thing to every reader: no name twice, no NaN, no half of a character.

Parsers differ in what they make of these (RFC 8259, sections 4, 6 and 8.2), and what one part of a system checked is
then not what another one does.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from chimera.core.errors import InputError


def loads(text: bytes | str) -> Any:
    """The value. Raises InputError."""
    try:
        told = text.decode() if isinstance(text, bytes) else text
        value = json.loads(told, object_pairs_hook=_once, parse_constant=_no_number)
        if "\\u" in told:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise InputError("the body is not UTF-8 text") from None
    except RecursionError:
        raise InputError("the body is nested too deep") from None
    except json.JSONDecodeError as error:
        raise InputError(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError:  # a whole number of thousands of digits
        raise InputError("the body holds a number that is too long") from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InputError("the body has a name twice in one object")
    return found


def _no_number(name: str) -> NoReturn:
    raise InputError(f"the body holds {name}, which is not JSON")
