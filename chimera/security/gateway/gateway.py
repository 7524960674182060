"""What comes in: within limits, looked at in every reading, and marked as from outside.

A screening informs: it can warn, log, or send a text to a person. It never makes a text trusted. What stops an injected
text is `ToolGuard`, which asks no detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from chimera.security.gateway.detector import Detector, load
from chimera.security.gateway.limits import Limits, strings
from chimera.security.gateway.marks import marks
from chimera.security.gateway.normal import fold
from chimera.security.gateway.patterns import Finding, findings
from chimera.security.gateway.taint import Tainted
from chimera.security.gateway.views import views

MAX_FINDINGS: Final = 64


@dataclass(frozen=True)
class Screened:
    """A text, unchanged and tainted, with what was seen in it. `score` is from 0 to 1, 0 with the detector off."""

    text: Tainted
    score: float
    suspicious: bool
    findings: tuple[Finding, ...]


class SecurityGateway:
    """Screens what comes in. `detector` is the one that is shipped; `detecting=False` keeps limits and taint only."""

    def __init__(
        self, *, limits: Limits | None = None, detector: Detector | None = None, detecting: bool = True
    ) -> None:
        self._limits = limits or Limits()
        self._detector = (detector or load()) if detecting else None

    @property
    def threshold(self) -> float:
        """The score from which a text is suspicious; above 1, so never reached, with the detector off."""
        return self._detector.threshold if self._detector else 2.0

    def screen(self, text: str, source: str) -> Screened:
        """Look at a text from `source`, such as `mail` or `web:example.com`. `InputError` where it passes a limit."""
        tainted = Tainted(self._limits.text(text), frozenset({source}))
        seen = marks(text)
        score = 0.0
        if self._detector is not None:
            for how, reading in (("", text), *((view.how, view.text) for view in views(text))):
                here = list(findings(fold(reading), how))
                found = self._detector.score(reading, here)
                if how and found >= self._detector.threshold:
                    here.append(Finding("encoded", reading[:80], how))
                score = max(score, found)
                seen += here
        return Screened(tainted, score, score >= self.threshold, tuple(seen[:MAX_FINDINGS]))

    def screen_json(self, document: bytes, source: str) -> tuple[JsonValue, Screened]:
        """A JSON document's value, and the screening of all texts in it together, one a line."""
        value = self._limits.json(document)
        return value, self.screen("\n".join(strings(value)), source)
