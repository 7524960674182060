"""Duels on record: held by the code that holds them, kept, told by the API, and what of it is damaged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from chimera import Client
from chimera.actors import cluster
from chimera.actors.validator import Settled, Validator
from chimera.arena import PACKAGES
from chimera.arena.duel.match import RuleSpec
from chimera.arena.duel.rules import make_rule
from chimera.cli.arena import validate as command
from chimera.core.clock import ManualClock
from chimera.core.config import Settings
from chimera.core.errors import NotThere, StorageError
from chimera.security.roles import Role
from chimera.system import duels as kept
from chimera.system.arena import DuelReport, DuelRequest, Standing, hold_duel
from chimera.system.duels import DuelRecord, Duels
from chimera.system.recording import keep_ruling, records_of
from chimera.system.validation import demo_plans
from tests.actors.duel_handle import DuelHandle
from tests.api.serving import Served
from tests.api.whole import Api
from tests.conftest import ROOT

BOTH = ("mult8-v0", "tictactoe-v0")

BEGAN_S = 1_767_225_600.0
"""The first of January 2026."""


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Duel actors are objects of this process."""
    monkeypatch.setattr(cluster, "connect", lambda settings: None)
    monkeypatch.setattr(cluster, "spawn", lambda kind, **how: DuelHandle())
    monkeypatch.setattr(cluster, "kill", lambda actor: None)
    monkeypatch.setattr(cluster, "disconnect", lambda connection: None)


async def hold(home: Path, *, at_s: float = BEGAN_S, **changes: Any) -> DuelReport:
    wanted = {"champion": "oracle:p=0.3", "contender": "oracle:p=0.9", "env_ids": BOTH[:1], "concurrency": 2, **changes}
    clock = ManualClock(at_s)
    return await hold_duel(DuelRequest(**wanted), Settings(home=home), lambda *told: clock.advance(1.0), clock=clock)


def only(folder: Path) -> DuelRecord:
    [found] = Duels.kept_in(folder).part(10).found
    return found


async def test_a_duel_that_was_held_is_told_with_its_course(api: Api, tmp_path: Path, no_ray: None) -> None:
    report = await hold(tmp_path / "node", seed="x")
    result, standing = report.duels[0], report.standings[BOTH[0]]
    answer = await api.ask("GET", "/api/arena/duels", Role.OBSERVER)
    assert answer.status_code == 200
    told = answer.json()
    [item] = told["items"]
    assert (told["next"], told["damaged"]) == (None, [])
    assert "course" not in item and item["id"].startswith("1767225600000-")
    assert (item["champion"], item["contender"], item["env_id"]) == ("oracle:p=0.3", "oracle:p=0.9", BOTH[0])
    assert (item["decision"], item["seed"], item["validator"], item["block"]) == ("contender", "x", None, None)
    counts = (item["wins"], item["losses"], item["ties"], item["low"], item["high"])
    assert counts == (result.wins, result.losses, result.ties, result.low, result.high)
    assert item["samples"] == len(standing.outcomes) and item["share"] == result.wins / result.decisive
    assert item["rule"] == result.rule.model_dump(mode="json")
    assert item["began_s"] == BEGAN_S < item["ended_s"]
    assert item["whole"] == {"won": 1, "needed": 1, "of": 1}
    one = (await api.ask("GET", f"/api/arena/duels/{item['id']}", Role.OBSERVER)).json()
    course = one.pop("course")
    assert one == item
    assert [point["samples"] for point in course] == list(range(1, len(standing.outcomes) + 1))
    for point in course:
        outcomes = standing.outcomes[: point["samples"]]
        assert (point["wins"], point["losses"]) == (outcomes.count("win"), outcomes.count("loss"))
        assert (point["low"], point["high"]) == standing.duel.rule.interval(
            point["wins"], point["wins"] + point["losses"]
        )
    assert course[-1]["low"] == item["low"] > item["rule"]["p0"] >= course[-2]["low"]


async def test_what_was_given_up_is_no_decision(tmp_path: Path, no_ray: None) -> None:
    report = await hold(tmp_path)
    request = report.request.model_copy(update={"env_ids": BOTH})
    begun = request.match(BOTH[1]).duel()
    assert begun is not None
    standing = Standing(begun)
    for outcome in ("win", "tie", "loss"):
        begun.record(outcome)
        standing.outcomes.append(outcome)
    whole = DuelReport(request, report.total, report.duels, {**report.standings, BOTH[1]: standing})
    ended, left = records_of(whole, began_s=BEGAN_S, ended_s=BEGAN_S + 1)
    assert (ended.decision, left.decision) == ("contender", "given_up")
    assert (left.wins, left.losses, left.ties, len(left.course)) == (1, 1, 1, 3)
    assert (left.low, left.high) == begun.interval
    assert ended.id[:-2] == left.id[:-2] and ended.id < left.id, "held together"


async def test_the_last_is_first_and_each_environment_is_asked_for_by_name(
    api: Api, tmp_path: Path, no_ray: None
) -> None:
    for hour in (1, 0, 2):
        await hold(tmp_path / "node", at_s=BEGAN_S + 3_600 * hour)
    await hold(tmp_path / "node", at_s=BEGAN_S - 1, env_ids=BOTH, champion="oracle:p=0.9", contender="oracle:p=0.3")
    seen, after = [], ""
    while True:
        page = (await api.ask("GET", f"/api/arena/duels?limit=2{after}", Role.OPERATOR)).json()
        assert len(page["items"]) <= 2
        seen += page["items"]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert [round(each["began_s"] - BEGAN_S) for each in seen] == [7_200, 3_600, 0, -1, -1]
    assert {each["env_id"]: each["whole"]["of"] for each in seen[3:]} == dict.fromkeys(BOTH, 2)
    assert {each["decision"] for each in seen[3:]} <= {"champion", "given_up"}
    mine = (await api.ask("GET", f"/api/arena/duels?env={BOTH[1]}", Role.OPERATOR)).json()
    assert [each["env_id"] for each in mine["items"]] == [BOTH[1]] and mine["next"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "env=../mult8", "env=mult8-v0%0A", "after=../x", "after=1767225600000", "after="]
)
async def test_what_is_no_page_is_refused(api: Api, query: str) -> None:
    assert (await api.ask("GET", f"/api/arena/duels?{query}", Role.ADMIN)).status_code == 422


@pytest.mark.parametrize("name", ["x", "1767225600000-0A1B2C00", "1767225600000-0a1b2c00%0A", "..%2F..%2Fmissions"])
async def test_what_is_no_id_is_refused(api: Api, name: str) -> None:
    answer = await api.ask("GET", f"/api/arena/duels/{name}", Role.ADMIN)
    assert answer.status_code in (404, 422) and answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("role", list(Role))
async def test_who_may_look(api: Api, role: Role, tmp_path: Path, no_ray: None) -> None:
    may = role in (Role.ADMIN, Role.OPERATOR, Role.OBSERVER)
    await hold(tmp_path / "node")
    for path in ("/api/arena/duels", f"/api/arena/duels/{only(tmp_path / 'node').id}"):
        assert (await api.ask("GET", path, role)).status_code == (200 if may else 403)
        assert (await api.ask("GET", path)).status_code == 401


async def test_a_node_without_a_record_says_so(api: Api) -> None:
    api.node.services.duels = None
    assert (await api.ask("GET", "/api/arena/duels", Role.ADMIN)).status_code == 501


def damaged(folder: Path, whole: DuelRecord) -> list[str]:
    """Ten files with names of duels, and no duel in any of them."""
    text = whole.model_dump_json()
    told = json.loads(text)
    other = text.replace(whole.id, "1767225599999-00000000")
    contents = [
        b"",
        b"\xff\xfe",
        text[:-9].encode(),
        b"[" * 90_000,
        other.encode(),
        json.dumps({**told, "low": float("nan")}).encode(),
        json.dumps({**told, "wins": -1}).encode(),
        (text + " " * kept.MAX_BYTES).encode(),
    ]
    names = [f"17672257{number:05d}-0000000{number}" for number in range(len(contents) + 2)]
    for name, content in zip(names, contents, strict=False):
        (folder / f"{name}.json").write_bytes(content.replace(whole.id.encode(), name.encode()))
    os.mkfifo(folder / f"{names[-2]}.json")
    outside = folder.parent / "outside.json"
    outside.write_text(text.replace(whole.id, names[-1]))
    (folder / f"{names[-1]}.json").symlink_to(outside)
    return names


async def test_what_is_damaged_is_skipped_and_told_of(
    api: Api, tmp_path: Path, no_ray: None, caplog: pytest.LogCaptureFixture
) -> None:
    await hold(tmp_path / "node")
    whole = only(tmp_path / "node")
    names = damaged(api.node.duels.folder, whole)
    (api.node.duels.folder / "notes.json").write_text("not a duel, and not named as one")
    with caplog.at_level(logging.WARNING):
        page = (await api.ask("GET", "/api/arena/duels", Role.OBSERVER)).json()
    assert [each["id"] for each in page["items"]] == [whole.id]
    assert sorted(page["damaged"]) == names
    assert all(name in caplog.text for name in names)
    for name in names:
        answer = await api.ask("GET", f"/api/arena/duels/{name}", Role.OBSERVER)
        assert answer.status_code == 404 and "remove" in answer.json()["detail"], name
    missing = await api.ask("GET", "/api/arena/duels/1767225600000-ffffffff", Role.OBSERVER)
    assert missing.status_code == 404 and "remove" not in missing.json()["detail"]


async def test_a_record_out_of_reach_is_not_an_inner_fault(api: Api) -> None:
    api.node.duels.folder.parent.mkdir(parents=True)
    api.node.duels.folder.write_text("a file where the folder should be")
    assert (await api.ask("GET", "/api/arena/duels", Role.OBSERVER)).status_code == 503


async def test_a_duel_that_cannot_be_recorded_keeps_its_result(
    tmp_path: Path, no_ray: None, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "arena").write_text("a file where the folder should be")
    report = await hold(tmp_path)
    assert report.total.decision == "contender" and "is not on record" in caplog.text
    with pytest.raises(StorageError, match="CHIMERA_HOME"):
        Duels.kept_in(tmp_path).keep(*records_of(report, began_s=BEGAN_S, ended_s=BEGAN_S))


async def test_the_oldest_go_first(tmp_path: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_KEPT", 3)
    for second in (3, 1, 4, 2, 5):
        await hold(tmp_path, at_s=BEGAN_S + second)
    assert [each.began_s - BEGAN_S for each in Duels.kept_in(tmp_path).part(10).found] == [5, 4, 3]
    assert len(list((tmp_path / "arena" / "duels").iterdir())) == 3, "and no draft is left"


async def test_a_long_course_is_thinned_and_keeps_its_end(tmp_path: Path, no_ray: None) -> None:
    rule = RuleSpec(name="calibrated", budget=450)
    report = await hold(tmp_path, champion="oracle:p=0.5", contender="oracle:p=0.50", rule=rule, seed="6")
    record, standing = only(tmp_path), report.standings[BOTH[0]]
    assert len(standing.outcomes) == 450 and record.decision == "inconclusive"
    assert len(record.course) <= kept.MAX_POINTS < 2 * len(record.course)
    steps = {after.samples - before.samples for before, after in zip(record.course, record.course[1:], strict=False)}
    assert steps == {3} and record.course[-1].samples == 450
    last = record.course[-1]
    assert (last.wins, last.losses, last.low, last.high) == (record.wins, record.losses, record.low, record.high)
    widths = [point.high - point.low for point in record.course]
    assert widths[-1] < widths[0] / 4, "it narrowed"


async def ruled(home: Path, rounds: int) -> list[Settled]:
    """What a validator of the demo settles, alone with its evidence."""
    plan = demo_plans(home)[0]
    alone = plan.model_copy(update={"peers": ()})
    handles: dict[str, DuelHandle] = {}
    validator = Validator(
        plan=alone,
        settings=Settings(home=home),
        spawn_duel=lambda env_id: handles.setdefault(env_id, DuelHandle()),
    )
    await validator.awake()
    try:
        settled = []
        for number in range(1, rounds + 1):
            await validator.sample(number)
            settled.append(await validator.settle(int(time.time()) + 600 * number))
        return settled
    finally:
        await validator.close()


async def test_a_ruling_is_kept_once_with_the_block_that_it_rests_on(tmp_path: Path) -> None:
    [settled] = await ruled(tmp_path, 1)
    assert settled.ruling is not None and settled.merged is not None
    duels = Duels.kept_in(tmp_path)
    await asyncio.to_thread(keep_ruling, duels, settled)
    over = {
        (duel.env_id, duel.contender): duel
        for total in settled.ruling.duels
        for duel in total.duels
        if duel.decision != "inconclusive"
    }
    found = duels.part(100).found
    assert over and {(each.env_id, each.contender) for each in found} == set(over)
    for each in found:
        duel = over[each.env_id, each.contender]
        assert (each.decision, each.low, each.high, each.champion) == (
            duel.decision, duel.low, duel.high, settled.ruling.champion,
        )  # fmt: skip
        assert each.validator == settled.hotkey and each.began_s == settled.ruling.decided_s
        assert each.block == next(seen.head_hash for seen in settled.merged.standings)
        assert [point.samples for point in each.course] == [each.wins + each.losses + each.ties]
    later = settled.model_copy(
        update={"ruling": settled.ruling.model_copy(update={"decided_s": settled.ruling.decided_s + 60})}
    )
    await asyncio.to_thread(keep_ruling, duels, later)
    assert duels.part(100).found == found, "told again, it is the same duel"
    await asyncio.to_thread(keep_ruling, duels, settled.model_copy(update={"ruling": None}))
    assert duels.part(100).found == found


@pytest.mark.parametrize("dry_run", [False, True])
def test_af_validate_keeps_what_it_rules_unless_it_is_dry(
    dry_run: bool, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [settled] = asyncio.run(ruled(tmp_path, 1))

    async def validate(plan: Any, settings: Settings, watch: Any, **how: Any) -> Settled:
        watch(1, settled)
        return settled

    monkeypatch.setattr(command, "validate", validate)
    monkeypatch.setattr(command, "on_ray", lambda settings, shown: contextlib.nullcontext())
    options = command.Options(
        plan=ROOT / "examples" / "arena" / "validator.yaml",
        once=True,
        dry_run=dry_run,
        demo=False,
        epoch_s=1_200,
        address=None,
        as_json=True,
    )
    assert command.execute(options) == 0
    assert bool(Duels.kept_in(home).part(10).found) is not dry_run


def test_a_node_reads_them_without_the_arena() -> None:
    missing = f"import sys; sys.modules.update(dict.fromkeys({sorted(PACKAGES)!r})); import chimera.api.routes.arena"
    done = subprocess.run([sys.executable, "-c", missing], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]


def test_the_client_has_them(server: Served, tmp_path: Path, no_ray: None) -> None:
    for number, env_ids in enumerate((BOTH[:1], BOTH[1:], BOTH[:1])):
        asyncio.run(hold(tmp_path, at_s=BEGAN_S + number, env_ids=env_ids))
    records = Duels.kept_in(tmp_path).part(10).found
    server.node.duels.keep(*records)
    with Client(server.url, server.token(Role.OBSERVER)) as client:
        assert [each["id"] for each in client.duels()] == [each.id for each in records]
        assert [each["id"] for each in client.duels(1)] == [records[0].id]
        assert [each["id"] for each in client.duels(env_id=BOTH[1])] == [records[1].id]
        assert len(client.duel(records[0].id)["course"]) == len(records[0].course)
        with pytest.raises(NotThere):
            client.duel("1767225600000-ffffffff")


def test_ids_are_in_the_order_of_time_and_rules_are_written_whole(tmp_path: Path) -> None:
    assert kept.new_id(0.5, "0" * 8) < kept.new_id(10.0, "0" * 8) < kept.new_id(BEGAN_S, "0" * 8)
    (tmp_path / "duels").mkdir()
    (tmp_path / "1767225600000-00000000.json").write_text("another's")
    with pytest.raises(NotThere, match="no duel"):
        Duels(tmp_path / "duels").get("../1767225600000-00000000")
    assert set(kept.Rule.model_fields) == set(type(make_rule("wilson", p0=0.5, budget=10).record()).model_fields)
