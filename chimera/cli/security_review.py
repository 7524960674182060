"""`chimera security review`: what the gate for public outputs says to a text, and how good it is on labelled ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chimera.core.errors import ChimeraError, InputError, OutputBlocked
from chimera.core.stats import wilson_interval

if TYPE_CHECKING:
    from chimera.security.safety.findings import Finding, MediaType
    from chimera.security.safety.gateway import SafetyGateway

CLEARED, BLOCKED, BAD_INPUT = 0, 1, 2
MAX_FILE_BYTES = 16_000_000
MAX_LINES = 100_000

MEDIA_TYPES: dict[str, MediaType] = {
    ".md": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".json": "application/json",
    ".py": "text/x-code",
    ".js": "text/x-code",
    ".ts": "text/x-code",
    ".c": "text/x-code",
    ".go": "text/x-code",
    ".rs": "text/x-code",
    ".java": "text/x-code",
}


def review(
    file: Annotated[
        Path,
        typer.Argument(
            help="A text; - is standard input; FILE.jsonl of text and label (0 or 1) is measured.", metavar="FILE"
        ),
    ],
    channel: Annotated[str, typer.Option(help="The policy's channel that it is for.", metavar="NAME")] = "post",
    policy: Annotated[
        Path | None, typer.Option(help="A safety policy, YAML or JSON (default: the built-in one).", metavar="FILE")
    ] = None,
    audience: Annotated[str, typer.Option(help="Who is to read it.")] = "public",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")] = False,
) -> None:
    """Review a text as if it were to go out: what is redacted, what blocks it, what the channel wants it to disclose.

    Nothing is sent. Exit codes: **0** it may go out, or a file of labelled texts was measured, **1** it may not,
    **2** bad input.

    Example: `chimera security review post.md --channel post`
    """
    try:
        raise typer.Exit(execute(file, channel, policy, audience, as_json))
    except ChimeraError as error:
        typer.echo(f"chimera: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None


def execute(file: Path, channel: str, policy_file: Path | None, audience: str, as_json: bool) -> int:
    """Review or measure, print, and return the exit code. Raises InputError, MissingExtra."""
    text = _read(file)
    labelled = list(_labelled(text)) if file.suffix == ".jsonl" else None

    from chimera.core.clock import SystemClock
    from chimera.security.safety.gateway import SafetyGateway
    from chimera.security.safety.policy import SafetyPolicy, load_policy

    policy = SafetyPolicy() if policy_file is None else load_policy(policy_file)
    if channel not in policy.channels:
        raise InputError(f"no channel {channel} in the policy: it has {', '.join(sorted(policy.channels))}")
    gateway = SafetyGateway(policy, SystemClock())
    media_type = MEDIA_TYPES.get(file.suffix.lower(), "text/plain")
    if labelled is not None:
        typer.echo(_told(_measured(gateway, labelled, channel), as_json))
        return CLEARED
    outcome = _reviewed(gateway, text, channel, audience, media_type)
    typer.echo(_told(outcome, as_json) if as_json else _in_words(outcome, text))
    return CLEARED if outcome["cleared"] else BLOCKED


def _read(file: Path) -> str:
    try:
        data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1) if str(file) == "-" else file.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            raise InputError(f"{file}: at most {MAX_FILE_BYTES} bytes are read")
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file}: not UTF-8") from None
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None


def _labelled(text: str) -> Iterator[tuple[str, int]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            sample = json.loads(line)
            what, label = sample["text"], sample["label"]
        except (ValueError, TypeError, KeyError, RecursionError):
            what, label = None, None
        if not isinstance(what, str) or label not in (0, 1) or number > MAX_LINES:
            raise InputError(
                f'line {number}: give {{"text": ..., "label": 0 or 1}} on each of at most {MAX_LINES} lines'
            )
        yield what, label


def _reviewed(gateway: SafetyGateway, text: str, channel: str, audience: str, media_type: MediaType) -> dict[str, Any]:
    from pydantic import ValidationError

    from chimera.security.safety.findings import Output

    try:
        output = Output(text=text, channel=channel, audience=audience, author="cli", media_type=media_type)
        cleared = gateway.review(output)
    except ValidationError as error:
        raise InputError(
            f"this is no output: {error.errors(include_url=False, include_input=False)[0]['msg']}"
        ) from None
    except OutputBlocked as blocked:
        return {"cleared": False, "message": str(blocked), "findings": _listed(blocked.findings)}
    return {
        "cleared": True,
        "text": cleared.text,
        "disclosure": cleared.disclosure,
        "findings": _listed(cleared.findings),
    }


def _listed(findings: tuple[Any, ...]) -> list[dict[str, Any]]:
    kept: tuple[Finding, ...] = findings
    return [finding.model_dump(mode="json") for finding in kept]


def _measured(gateway: SafetyGateway, labelled: list[tuple[str, int]], channel: str) -> dict[str, Any]:
    """Precision and recall with their 95 % Wilson intervals; found is what blocks, holds or redacts."""
    counts = {(label, found): 0 for label in (0, 1) for found in (False, True)}
    for text, label in labelled:
        findings = _reviewed(gateway, text, channel, "measured", "text/plain")["findings"]
        found = any(
            one["severity"] != "warn" and not one["rule"].startswith(("disclosure.", "limits.")) for one in findings
        )
        counts[label, found] += 1
    caught, missed, alarms = counts[1, True], counts[1, False], counts[0, True]
    return {
        "bad": caught + missed,
        "benign": alarms + counts[0, False],
        "caught": caught,
        "false_alarms": alarms,
        "recall": _rate(caught, caught + missed),
        "precision": _rate(caught, caught + alarms),
        "false_positive_rate": _rate(alarms, alarms + counts[0, False]),
    }


def _rate(part: int, whole: int) -> dict[str, float | None]:
    low, high = wilson_interval(part, whole)
    return {"value": part / whole if whole else None, "low": low, "high": high}


def _told(outcome: dict[str, Any], as_json: bool) -> str:
    if as_json:
        return json.dumps(outcome, ensure_ascii=True)
    lines = []
    for name, value in outcome.items():
        if isinstance(value, dict):
            rate = "unknown" if value["value"] is None else f"{value['value']:.3f}"
            value = f"{rate} ({value['low']:.3f} to {value['high']:.3f})"
        lines.append(f"{name.replace('_', ' ')}: {value}")
    return "\n".join(lines)


def _in_words(outcome: dict[str, Any], text: str) -> str:
    lines = []
    for finding in outcome["findings"]:
        start, _ = finding["span"]
        line = text.count("\n", 0, start) + 1
        lines.append(f"{finding['severity']:<7} line {line}: {finding['rule']}: {finding['advice']}")
    if outcome["cleared"]:
        return "\n".join([*lines, "cleared:", outcome["text"]])
    return "\n".join([*lines, "blocked: it may not go out as it is"])
