"""What waits for a person: listed, shown whole, and answered, the same for the command line, the API and its console.

The patches of a node that mends itself lie in its folder. An answer is a file beside them, which the node looks for: it
alone applies patches, in its own process, and one that is given while none runs is heeded by the next.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import ValidationError

from chimera.core.errors import InputError, NotThere, Overloaded
from chimera.core.types import Frozen, Share
from chimera.healing.diff import diff_of
from chimera.healing.judge import Verdict
from chimera.healing.patch import TestFile
from chimera.system.proposals import Asked, Proposal, flaw_of

if TYPE_CHECKING:
    from chimera.system.heart import HeartNode

MAX_REVIEW_BYTES = 16_000_000
"""Of a file that holds what waits."""

HEED_S = 0.5
"""Between two looks for answers."""

Answer = Literal["approve", "refuse"]

LEFT: dict[Answer, str] = {"refuse": ".refuse", "approve": ".agree"}
"""How the file of an answer ends."""

_ID = re.compile(r"[0-9a-f]{32}")

Stamp = tuple[int, int, int]


class Waiting(Frozen):
    """What a list shows of it. `since_s` is in seconds since the epoch; `answer` is one that is not yet heeded.

    `fault` says why it cannot be used, if so; the other fields are empty then.
    """

    id: str
    kind: Literal["patch"] = "patch"
    module: str = ""
    files: tuple[str, ...] = ()
    summary: str = ""
    confidence: Share = 0.0
    since_s: float
    answer: Answer | None = None
    fault: str = ""


class FileDiff(Frozen):
    """A unified diff of one file, as `git apply` takes it."""

    path: str
    diff: str


class Review(Waiting):
    """All that a person needs to decide: what went wrong, what is proposed, and how it was tried.

    `diffs` are what will be applied; `tests` the patch's own, and `verdict` what they and the hidden ones said.
    """

    failure: str
    reason: str
    rationale: str
    author: str
    verdict: Verdict
    tests: tuple[TestFile, ...]
    diffs: tuple[FileDiff, ...]


class Reviews(Protocol):
    """A queue of what waits for a person. Its methods block; they are called from threads."""

    def waiting(self) -> Sequence[Waiting]:
        """What waits, the longest first."""

    def read(self, review_id: str) -> Review:
        """All of one. Raises NotThere where none of that id waits, InputError where it is damaged."""

    def answer(self, review_id: str, answer: Answer) -> Waiting:
        """Leave an answer, which is heeded in its own time; the same twice is fine. Raises as `read`, and InputError
        where the other answer has been given."""


class PatchReviews:
    """The patches of a node that mends itself; `home` is its folder, which need not be there yet. Thread-safe."""

    def __init__(self, home: Path) -> None:
        self._folder, self._answers = home / "reviews", home / "answers"
        self._asked = Asked(self._folder)
        self._known: dict[str, tuple[Stamp, Waiting]] = {}
        self._lock = threading.Lock()

    def waiting(self) -> list[Waiting]:
        with self._lock:
            found = {}
            for review_id in self._asked.ids():
                with suppress(NotThere):  # it was answered meanwhile
                    found[review_id] = self._listed(review_id)
            self._known = found
        told = [each.model_copy(update={"answer": self._left(each.id)}) for _, each in found.values()]
        return sorted(told, key=lambda each: (each.since_s, each.id))

    def read(self, review_id: str) -> Review:
        with self._lock:  # diffs cost time: one at once
            proposal, stamp = self._proposal(review_id)
            diffs = tuple(
                FileDiff(path=path, diff=diff_of(path, _bytes(proposal.before.get(path)), text.encode()))
                for path, text in sorted(proposal.changes.items())
            )
        patch = proposal.patch
        return Review(
            **{**dict(self._brief(proposal, stamp)), "answer": self._left(review_id)},
            failure=proposal.failure.told(),
            reason=proposal.decision.reason,
            rationale=patch.rationale,
            author=" ".join(filter(None, (patch.provider, patch.model))),
            verdict=proposal.verdict,
            tests=patch.tests,
            diffs=diffs,
        )

    def answer(self, review_id: str, answer: Answer) -> Waiting:
        with self._lock:
            proposal, stamp = self._proposal(review_id)
            given = self._left(review_id)
            if given not in (None, answer):
                raise InputError(f"review {review_id} has been given another answer ({given}), which is not yet heeded")
            try:
                self._answers.mkdir(exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
                os.close(os.open(self._answers / f"{review_id}{LEFT[answer]}", flags, 0o600))
            except OSError as error:
                raise InputError(f"{self._answers} cannot be written: {error.strerror}") from None
        return self._brief(proposal, stamp).model_copy(update={"answer": answer})

    def _left(self, review_id: str) -> Answer | None:
        return next((each for each, end in LEFT.items() if (self._answers / f"{review_id}{end}").exists()), None)

    def _listed(self, review_id: str) -> tuple[Stamp, Waiting]:
        """As it was read before, if its file is still that one."""
        try:
            stamp = _stamp((self._folder / f"{review_id}.json").lstat())
        except OSError:
            raise NotThere(_none(review_id)) from None
        known = self._known.get(review_id)
        if known is not None and known[0] == stamp:
            return known
        try:
            proposal, stamp = self._proposal(review_id)
        except NotThere:
            raise
        except InputError as error:
            return stamp, Waiting(id=review_id, since_s=stamp[0] / 1e9, fault=str(error))
        return stamp, self._brief(proposal, stamp)

    def _brief(self, proposal: Proposal, stamp: Stamp) -> Waiting:
        return Waiting(
            id=proposal.patch.id,
            module=proposal.failure.module,
            files=tuple(sorted(proposal.changes)),
            summary=proposal.patch.summary,
            confidence=proposal.confidence,
            since_s=stamp[0] / 1e9,
        )

    def _proposal(self, review_id: str) -> tuple[Proposal, Stamp]:
        """The patch, whose id follows from its edits, and whose edits are what its files would become."""
        if not _ID.fullmatch(review_id):
            raise NotThere(f"{review_id!a:.100} is no id of a review: those are 32 hex digits")
        content, stamp = _content(self._folder / f"{review_id}.json", review_id)
        try:
            proposal = Proposal.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            why = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
            raise InputError(_damaged(review_id, why)) from None
        if (flaw := flaw_of(proposal, review_id)) is not None:
            raise InputError(_damaged(review_id, f"it {flaw}"))
        return proposal, stamp


async def heed(node: HeartNode, home: Path, told: Callable[[str], None]) -> None:
    """Give the node the answers that people leave, as they come, until cancelled. One that fits nothing is told."""
    methods = {LEFT["refuse"]: node.refuse, LEFT["approve"]: node.agree}
    while True:
        for end, method in methods.items():  # of two answers at once, the refusal
            for path in sorted((home / "answers").glob(f"*{end}")):
                try:
                    method(path.stem)
                except Overloaded as error:
                    told(f"{path.name} waits: {error}")
                    continue
                except Exception as error:  # whatever lies there, the node goes on
                    told(f"{path.name} came to nothing: {error}")
                with suppress(OSError):
                    path.unlink()
        await asyncio.sleep(HEED_S)


def _content(path: Path, review_id: str) -> tuple[bytes, Stamp]:
    """What is in a plain file that is not too large: no link to another one, and no pipe that never ends."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotThere(_none(review_id)) from None
    except OSError as error:
        raise InputError(_damaged(review_id, str(error.strerror))) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(_damaged(review_id, "it is no plain file"))
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_REVIEW_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_REVIEW_BYTES:
        raise InputError(_damaged(review_id, f"it is larger than {MAX_REVIEW_BYTES:,} bytes"))
    return content, _stamp(found)


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_mtime_ns, found.st_size, found.st_ino


def _none(review_id: str) -> str:
    return f"no review {review_id} waits: it has been answered, or there never was one"


def _damaged(review_id: str, why: str) -> str:
    return f"reviews/{review_id}.json in the node's folder cannot be used: {why:.300}; look at it, and delete it"


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
