"""What the tests of the audit log have in common."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chimera.core.clock import Clock, ManualClock
from chimera.security.audit import AuditLog
from chimera.security.audit_anchors import AnchorStore
from chimera.security.audit_entry import anchors_folder
from chimera.security.audit_verify import AuditReport, verify
from chimera.security.audit_writer import AuditLimits

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)

NOON_S = 1_800_057_600.0 + 43_200.0
DAY_S = 86_400.0


def open_log(
    folder: Path,
    *,
    clock: Clock | None = None,
    kept: int = 10_000,
    anchors: AnchorStore | None = None,
    **limits: float,
) -> AuditLog:
    chosen = AuditLimits(**{"anchor_entries": 7, **limits})  # type: ignore[arg-type]
    return AuditLog(folder, KEY, clock=clock or ManualClock(NOON_S), limits=chosen, kept=kept, anchors=anchors)


def write(folder: Path, entries: int, *, actor: str = "alice", anchors: AnchorStore | None = None) -> None:
    """A log of so many entries, in files of about four each, closed as it should be."""
    log = open_log(folder, segment_bytes=1_000, anchors=anchors)
    for number in range(entries):
        log.append(actor, "swarm:task", f"missions/{number}", "ok", {"n": number})
        if number % 5 == 4:
            log.flush()
    log.close()


def checked(folder: Path, *, at_least: int = 0) -> AuditReport:
    return verify(folder, anchors_folder(folder), KEY.public_key(), at_least=at_least)


def kind(report: AuditReport) -> str:
    assert report.ok == (report.first_problem is None)
    return report.first_problem.kind if report.first_problem else ""
