"""A ledger on disk has forgotten nothing that it said was written: after a kill, a torn line, another writer."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chimera.core.errors import InputError, PrivacyError, StorageError
from chimera.sandbox.privacy.kept import KeptLedger
from chimera.sandbox.privacy.ledger import PrivacyLedger, Release

DELTA = 1e-5

MOMENTS = Release(what="moments", noise_multiplier=5.0)
STEP = Release(what="discriminator", noise_multiplier=2.0, sample_rate=0.1)

WRITER = """
import sys
from pathlib import Path
from chimera.sandbox.privacy.kept import KeptLedger
from chimera.sandbox.privacy.ledger import Release
ledger = KeptLedger(Path(sys.argv[1]), delta=1e-5)
for step in range(100_000):
    ledger.reserve(Release(what="discriminator", noise_multiplier=2.0, sample_rate=0.1))
    print(step + 1, flush=True)
"""


def test_opened_again_it_is_the_same(tmp_path: Path) -> None:
    story = (MOMENTS, *[STEP] * 5, MOMENTS, Release(what="the choice, 'née' \\ \u2028", noise_multiplier=1e-3 + 7))
    with KeptLedger(tmp_path / "sub" / "ledger", delta=DELTA, budget=9.0) as ledger:
        for release in story:
            ledger.reserve(release)
        releases, epsilon = ledger.releases, ledger.epsilon()

    with KeptLedger(tmp_path / "sub" / "ledger", delta=DELTA, budget=9.0) as again:
        assert again.releases == releases == PrivacyLedger(delta=DELTA, releases=story).releases
        assert again.epsilon() == epsilon
        again.add(STEP)
    assert (tmp_path / "sub" / "ledger").stat().st_mode & 0o777 == 0o600


def test_what_the_budget_refuses_is_not_written(tmp_path: Path) -> None:
    with KeptLedger(tmp_path / "ledger", delta=DELTA, budget=1.0) as ledger:
        ledger.reserve(MOMENTS)
        before = (tmp_path / "ledger").read_bytes()
        with pytest.raises(PrivacyError, match="left"):
            ledger.reserve(Release(what="too much", noise_multiplier=0.5))
        assert (tmp_path / "ledger").read_bytes() == before


def test_another_delta_or_budget_is_refused(tmp_path: Path) -> None:
    KeptLedger(tmp_path / "ledger", delta=DELTA, budget=3.0).close()
    for delta, budget in ((1e-6, 3.0), (DELTA, 4.0), (DELTA, math.inf)):
        with pytest.raises(InputError, match="budget of 3"):
            KeptLedger(tmp_path / "ledger", delta=delta, budget=budget)


def test_there_is_one_writer(tmp_path: Path) -> None:
    with KeptLedger(tmp_path / "ledger", delta=DELTA), pytest.raises(StorageError, match="another process"):
        KeptLedger(tmp_path / "ledger", delta=DELTA)
    KeptLedger(tmp_path / "ledger", delta=DELTA).close()


def test_a_closed_one_takes_nothing(tmp_path: Path) -> None:
    ledger = KeptLedger(tmp_path / "ledger", delta=DELTA)
    ledger.close()
    ledger.close()
    with pytest.raises(StorageError, match="closed"):
        ledger.reserve(STEP)
    assert ledger.releases == ()


def test_a_full_disk_stops_the_release(tmp_path: Path) -> None:
    ledger = KeptLedger(tmp_path / "ledger", delta=DELTA)
    ledger.reserve(MOMENTS)
    reading = os.open(tmp_path / "ledger", os.O_RDONLY)
    os.dup2(reading, ledger._file)  # writing fails, as it does on a disk that broke
    os.close(reading)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"nothing may be released|closed"):
            ledger.reserve(STEP)
    assert ledger.releases == (MOMENTS,)


def test_a_line_torn_anywhere_is_counted_or_refused_and_never_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with KeptLedger(path, delta=DELTA) as ledger:
        ledger.reserve(MOMENTS)
        first = len(path.read_bytes())
        ledger.reserve(STEP)
        epsilon = ledger.epsilon()
    whole = path.read_bytes()
    counted = refused = 0
    for end in range(first + 1, len(whole)):
        path.write_bytes(whole[:end])
        try:
            with KeptLedger(path, delta=DELTA) as again:
                assert again.epsilon() == epsilon
                again.reserve(STEP)
            assert path.read_bytes().endswith(b"}\n")
            counted += 1
        except StorageError:
            with pytest.raises(StorageError, match=f"truncate -s {first} "):
                KeptLedger(path, delta=DELTA)
            path.write_bytes(whole[:first])
            with KeptLedger(path, delta=DELTA) as again:
                assert again.releases == (MOMENTS,)
            refused += 1
    assert counted > 10
    assert refused > 10


def test_a_first_line_that_was_torn_had_released_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    KeptLedger(path, delta=DELTA).close()
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with KeptLedger(path, delta=DELTA) as ledger:
            ledger.reserve(MOMENTS)
        with KeptLedger(path, delta=DELTA) as ledger:
            assert ledger.releases == (MOMENTS,)


@pytest.mark.parametrize("damage", [b"\n", b"{}\n", b'{"noise_multiplier":-1,"sample_rate":1,"steps":1,"what":"x"}\n'])
def test_a_damaged_line_is_refused(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "ledger"
    with KeptLedger(path, delta=DELTA) as ledger:
        ledger.reserve(MOMENTS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], damage, lines[1]]))
    with pytest.raises(StorageError, match="line 2 is no release"):
        KeptLedger(path, delta=DELTA)


def test_another_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for text in (b"dear diary", b"dear diary\n", json.dumps({"delta": 1}).encode() + b"\n"):
        path.write_bytes(text)
        with pytest.raises(StorageError, match="no privacy ledger"):
            KeptLedger(path, delta=DELTA)
        assert path.read_bytes() == text
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(StorageError, match="cannot be opened"):
        KeptLedger(tmp_path / "link", delta=DELTA)


@pytest.mark.parametrize("lines", [1, 7, 60])
def test_a_killed_writer_has_forgotten_nothing(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "ledger"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(lines):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        said = lines + len(writer.stdout.read().splitlines())
    with KeptLedger(path, delta=DELTA) as ledger:
        (entry,) = ledger.releases
        assert said <= entry.steps <= said + 1
