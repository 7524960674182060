"""Records that look right and are not: biased, poisoned, drifted, evasive; on the data's lattice and in its ranges."""

from __future__ import annotations

from chimera.sandbox.threats.kinds import BatchDetector, Reference, Synthetic, ThreatKind, Threats, bootstrap
from chimera.sandbox.threats.tables import make_threats
from chimera.sandbox.threats.windows import make_window_threats

__all__ = [
    "BatchDetector",
    "Reference",
    "Synthetic",
    "ThreatKind",
    "Threats",
    "bootstrap",
    "make_threats",
    "make_window_threats",
]
