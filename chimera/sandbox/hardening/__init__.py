"""Detectors made better by what they miss: train, attack, refit, measure. See `chimera.sandbox.hardening.harden`."""

from __future__ import annotations

from chimera.sandbox.hardening.batches import Parts
from chimera.sandbox.hardening.detector import BatchDetector, MarginalDetector, MomentsDetector
from chimera.sandbox.hardening.harden import harden
from chimera.sandbox.hardening.hardened import Hardened
from chimera.sandbox.hardening.report import FalseAlarms, HardenReport, Measured

__all__ = [
    "BatchDetector",
    "FalseAlarms",
    "HardenReport",
    "Hardened",
    "MarginalDetector",
    "Measured",
    "MomentsDetector",
    "Parts",
    "harden",
]
