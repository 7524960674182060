"""Idempotency keys outlive the process that has them: a replaced gateway tells the same, a dead one's gap is told."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chimera.api import answers
from chimera.api.answers import Answers, Known
from chimera.core.errors import StorageError, SwarmError
from chimera.http_client.problems import error_of
from chimera.security.roles import Role
from tests.api.whole import PASSWORD, Api, bearing, opened

ONE = {"idempotency-key": "one"}

TASK: dict[str, Any] = {"goal": "g"}

WORKER = """
import asyncio, sys, time
from pathlib import Path
from chimera.api.answers import Answers

answers = Answers(Path(sys.argv[1]))
print(asyncio.run(answers.begin("user:operator", bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3]), time.time())))
sys.stdout.flush()
time.sleep(600)
"""


async def _asked(api: Api, path: str = "/api/swarm/task", body: dict[str, Any] = TASK) -> httpx2.Response:
    return await api.ask("POST", path, Role.OPERATOR, json=body, headers=ONE)


def _bytes(api: Api) -> bytes:
    return b"".join(file.read_bytes() for file in api.node.answers.parent.glob("answers.db*"))


def _modes(api: Api) -> list[str]:
    return [oct(file.stat().st_mode & 0o777) for file in api.node.answers.parent.glob("answers.db*")]


async def test_a_node_that_is_started_again_gives_the_first_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as api:
        first = await _asked(api)
    async with opened(tmp_path) as api:
        assert (await api.ask("GET", "/api/swarm/missions", Role.OPERATOR)).json()["items"] == []
        again = await _asked(api)
        assert (again.status_code, again.content) == (202, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["content-type"] == "application/json"
        assert (await _asked(api, body={"goal": "another"})).status_code == 422
        assert (await api.ask("GET", "/api/swarm/missions", Role.OPERATOR)).json()["items"] == []
        api.node.clock.ahead_s = answers.KEEP_S + 1.0
        assert (await _asked(api)).json()["mission_id"] != first.json()["mission_id"]


async def test_one_that_was_under_way_as_its_process_died_is_told_so_and_not_done_again(tmp_path: Path) -> None:
    name = hashlib.sha256(b"user:operator\n/api/swarm/task\none").hexdigest()
    async with opened(tmp_path) as api:
        digest = hashlib.sha256(httpx2.Request("POST", "http://x", json=TASK).content).hexdigest()
        command = [sys.executable, "-c", WORKER, str(api.node.answers), name, digest]
        worker = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            assert worker.stdout is not None
            assert (await worker.stdout.readline()).strip() == b"1"
            under_way = await _asked(api)
            assert (under_way.status_code, under_way.headers["retry-after"]) == (409, "1")
            assert "in-progress" in under_way.json()["type"]
        finally:
            worker.kill()
        assert await worker.wait() == -signal.SIGKILL
        told = await _asked(api)
        assert told.status_code == 409 and "retry-after" not in told.headers
        assert told.json()["type"].endswith(":interrupted") and "take a new key" in told.json()["detail"]
        assert type(error_of(409, told.json())) is SwarmError
        assert (await api.ask("GET", "/api/swarm/missions", Role.OPERATOR)).json()["items"] == []
        assert (await _asked(api, body={"goal": "another"})).status_code == 422


async def test_no_secret_lands_in_the_file_and_it_is_its_owners_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as api:
        key = (await _asked(api, "/api/keys/create", {"role": "operator"})).json()["secret"]
        wanted = {"operations": ["reads:search"], "resource": "web/*"}
        token = (await _asked(api, "/api/capabilities", wanted)).json()["token"]
        login = {"user": "operator", "password": PASSWORD}
        pair = (await api.client.post("/api/auth/login", json=login, headers=ONE)).json()
        mission = (await _asked(api)).json()["mission_id"]
        held = _bytes(api)
        assert mission.encode() in held
        for secret in (key, token, PASSWORD, pair["access_token"], pair["refresh_token"], "one\x00"):
            assert secret.encode() not in held
        assert _modes(api) == ["0o600"] * 3
    async with opened(tmp_path) as api:
        for path, body in (("/api/keys/create", {"role": "operator"}), ("/api/capabilities", wanted)):
            again = await _asked(api, path, body)
            assert again.status_code == 409 and "told once" in again.json()["detail"]
        assert len((await api.ask("GET", "/api/keys", Role.OPERATOR)).json()["items"]) == 1


async def test_what_failed_may_be_asked_again(api: Api) -> None:
    refused = {"goal": "g", "role": "nobody"}
    assert [(await _asked(api, body=refused)).status_code for _ in range(2)] == [409] * 2
    assert (await _asked(api)).status_code == 202


async def test_what_cannot_be_written_down_is_not_done(api: Api) -> None:
    with sqlite3.connect(api.node.answers) as file:
        file.execute("DROP TABLE answers")
    file.close()
    told = await _asked(api)
    assert told.status_code == 503 and str(api.node.answers) not in told.text
    assert (await api.ask("GET", "/api/swarm/missions", Role.OPERATOR)).json()["items"] == []
    assert (await api.ask("POST", "/api/swarm/task", Role.OPERATOR, json=TASK)).status_code == 202


async def test_all_keys_of_a_user_have_one_place_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever makes many pushes out what others were answered, whose requests are then done twice."""
    monkeypatch.setattr(answers, "MAX_EACH", 3)
    async with opened(tmp_path) as api:
        mine = await _asked(api)
        for _ in range(3):
            headers = {**bearing(await api.node.key(Role.ADMIN)), **ONE}
            assert (await api.client.post("/api/swarm/task", json=TASK, headers=headers)).status_code == 202
        key = bearing(await api.node.key(Role.ADMIN)) | ONE
        told = [(await api.client.post("/api/swarm/task", json=TASK, headers=key)).content for _ in range(2)]
        assert told[0] == told[1] and (await _asked(api)).content == mine.content
        with sqlite3.connect(api.node.answers) as file:
            assert file.execute("SELECT count(*) FROM answers WHERE caller = 'admin'").fetchone() == (3,)
        file.close()


async def test_they_are_bounded_and_each_caller_loses_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_EACH", 4)
    monkeypatch.setattr(answers, "MAX_KEPT", 6)
    monkeypatch.setattr(answers, "MAX_BYTES", 25)
    kept = Answers(tmp_path / "answers.db")

    async def begin(caller: str, n: int) -> int | Known:
        return await kept.begin(caller, f"{caller}{n}".encode(), b"d", 1_000.0)

    async def add(caller: str, n: int, body: bytes = b"") -> None:
        number = await begin(caller, n)
        assert isinstance(number, int)
        await kept.finish(number, 200, {}, body)

    async def known(caller: str, *numbers: int) -> list[int]:
        names = await kept._do(lambda file: file.execute("SELECT name FROM answers").fetchall())
        return [n for n in numbers if (f"{caller}{n}".encode(),) in names]

    try:
        await add("a", 0)
        assert isinstance(await begin("b", 0), int)  # stays under way
        for n in range(1, 7):
            await add("b", n)
        assert await known("b", *range(7)) == [0, 4, 5, 6] and await known("a", 0) == [0]
        await add("c", 0)
        await add("c", 1)
        assert await known("a", 0) == [0] and await known("b", *range(7)) == [0, 5, 6]  # of whoever has most
        await add("b", 7, b"y")
        for n in range(2, 5):
            await add("c", n, b"x" * 10)
        assert await known("c", *range(5)) == [3, 4] and await known("b", 7) == [7]
        found = await begin("c", 4)
        assert isinstance(found, Known) and found.body == b"x" * 10
        number = await kept.begin("c", b"later", b"d", 1_001.0 + answers.KEEP_S)  # all others are too old
        assert isinstance(number, int) and await known("c", 3, 4) == []
        kept.leave(number)
        left = await kept.begin("c", b"later", b"d", 1_002.0 + answers.KEEP_S)
        assert isinstance(left, Known) and not left.under_way and left.status is None
        with pytest.raises(TypeError):
            pickle.dumps(kept)
    finally:
        kept.close()


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "answers.db") as file:
        file.execute("CREATE TABLE theirs (x)")
    file.close()
    (tmp_path / "answers.db").chmod(0o600)
    with pytest.raises(StorageError, match="another program"):
        Answers(tmp_path / "answers.db")
