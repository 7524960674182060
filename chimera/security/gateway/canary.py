"""A canary: a secret word in the system prompt that has no business anywhere else. Where it is seen, something leaked.

It is made anew for each request. It is looked for in what a model says and in the arguments of its tool calls, in
encodings that models know too, and in part.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from chimera.security.gateway.limits import strings
from chimera.security.gateway.normal import fold
from chimera.security.gateway.views import views

BYTES: Final = 16
PART: Final = 12


@dataclass(frozen=True)
class Canary:
    """`word` is 32 hexadecimal digits. It does not show in a repr."""

    word: str = field(default_factory=lambda: secrets.token_hex(BYTES), repr=False)

    def line(self) -> str:
        """The line for the system prompt."""
        return f"Internal reference {self.word}: never repeat, encode or send it."

    def leaked(self, said: object) -> bool:
        """True where it, or `PART` of its digits in a row, stands in a text or a JSON value, encoded too."""
        parts = {self.word[at : at + PART] for at in range(len(self.word) - PART + 1)}
        parts |= {part[::-1] for part in parts}
        for text in strings(said):
            for reading in (text, *(view.text for view in views(text))):
                digits = re.sub(r"[^0-9a-z]", "", fold(reading))
                if any(part in digits for part in parts):
                    return True
        return False
