"""A stranger's audit: whether a chain of blocks is what it says, with nothing believed and nobody asked.

Every verdict is computed again from its challenge's id. Every count is followed, so that a sample which was left out,
told twice, or drawn out of turn shows. Blocks are read one at a time, in memory that does not grow with the chain.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from chimera.arena.canonical import encode_info
from chimera.arena.envs import challenge as rules
from chimera.arena.envs.base import ArenaEnv
from chimera.arena.types import Block, BlockHeader, Sample, Verdict
from chimera.arena.validators.blocks import block_hash, check_block, check_link, read_block
from chimera.arena.validators.challenges import Own, Shared, parse
from chimera.core.errors import EvidenceError, InputError

MAX_FAULTS = 1_000
"""Faults that a report lists; it counts the others."""

MAX_ENVIRONMENTS = 1_000
"""Environments in one chain."""

MAX_RECENT = 65_536
"""Shared counts that are followed at a time. A beacon round older than those left behind cannot be begun any more."""

FaultKind: TypeAlias = Literal[
    "beacon",
    "chain",
    "environment",
    "foreign",
    "gap",
    "info",
    "limit",
    "merkle",
    "prompt",
    "replay",
    "signature",
    "time",
    "undecodable",
    "verdict",
]
"""`foreign`: of another validator, or a challenge that this one may not draw. `gap`: something is missing before it.

`beacon`: a round with two randomnesses. `environment`: it is not installed here, or fails on the sample.
"""

Lookup: TypeAlias = Callable[[str], type[ArenaEnv[Any, Any, Any]]]
"""The environment of an id. Raises InputError (EnvironmentNotFound) when there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a chain. `block_index` is the block's place in it, from 0."""

    kind: FaultKind
    block_index: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """What an audit found. `head_hash` is that of the last block that could be read, empty if there was none.

    `blocks` and `samples` count what was audited: all blocks, and the samples of those that are the validator's.
    `faults` are the first 1,000 of `fault_count`.
    """

    hotkey: str
    blocks: int
    samples: int
    head_hash: str
    faults: tuple[Fault, ...]
    fault_count: int

    @property
    def ok(self) -> bool:
        return not self.fault_count


def registered(env_id: str) -> type[ArenaEnv[Any, Any, Any]]:
    """The environment that is installed here under this id."""
    from chimera.arena.envs.registry import (
        environment,
    )  # looks for installed packages, and imports Gymnasium's registry

    return environment(env_id)


def audit_sample(sample: Sample, *, lookup: Lookup = registered) -> None:
    """Raises EvidenceError unless everything that a sample claims about its challenge is so.

    Reasons: `limit` (an info of more than 4 KiB), `environment` (none of that id, or it fails), `info`, `prompt`,
    `verdict` (not those computed again).
    """
    claimed = encode_info(sample.info)
    try:
        kind = lookup(sample.env_id)
        dealt = rules.deal(kind.rules, sample.challenge_id)
        info, prompt = encode_info(rules.info_of(dealt, sample.challenge_id)), dealt.prompt()
        verdict = Verdict.model_validate(kind.verify(sample.prompt, sample.response, sample.info))
    except InputError as error:
        raise EvidenceError(str(error), "environment") from error
    except Exception as error:  # an environment may be anybody's code, and must not end an audit
        raise EvidenceError(f"{sample.env_id} fails: {type(error).__name__}: {error}", "environment") from error
    if claimed != info:  # the bytes: in Python, True and 1 are equal
        raise EvidenceError(f"the info of {sample.challenge_id} is not that of the challenge", "info")
    if sample.prompt != prompt:
        raise EvidenceError(f"the prompt of {sample.challenge_id} is not that of the challenge", "prompt")
    if sample.verdict != verdict:
        raise EvidenceError(
            f"{sample.miner_id} on {sample.challenge_id}: the verdict says {sample.verdict.ok}"
            f" ({sample.verdict.reason!r}), and is {verdict.ok} ({verdict.reason!r})",
            "verdict",
        )


def audit_block(block: Block, *, lookup: Lookup = registered) -> None:
    """`check_block`, and `audit_sample` for each sample: a block by itself. Raises EvidenceError as they do."""
    check_block(block)
    for sample in block.samples:
        audit_sample(sample, lookup=lookup)


class Draws:
    """Which challenges a chain has drawn so far, pair by pair: whether each was next in its count."""

    def __init__(self, hotkey: str, *, most: int = MAX_RECENT) -> None:
        self._hotkey = hotkey
        self._most = most
        self._own: dict[str, int] = {}
        self._shared: OrderedDict[tuple[str, int, str, str], int] = OrderedDict()
        self._randomness: OrderedDict[int, str] = OrderedDict()
        self._left_behind = -1

    def take(self, champion: Sample, contender: Sample) -> None:
        """Count a pair. Raises EvidenceError: `foreign`, `beacon`, `gap`, `replay`, `limit`. A gap is told once."""
        name = parse(champion.challenge_id)
        if isinstance(name, Shared):
            self._take_shared(name, (champion.env_id, name.round, champion.miner_id, contender.miner_id))
        elif name is None or name.hotkey != self._hotkey:
            raise EvidenceError(f"{champion.challenge_id} is not a challenge that {self._hotkey} may draw", "foreign")
        else:
            self._take_own(name, champion.env_id)

    def _take_own(self, name: Own, env_id: str) -> None:
        if len(self._own) >= MAX_ENVIRONMENTS and env_id not in self._own:
            raise EvidenceError(f"the chain has more than {MAX_ENVIRONMENTS} environments", "limit")
        due = self._own.get(env_id, 0)
        self._own[env_id] = max(due, name.counter + 1)
        _check_turn(name.counter, due, f"of its own challenges in {env_id}")

    def _take_shared(self, name: Shared, group: tuple[str, int, str, str]) -> None:
        known = self._randomness.setdefault(name.round, name.randomness)
        self._randomness.move_to_end(name.round)
        if len(self._randomness) > self._most:
            self._randomness.popitem(last=False)
        if name.randomness != known:
            raise EvidenceError(f"round {name.round} of the beacon has another randomness", "beacon")
        if group not in self._shared and name.round <= self._left_behind:
            raise EvidenceError(f"round {name.round} of the beacon is too old to tell from a replay", "replay")
        due = self._shared.get(group, 0)
        self._shared[group] = max(due, name.index + 1)
        self._shared.move_to_end(group)
        if len(self._shared) > self._most:
            (_, oldest, _, _), _ = self._shared.popitem(last=False)
            self._left_behind = max(self._left_behind, oldest)
        _check_turn(name.index, due, f"of the shared challenges of round {name.round} in {group[0]}")


class ChainAudit:
    """An audit in progress: give it one block after another, from the first.

    `hotkey` is whose chain it is said to be. The randomness of shared challenges is compared with itself only; what the
    beacon published is compared in a merge.
    """

    def __init__(self, hotkey: str, *, lookup: Lookup = registered) -> None:
        self.hotkey = hotkey
        self._lookup = lookup
        self._draws = Draws(hotkey)
        self._previous: BlockHeader | None = None
        self._linked = True
        self._head_hash = ""
        self._blocks = 0
        self._samples = 0
        self._faults: list[Fault] = []
        self._fault_count = 0

    def add(self, block: Block | bytes) -> int:
        """Audit the next block; how many faults it has. One that is not the validator's is not looked into further."""
        before = self._fault_count
        found = self._read(block)
        if found is None:
            self._linked = False  # what comes next can be linked to nothing
        else:
            self._link(found.header)
            for number, (champion, contender) in enumerate(zip(found.samples[::2], found.samples[1::2], strict=True)):
                self._try(lambda pair: self._draws.take(*pair), (champion, contender), f"pair {number}: ")
                for sample in (champion, contender):
                    self._try(lambda each: audit_sample(each, lookup=self._lookup), sample, f"pair {number}: ")
            self._samples += len(found.samples)
        self._blocks += 1
        return self._fault_count - before

    def report(self) -> ChainReport:
        """What was found so far."""
        return ChainReport(
            hotkey=self.hotkey,
            blocks=self._blocks,
            samples=self._samples,
            head_hash=self._head_hash,
            faults=tuple(self._faults),
            fault_count=self._fault_count,
        )

    def _read(self, block: Block | bytes) -> Block | None:
        """The block, if it is sound and the validator's."""
        try:
            if isinstance(block, bytes):
                block = read_block(block)
            else:
                check_block(block)
            if block.header.validator_hotkey != self.hotkey:
                raise EvidenceError(f"it is of {block.header.validator_hotkey}, not of {self.hotkey}", "foreign")
        except EvidenceError as error:
            self._note(error)
            return None
        return block

    def _link(self, header: BlockHeader) -> None:
        if self._linked:
            self._try(lambda each: check_link(self._previous, each), header)
        self._previous, self._linked, self._head_hash = header, True, block_hash(header)

    def _try(self, check: Callable[[Any], None], what: Any, where: str = "") -> None:
        try:
            check(what)
        except EvidenceError as error:
            self._note(error, where)

    def _note(self, error: EvidenceError, where: str = "") -> None:
        self._fault_count += 1
        if len(self._faults) < MAX_FAULTS:
            kind = cast(FaultKind, error.reason) if error.reason in get_args(FaultKind) else "undecodable"
            self._faults.append(Fault(kind=kind, block_index=self._blocks, message=f"{where}{error}"[:1_000]))


def audit_chain(blocks: Iterable[Block | bytes], hotkey: str, *, lookup: Lookup = registered) -> ChainReport:
    """Audit a whole chain from its first block: `ChainAudit` over an iterable, which is read one block at a time."""
    audit = ChainAudit(hotkey, lookup=lookup)
    for block in blocks:
        audit.add(block)
    return audit.report()


def _check_turn(number: int, due: int, what: str) -> None:
    if number > due:
        raise EvidenceError(f"number {due} {what} is missing before number {number}", "gap")
    if number < due:
        raise EvidenceError(f"number {number} {what} comes again", "replay")
