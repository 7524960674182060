"""The audit: an honest chain has no fault, and each kind of lie is named."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chimera.arena.envs.mult8 import Mult8Env
from chimera.arena.envs.registry import environments
from chimera.arena.types import Block, Sample, Verdict
from chimera.arena.validators import audit
from chimera.arena.validators.audit import ChainReport, Draws, audit_block, audit_chain, audit_sample
from chimera.arena.validators.blocks import GENESIS_HASH, encode_block, seal
from chimera.arena.validators.challenges import MAX_SHARED, own_id, shared_id
from chimera.core.errors import EnvironmentNotFound, EvidenceError
from tests.unit.arena.made_blocks import ALICE, BOB, START, chained, duelled, own_pairs, pair, played

OWN = own_id(ALICE.ss58_address, 0)
RANDOM, OTHER = "ab" * 32, "cd" * 32


def audited(blocks: list[Block], **options: Any) -> ChainReport:
    return audit_chain((encode_block(block) for block in blocks), ALICE.ss58_address, **options)


def kinds(blocks: list[Block], **options: Any) -> list[tuple[str, int]]:
    return [(fault.kind, fault.block_index) for fault in audited(blocks, **options).faults]


def changed(sample: Sample, **changes: Any) -> Sample:
    return sample.model_copy(update=changes)


def reason_of(sample: Sample, **options: Any) -> str:
    with pytest.raises(EvidenceError) as refusal:
        audit_sample(sample, **options)
    return refusal.value.reason


def shared(*indices: int, round: int = 7, randomness: str = RANDOM, **miners: str) -> list[Sample]:
    return [each for index in indices for each in duelled(shared_id(round, randomness, index), **miners)]


def own(*counters: int, env_id: str = "mult8-v0") -> list[Sample]:
    return [each for counter in counters for each in own_pairs(ALICE, counter, 1, env_id=env_id)]


def test_an_honest_chain_has_no_fault() -> None:
    parts = [
        own(0, 1) + own(0, env_id="tictactoe-v0"),
        shared(0, 1) + own(2),
        shared(2) + shared(0, round=8) + shared(0, contender="newest") + own(1, env_id="tictactoe-v0"),
    ]
    blocks = chained(ALICE, parts)
    report = audited(blocks)
    assert (report.ok, report.faults, report.blocks, report.samples) == (True, (), 3, 20)
    assert report == audit_chain(blocks, ALICE.ss58_address)
    for block in blocks:
        audit_block(block)


@pytest.mark.parametrize("env_id", environments())
@pytest.mark.parametrize("right", [True, False])
def test_an_honest_sample_of_every_environment_passes(env_id: str, right: bool) -> None:
    audit_sample(played(OWN, "champion", env_id=env_id, miner_id="old", right=right))


@pytest.mark.parametrize("env_id", environments())
@pytest.mark.parametrize("right", [True, False])
def test_every_lie_about_a_sample_is_named(env_id: str, right: bool) -> None:
    honest = played(OWN, "champion", env_id=env_id, miner_id="old", right=right)
    turned = Verdict(ok=not right, reason="" if not right else honest.verdict.reason)
    assert reason_of(changed(honest, verdict=turned)) == "verdict"
    assert reason_of(changed(honest, verdict=Verdict(ok=right, reason="because"))) == "verdict"
    assert reason_of(changed(honest, prompt=honest.prompt + " ")) == "prompt"
    assert reason_of(changed(honest, challenge_id=own_id(ALICE.ss58_address, 1))) == "info"
    assert reason_of(changed(honest, env_id="nowhere-v0")) == "environment"
    for info in ({}, {**honest.info, "more": 1}, {**honest.info, "challenge_id": "seed:1"}):
        assert reason_of(changed(honest, info=info)) == "info"
    for name in honest.info:
        assert reason_of(changed(honest, info={**honest.info, name: None})) == "info"
        assert (
            reason_of(changed(honest, info={key: each for key, each in honest.info.items() if key != name})) == "info"
        )


def test_a_lie_about_info_is_not_covered_by_a_verdict_that_fits_it() -> None:
    """A right response made to look wrong: the verdict is what `verify` says of the forged info."""
    honest = played(OWN, "champion", miner_id="old", right=True)
    forged = changed(honest, info={**honest.info, "left": 10_000_000})
    verdict = Mult8Env.verify(forged.prompt, forged.response, forged.info)
    assert not verdict.ok
    assert reason_of(changed(forged, verdict=verdict)) == "info"


def test_an_info_without_end_is_refused_before_its_environment_is_asked() -> None:
    def never(env_id: str) -> type[Mult8Env]:
        raise AssertionError("asked")

    honest = played(OWN, "champion", miner_id="old", right=True)
    for more in ("x" * 4_096, [[]] * 2_000):
        assert reason_of(changed(honest, info={**honest.info, "more": more}), lookup=never) == "limit"


@pytest.mark.parametrize("wrong", [True, 1.0], ids=["boolean", "float"])
def test_what_python_takes_for_one_is_not_one(wrong: Any) -> None:
    class One(Mult8Env):
        class rules(Mult8Env.rules):
            def public(self) -> dict[str, Any]:
                return {"one": 1}

    challenge = played(OWN, "champion", miner_id="old", right=True)
    honest = changed(challenge, info={"challenge_id": OWN, "one": 1})
    audit_sample(honest, lookup=lambda _: One)
    forged = changed(honest, info={"challenge_id": OWN, "one": wrong})
    verdict = One.verify(forged.prompt, forged.response, forged.info)
    assert reason_of(changed(forged, verdict=verdict), lookup=lambda _: One) in ("info", "encoding")


def test_an_environment_that_fails_does_not_end_the_audit() -> None:
    class Broken(Mult8Env):
        @classmethod
        def verify(cls, prompt: str, response: str, info: dict[str, Any]) -> Verdict:
            raise ZeroDivisionError("oh")

    report = audited(chained(ALICE, [own(0), own(1)]), lookup=lambda _: Broken)
    assert [fault.kind for fault in report.faults] == ["environment"] * 4
    assert "mult8-v0 fails: ZeroDivisionError: oh" in report.faults[0].message


def test_an_environment_that_is_not_installed_is_said_so() -> None:
    def none(env_id: str) -> type[Mult8Env]:
        raise EnvironmentNotFound(f"no {env_id} here")

    report = audited(chained(ALICE, [own(0)]), lookup=none)
    assert [(fault.kind, fault.message) for fault in report.faults] == [("environment", "pair 0: no mult8-v0 here")] * 2


@pytest.mark.parametrize(
    ("parts", "faults"),
    [
        ([own(0), own(2)], [("gap", 1)]),
        ([own(1), own(2)], [("gap", 0)]),
        ([own(0, 2, 1)], [("gap", 0), ("replay", 0)]),
        ([own(0, 1), own(1, 2)], [("replay", 1)]),
        ([own(0), own(0, env_id="ledger-v0"), own(2, env_id="ledger-v0")], [("gap", 2)]),
        ([own(0, 1), own(0), own(2)], [("replay", 1)]),
        ([own(0, 5), own(6)], [("gap", 0)]),
        ([shared(0, 1), shared(0), shared(2)], [("replay", 1)]),
        ([shared(0, 2), shared(3)], [("gap", 0)]),
        ([shared(1)], [("gap", 0)]),
        ([shared(0), shared(0)], [("replay", 1)]),
        ([shared(0, 1), shared(1, contender="newest")], [("gap", 1)]),
        ([shared(0), shared(0, round=8), shared(1, round=9)], [("gap", 2)]),
        ([shared(0), shared(1, randomness=OTHER)], [("beacon", 1)]),
        ([shared(0), shared(0, randomness=OTHER, contender="newest")], [("beacon", 1)]),
        ([duelled("seed:1")], [("foreign", 0)]),
        ([duelled(f"own/{ALICE.ss58_address}/00")], [("foreign", 0)]),
        ([own_pairs(BOB, 0, 1)], [("foreign", 0)]),
        ([duelled(f"beacon/7/{RANDOM}/{MAX_SHARED}")], [("foreign", 0)]),
    ],
)
def test_samples_that_were_left_out_repeated_or_chosen_are_named(
    parts: list[list[Sample]], faults: list[tuple[str, int]]
) -> None:
    assert kinds(chained(ALICE, parts)) == faults


def test_what_is_wrong_with_the_blocks_is_named() -> None:
    good = chained(ALICE, [own(0), own(1), own(2)])
    assert kinds(good[1:]) == [("gap", 0), ("gap", 0)]
    assert kinds([good[0], good[2]]) == [("gap", 1), ("gap", 1)]
    assert kinds([good[0], good[0]]) == [("replay", 1), ("replay", 1)]
    other = chained(ALICE, [own(0)], start=START + 1)
    assert kinds([other[0], good[1]]) == [("chain", 1)]
    assert kinds([*good[:2], chained(BOB, [own(0)])[0], good[2]]) == [("foreign", 2)]
    back = seal(own(1), prev_hash=good[1].header.prev_hash, index=1, timestamp=START - 1, signer=ALICE)
    assert kinds([good[0], back]) == [("time", 1)]


def test_a_block_that_is_not_sound_is_named_and_looked_into_no_further() -> None:
    good = chained(ALICE, [own(0), own(1), own(2)])
    header = good[1].header
    unsigned = good[1].model_copy(update={"header": header.model_copy(update={"signature": "0" * 128})})
    swapped = good[1].model_copy(update={"samples": tuple(own(7))})
    data = [encode_block(good[0]), b"", encode_block(good[2])]
    for bad, kind in ((unsigned, "signature"), (swapped, "merkle"), (None, "undecodable")):
        if bad is not None:
            data[1] = encode_block(bad)
        report = audit_chain(data if bad is not None else [data[0], b"{", data[2]], ALICE.ss58_address)
        assert [(fault.kind, fault.block_index) for fault in report.faults] == [(kind, 1), ("gap", 2)]
        assert (report.blocks, report.samples) == (3, 4)
    with pytest.raises(EvidenceError):
        audit_block(swapped)


def test_a_lie_in_a_sample_is_told_with_its_block() -> None:
    champion, contender = own(1)
    lie = changed(champion, verdict=Verdict(ok=True))
    blocks = chained(ALICE, [own(0), [lie, contender], own(2)])
    assert kinds(blocks) == [("verdict", 1)]
    assert "pair 0: old on own/" in audited(blocks).faults[0].message
    with pytest.raises(EvidenceError):
        audit_block(blocks[1])


def test_faults_are_counted_beyond_those_that_are_listed() -> None:
    report = audit_chain([b"x"] * (audit.MAX_FAULTS + 5), ALICE.ss58_address)
    assert (len(report.faults), report.fault_count, report.ok) == (audit.MAX_FAULTS, audit.MAX_FAULTS + 5, False)
    assert (report.head_hash, report.blocks) == ("", audit.MAX_FAULTS + 5)


def test_shared_counts_that_were_left_behind_cannot_be_begun_again() -> None:
    draws = Draws(ALICE.ss58_address, most=10)
    for round in range(1, 31):
        draws.take(*pair(shared_id(round, RANDOM, 0)))
    draws.take(*pair(shared_id(30, RANDOM, 1)))
    with pytest.raises(EvidenceError, match="too old to tell from a replay"):
        draws.take(*pair(shared_id(5, RANDOM, 0)))
    assert len(draws._shared) == len(draws._randomness) == 10


def test_a_chain_has_a_limit_of_environments() -> None:
    draws = Draws(ALICE.ss58_address)
    for number in range(audit.MAX_ENVIRONMENTS):
        draws.take(*pair(OWN, env_id=f"e{number}-v0"))
    with pytest.raises(EvidenceError, match="more than 1000 environments") as refusal:
        draws.take(*pair(OWN, env_id="one_more-v0"))
    assert refusal.value.reason == "limit"


def test_memory_does_not_grow_with_the_chain() -> None:
    def endless(count: int) -> Iterator[bytes]:
        previous = GENESIS_HASH
        for index in range(count):
            block = seal(own(index), prev_hash=previous, index=index, timestamp=START, signer=ALICE)
            previous = audit.block_hash(block.header)
            yield encode_block(block)

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            assert audit_chain(endless(count), ALICE.ss58_address).ok
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(400)  # pydantic keeps some thousand short strings that it has read
    assert peak(400) < peak(20) + 50_000


AUDIT = """
import sys
from pathlib import Path
from chimera.arena.validators.audit import audit_chain
report = audit_chain(map(Path.read_bytes, sorted(Path(sys.argv[1]).iterdir())), sys.argv[2])
print(report.ok, report.blocks, report.samples, report.head_hash)
assert "bittensor" not in sys.modules and "ray" not in sys.modules
"""


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_a_stranger_needs_the_blocks_alone(tmp_path: Path, hash_seed: str) -> None:
    """In a fresh process, with an empty home and no variable of ours."""
    blocks = chained(ALICE, [own(0), own(0, env_id="tictactoe-v0") + shared(0)])
    (tmp_path / "blocks").mkdir()
    for block in blocks:
        (tmp_path / "blocks" / f"{block.header.block_index:012d}.json").write_bytes(encode_block(block))
    said = subprocess.run(
        [sys.executable, "-c", AUDIT, str(tmp_path / "blocks"), ALICE.ss58_address],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["True", "2", "6", audited(blocks).head_hash]
