"""Champions on record, and the models that they stand for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from chimera.core.config import Settings
from chimera.core.errors import InputError
from chimera.system.champions import champion_of, record_champion, resolve_model

SERVER = "openai:test/m@http://127.0.0.1:8000/v1"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "state")


def path(settings: Settings, env_id: str = "ledger-v0") -> Path:
    return settings.home / "arena" / "champions" / f"{env_id}.json"


@pytest.mark.parametrize(
    ("miner_id", "model"),
    [
        (SERVER, "compatible:test/m@http://127.0.0.1:8000/v1"),
        ("chutes:deepseek-ai/DeepSeek-V3", "chutes:deepseek-ai/DeepSeek-V3"),
        ("python:my.module:answer", "python:my.module:answer"),
    ],
)
def test_a_champion_stands_for_the_model_behind_it(settings: Settings, miner_id: str, model: str) -> None:
    champion = record_champion("ledger-v0", miner_id, settings, since_s=1_700_000_000)
    assert (champion.env_id, champion.miner_id, champion.since_s) == ("ledger-v0", miner_id, 1_700_000_000)
    assert champion_of("ledger-v0", settings) == champion
    assert resolve_model("champion:ledger-v0", settings) == model


@pytest.mark.parametrize("name", ["offline", "chutes:m", "champions:x", ""])
def test_any_other_name_is_left_alone_and_nothing_is_read_or_made(settings: Settings, name: str) -> None:
    assert resolve_model(name, settings) == name
    assert not settings.home.exists()


def test_the_last_crowned_is_the_champion_and_each_environment_has_its_own(settings: Settings) -> None:
    record_champion("ledger-v0", "random", settings, since_s=1)
    record_champion("mult8-v0", "chutes:m", settings, since_s=2)
    record_champion("ledger-v0", SERVER, settings, since_s=3)
    assert resolve_model("champion:mult8-v0", settings) == "chutes:m"
    assert resolve_model("champion:ledger-v0", settings).startswith("compatible:")
    assert sorted(found.name for found in path(settings).parent.iterdir()) == ["ledger-v0.json", "mult8-v0.json"]


@pytest.mark.parametrize("miner_id", ["random", "minimax", "oracle:p=0.7"])
def test_a_champion_that_knows_the_rules_or_the_answers_is_no_model(settings: Settings, miner_id: str) -> None:
    record_champion("ledger-v0", miner_id, settings, since_s=1)
    with pytest.raises(InputError, match=f"champion:ledger-v0: {miner_id} is no model.*name a miner that is one"):
        resolve_model("champion:ledger-v0", settings)


def test_no_champion_yet_says_how_to_crown_one_and_who_has_one(settings: Settings) -> None:
    with pytest.raises(InputError, match=r"ledger-v0 has no champion yet \(those with one: none\).*af duel .*--crown"):
        resolve_model("champion:ledger-v0", settings)
    record_champion("mult8-v0", "chutes:m", settings, since_s=1)
    with pytest.raises(InputError, match=r"those with one: mult8-v0"):
        resolve_model("champion:ledgr-v0", settings)


@pytest.mark.parametrize(
    "env_id", ["", "ledger", "../../etc/passwd", "/etc/x-v0", "Ledger-v0", "x-v0\n", "x-v0/..", "a" * 50 + "-v0"]
)
def test_what_is_no_environments_id_is_refused_and_no_path_is_made_of_it(settings: Settings, env_id: str) -> None:
    with pytest.raises(InputError, match="not the id of an environment"):
        resolve_model(f"champion:{env_id}", settings)
    with pytest.raises(InputError, match="not the id of an environment"):
        record_champion(env_id, "chutes:m", settings, since_s=1)
    assert not settings.home.exists()


GOOD = {"env_id": "ledger-v0", "miner_id": "chutes:m", "since_s": 1}


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        json.dumps({**GOOD, "env_id": "mult8-v0"}).encode(),
        json.dumps({**GOOD, "more": 1}).encode(),
        json.dumps({**GOOD, "since_s": "1"}).encode(),
        json.dumps({**GOOD, "since_s": -1}).encode(),
        json.dumps({**GOOD, "miner_id": ""}).encode(),
        json.dumps({**GOOD, "miner_id": "gpt-5"}).encode(),
        json.dumps({**GOOD, "miner_id": "m\n"}).encode(),
        json.dumps(GOOD).encode() + b" " * 10_000,
    ],
)
def test_a_record_that_is_not_as_it_was_written_is_refused(settings: Settings, record: bytes) -> None:
    path(settings).parent.mkdir(parents=True)
    path(settings).write_bytes(json.dumps(GOOD).encode())
    assert resolve_model("champion:ledger-v0", settings) == "chutes:m"
    path(settings).write_bytes(record)
    with pytest.raises(InputError, match=r"\A.*\Z"):
        resolve_model("champion:ledger-v0", settings)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_no_record_and_is_not_waited_for(settings: Settings, make: Callable[[Path], None]) -> None:
    path(settings).parent.mkdir(parents=True)
    make(path(settings))
    with pytest.raises(InputError, match="no record of a champion"):
        champion_of("ledger-v0", settings)


@pytest.mark.parametrize(("package", "code"), [("blake3", 2), ("a_bug_of_ours", 3)])
def test_only_what_the_extra_brings_is_blamed_on_it(package: str, code: int) -> None:
    program = (
        f"import builtins, sys; sys.modules[{package!r}] = None; real = builtins.__import__\n"
        "def find(name, *rest):\n"
        f"    return real({package!r} if name == 'chimera.arena.miners.client' else name, *rest)\n"
        "builtins.__import__ = find\n"
        "from chimera.cli.main import main; main(['run', 'who?', '--model', 'champion:mult8-v0', '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    message = json.loads(done.stdout)["error"]["message"]
    assert ("pip install 'chimera[arena]'" in message) == (code == 2)


@pytest.mark.parametrize(("miner_id", "since_s"), [("", 1), ("x" * 257, 1), ("chutes:m", -1)])
def test_what_cannot_be_a_champion_is_not_recorded(settings: Settings, miner_id: str, since_s: int) -> None:
    with pytest.raises(InputError, match=r"\A.* cannot be a champion: .*\Z"):
        record_champion("ledger-v0", miner_id, settings, since_s=since_s)
    assert champion_of("ledger-v0", settings) is None


def test_a_home_that_cannot_be_written_is_said(settings: Settings) -> None:
    settings.home.write_text("a file")
    with pytest.raises(InputError, match="CHIMERA_HOME"):
        record_champion("ledger-v0", "chutes:m", settings, since_s=1)


def test_a_reader_never_sees_half_a_record(settings: Settings) -> None:
    """While one thread crowns and crowns, another always reads a whole record."""
    record_champion("ledger-v0", "chutes:m0", settings, since_s=0)
    done = threading.Event()
    seen: list[str] = []
    faults: list[Exception] = []

    def read() -> None:
        while not done.is_set():
            try:
                champion = champion_of("ledger-v0", settings)
                seen.append(champion.miner_id if champion else "nobody")
            except Exception as error:
                faults.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(1, 300):
        record_champion("ledger-v0", f"chutes:m{i}" + "x" * (i % 100), settings, since_s=i)
    done.set()
    reader.join()
    assert faults == [] and "nobody" not in seen and len(set(seen)) > 1
    assert [found.name for found in path(settings).parent.iterdir()] == ["ledger-v0.json"]
