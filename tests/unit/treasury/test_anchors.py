"""Heads that are kept outside: they survive their writer, nobody else writes one, and no other ledger fits them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chimera.core.clock import ManualClock
from chimera.core.errors import LedgerError, SecurityError
from chimera.treasury import anchors as anchoring
from chimera.treasury.anchors import HeadAnchor, anchor, read_anchors
from chimera.treasury.auditing import LedgerAudit, audit_ledger
from chimera.treasury.ledger import Head
from chimera.treasury.types import NANO
from tests.ledger_house import House
from tests.ledgers import verify as verify_word
from tests.ledgers_sqlite import SqliteBench


class Key:
    """Ed25519, as a signing key of the treasury's is."""

    def __init__(self, key_id: str = "cfo-1") -> None:
        self.key_id = key_id
        self.private = Ed25519PrivateKey.generate()

    def sign(self, payload: bytes) -> bytes:
        return self.private.sign(payload)

    def verify(self, each: HeadAnchor) -> bool:
        try:
            self.private.public_key().verify(bytes.fromhex(each.signature), each.payload())
        except InvalidSignature:
            return False
        return True


HEADS = [Head(seq=seq, hash=f"{seq:064x}") for seq in (3, 7, 7, 12)]


def written(path: Path, key: Key) -> list[HeadAnchor]:
    return [anchor(path, head, key=key, at=1_000 + place) for place, head in enumerate(HEADS)]


def test_what_was_anchored_is_read_back(tmp_path: Path) -> None:
    key, path = Key(), tmp_path / "anchors.jsonl"
    made = written(path, key)
    assert list(read_anchors(path, key.verify)) == made
    assert [(each.seq, each.hash, each.key_id) for each in made] == [(head.seq, head.hash, "cfo-1") for head in HEADS]
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(made[0].payload())["chimera"] == "HeadAnchor", "it is signed as nothing else"


def test_half_a_line_is_no_anchor_and_is_cut_off_by_the_next(tmp_path: Path) -> None:
    key, path = Key(), tmp_path / "anchors.jsonl"
    written(path, key)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert len(read_anchors(path, key.verify)) == len(HEADS)
    anchor(path, Head(seq=20, hash="f" * 64), key=key, at=2_000)
    assert [each.seq for each in read_anchors(path, key.verify)] == [3, 7, 7, 12, 20]


@pytest.mark.parametrize("field", ["at", "seq", "hash", "key_id"])
def test_a_changed_anchor_is_refused(tmp_path: Path, field: str) -> None:
    key, path = Key(), tmp_path / "anchors.jsonl"
    written(path, key)
    lines = path.read_text().splitlines()
    told = json.loads(lines[1])
    told[field] = {"at": 1_002, "seq": 8, "hash": "e" * 64, "key_id": "cfo-2"}[field]
    path.write_text("\n".join([lines[0], json.dumps(told), *lines[2:]]) + "\n")
    with pytest.raises(SecurityError, match="line 2: the signature"):
        read_anchors(path, key.verify)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [lines[1], lines[0], *lines[2:]], "line 2 is of an earlier row"),
        (lambda lines: [lines[0], "{}", *lines[2:]], "line 2 is no anchor"),
        (lambda lines: [lines[0], "", *lines[2:]], "line 2 is no anchor"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused(
    tmp_path: Path, change: Callable[[list[str]], list[str]], said: str
) -> None:
    key, path = Key(), tmp_path / "anchors.jsonl"
    written(path, key)
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(LedgerError, match=said):
        read_anchors(path, key.verify)


def test_another_key_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "anchors.jsonl"
    written(path, Key())
    with pytest.raises(SecurityError):
        read_anchors(path, Key().verify)


def test_a_file_has_a_limit_and_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, path = Key(), tmp_path / "anchors.jsonl"
    monkeypatch.setattr(anchoring, "MAX_BYTES", 500)
    with pytest.raises(LedgerError, match="is full"):
        written(path, key)
    assert read_anchors(path, key.verify)
    path.write_bytes(path.read_bytes() * 9)
    with pytest.raises(LedgerError, match="larger"):
        read_anchors(path, key.verify)
    with pytest.raises(LedgerError, match="takes no anchor"):
        anchor(tmp_path / "none" / "file", HEADS[0], key=key, at=1)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(LedgerError, match="takes no anchor"):
        anchor(tmp_path / "link", HEADS[0], key=key, at=1)
    with pytest.raises(LedgerError, match="cannot be read"):
        read_anchors(tmp_path / "none", key.verify)


WRITER = """
import sys
from pathlib import Path
from chimera.treasury.anchors import anchor
from chimera.treasury.ledger import Head
class Key:
    key_id = "k"
    def sign(self, payload): return bytes(64)
for seq in range(1, 10**9):
    anchor(Path(sys.argv[1]), Head(seq=seq, hash=f"{seq:064x}"), key=Key(), at=seq)
    print(seq, flush=True)
"""


def test_an_anchor_that_was_confirmed_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "anchors.jsonl"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    confirmed = [int(writer.stdout.readline()) for _ in range(20)]
    os.kill(writer.pid, signal.SIGKILL)
    confirmed += [int(line) for line in writer.stdout.read().splitlines()]
    writer.wait()
    found = [each.seq for each in read_anchors(path, lambda each: True)]
    assert found[: len(confirmed)] == confirmed and found == list(range(1, len(found) + 1))


async def begun(tmp_path: Path, name: str, amount: int = NANO) -> House:
    house = await House(SqliteBench(tmp_path / f"{name}.db")).begin()
    assert await house.pay(amount) is None
    return house


async def audited(house: House, anchors: list[HeadAnchor]) -> LedgerAudit:
    clock = ManualClock(house.bench.at / 1e6)
    return await audit_ledger(house.app, verify=verify_word, anchors=anchors, clock=clock)


async def test_a_ledger_that_was_written_anew_fits_no_anchor_of_the_old_one(tmp_path: Path) -> None:
    key, path = Key(), tmp_path / "anchors.jsonl"
    house = await begun(tmp_path, "true")
    early = anchor(path, await house.app.head(), key=key, at=1)
    assert await house.pay(NANO) is None
    late = anchor(path, await house.app.head(), key=key, at=2)
    assert await house.pay(NANO) is None
    kept = list(read_anchors(path, key.verify))
    assert kept == [early, late] and (await audited(house, kept)).ok
    forged = await begun(tmp_path, "forged", amount=2 * NANO)
    for _ in range(4):
        assert await forged.pay(2 * NANO) is None
    assert (await audited(forged, [])).ok, "its hashes are good"
    assert [each.seq for each in (await audited(forged, kept)).findings] == [early.seq, late.seq]
    # An anchor that was made since is of the forged ledger: an earlier one still says so.
    since = anchor(path, await forged.app.head(), key=key, at=3)
    assert [each.seq for each in (await audited(forged, [early, since])).findings] == [early.seq]
    await house.bench.close()
    await forged.bench.close()


async def test_rows_that_were_removed_at_the_end_are_missed(tmp_path: Path) -> None:
    house = await begun(tmp_path, "short")
    head = await house.app.head()
    end = anchor(tmp_path / "anchors", Head(seq=head.seq + 5, hash="a" * 64), key=Key(), at=1)
    (finding,) = (await audited(house, [end])).findings
    assert finding.what == f"rows {head.seq + 1} to {end.seq} are missing: the end was kept outside"
    await house.bench.close()


async def test_an_anchor_of_an_empty_ledger_counts_too(tmp_path: Path) -> None:
    house = await begun(tmp_path, "empty")
    none = anchor(tmp_path / "anchors", Head(seq=0, hash="0" * 64), key=Key(), at=1)
    other = anchor(tmp_path / "anchors", Head(seq=0, hash="1" * 64), key=Key(), at=1)
    end = anchor(tmp_path / "anchors", await house.app.head(), key=Key(), at=2)
    assert (await audited(house, [none, end])).ok
    assert not (await audited(house, [other, end])).ok and not (await audited(house, [other])).ok
    await house.bench.close()
