"""`af duel` over a duel that is held in this process: what it prints, writes, draws, records, and how it ends."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from chimera import Settings
from chimera.arena.canonical import encode
from chimera.arena.duel.aggregate import Aggregate
from chimera.arena.duel.match import Match, Pair
from chimera.arena.duel.types import outcome
from chimera.arena.miners.client import open_miner
from chimera.arena.types import Sample
from chimera.arena.validators.audit import audit_sample
from chimera.cli.arena import duel
from chimera.core.clock import SystemClock
from chimera.core.errors import MinerError
from chimera.system.arena import DuelReport, DuelRequest, Standing, Watcher
from chimera.system.champions import champion_of

PNG = b"\x89PNG\r\n\x1a\n"

BOTH = ("mult8-v0", "tictactoe-v0")


async def hold(request: DuelRequest, settings: Settings, watch: Watcher) -> DuelReport:
    """A duel without actors, one environment after another."""
    standings: dict[str, Standing] = {}
    results = []
    whole = Aggregate(request.env_ids, request.lead)
    for env_id in request.env_ids:
        plan = request.match(env_id)
        begun = plan.duel()
        assert begun is not None
        standing = standings[env_id] = Standing(begun)
        if whole.result is not None:
            continue
        champion, contender = open_miner(request.champion), open_miner(request.contender)
        match = Match(plan, champion=champion, contender=contender, clock=SystemClock())
        async for pair in match.pairs():
            standing.outcomes.append(pair.outcome)
            standing.duel.record(pair.outcome)
            watch(env_id, standing, (pair,))
        assert begun.result is not None
        results.append(begun.result)
        whole.record(begun.result)
    assert whole.result is not None
    return DuelReport(request, whole.result, tuple(results), standings)


def options(**changes: Any) -> duel.Options:
    fields: dict[str, Any] = {
        "champion": "oracle:p=0.5",
        "contender": "oracle:p=0.9",
        "env_ids": BOTH,
        "rule": "wilson",
        "epsilon": None,
        "ratio": None,
        "budget": 200,
        "alpha": 0.05,
        "seed": "0",
        "lead": 1,
        "concurrency": 4,
        "address": None,
        "plot": None,
        "samples": None,
        "crown": False,
        "as_json": False,
    }
    return duel.Options(**{**fields, **changes})


BETTER: dict[str, Any] = {}
WORSE: dict[str, Any] = {"champion": "oracle:p=0.9", "contender": "oracle:p=0.5"}
EVEN: dict[str, Any] = {"champion": "oracle:p=1", "contender": "oracle:p=1.0", "budget": 20}
NEVER_BEATEN: dict[str, Any] = {**EVEN, "env_ids": BOTH[:1]}


def held(capsys: pytest.CaptureFixture[str], **changes: Any) -> tuple[int, str]:
    code = duel.execute(options(**changes), hold=hold)
    told = capsys.readouterr()
    assert told.err == "", "a bar is for terminals"
    return code, told.out


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (BETTER, 0, "the contender wins: 2 of 2 environments won, 2 needed"),
        (WORSE, 0, "the champion holds: 0 of 2 environments won, 2 needed"),
        (EVEN, 1, "inconclusive, so the champion stays: 0 of 2 environments won, 2 needed"),
        (NEVER_BEATEN, 1, "inconclusive, so the champion stays: 0 of 1 environment won, 1 needed"),
    ],
)
def test_a_duel_ends_with_its_decision_and_exit_code(
    changes: dict[str, Any], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert held(capsys, **changes)[0] == code
    assert said in held(capsys, **changes)[1]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("wilson", "would win 21.1% of such duels and lose 20.9%, all by chance; --rule calibrated keeps each at 2.5%"),
        ("calibrated", "would win 2.3% of such duels and lose 2.5%, all by chance; at most 2.5% each was asked for"),
        ("mixture", "would win 1.7% of such duels and lose 1.6%, all by chance; at most 2.5% each was asked for"),
    ],
)
def test_beside_the_result_stands_how_often_the_rule_is_wrong(
    rule: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = held(capsys, rule=rule, champion="oracle:p=0.1", contender="oracle:p=1", env_ids=BOTH[:1])
    assert code == 0 and said in told
    assert f"{rule} looks after every sample, up to 200" in told and "the ratio to beat, 0.51" in told


def test_an_environment_that_no_longer_matters_is_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = held(capsys, **WORSE)
    assert code == 0
    assert "champion holds" in told and "given up: all is decided" in told


def test_json_is_one_document_and_holds_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = held(capsys, as_json=True, epsilon=0.02, alpha=0.1, budget=100, seed="x")
    document = json.loads(told)
    assert code == 0 and told.isascii()
    assert (document["decision"], document["won"], document["seed"]) == ("contender", list(BOTH), "x")
    assert document["rule"]["p0"] == 0.52 and document["rule"]["budget"] == 100
    assert 0 < document["rule"]["error_contender"] < 1
    for env_id in BOTH:
        found = document["environments"][env_id]
        assert found["samples"] == found["wins"] + found["losses"] + found["ties"]
        assert found["interval"][0] > 0.52
    inconclusive = json.loads(held(capsys, as_json=True, **EVEN)[1])
    assert inconclusive["decision"] == "inconclusive"


def pairs(path: Path) -> list[tuple[Sample, Sample]]:
    lines = path.read_bytes().splitlines()
    samples = [Sample.model_validate_json(line) for line in lines]
    assert [encode(sample.plain()) for sample in samples] == lines, "each line is canonical"
    return list(zip(samples[::2], samples[1::2], strict=True))


def test_samples_are_evidence_that_anybody_can_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "samples.jsonl"
    document = json.loads(held(capsys, samples=path, as_json=True)[1])
    found = pairs(path)
    for champion, contender in found:
        audit_sample(champion)
        audit_sample(contender)
        assert (champion.role, contender.role) == ("champion", "contender")
        assert champion.challenge_id == contender.challenge_id
    for env_id in BOTH:
        outcomes = [outcome(a.verdict, b.verdict) for a, b in found if a.env_id == env_id]
        counted = document["environments"][env_id]
        assert [outcomes.count(each) for each in ("win", "loss", "tie")] == [
            counted["wins"], counted["losses"], counted["ties"],
        ]  # fmt: skip
    before = path.read_bytes()
    assert duel.execute(options(samples=path), hold=hold) == 2, "never overwritten"
    assert path.read_bytes() == before


def test_a_plot_is_a_png_and_of_several_environments_one_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held(capsys, plot=tmp_path / "one.PNG", env_ids=BOTH[:1])
    held(capsys, plot=tmp_path / "two.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.PNG", "two-mult8-v0.png", "two-tictactoe-v0.png"]
    assert all(path.read_bytes().startswith(PNG) for path in tmp_path.iterdir())


@pytest.mark.parametrize("as_json", [False, True])
def test_what_fails_after_a_duel_takes_nothing_back(
    as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def meanwhile(request: DuelRequest, settings: Settings, watch: Watcher) -> DuelReport:
        """While it is held, the folder for the picture goes, and a file comes where champions are recorded."""
        (tmp_path / "plots").rmdir()
        settings.home.mkdir(parents=True, exist_ok=True)
        (settings.home / "arena").write_text("a file")
        return await hold(request, settings, watch)

    (tmp_path / "plots").mkdir()
    chosen = options(plot=tmp_path / "plots" / "d.png", crown=True, env_ids=BOTH[:1], as_json=as_json)
    assert duel.execute(chosen, hold=meanwhile) == 3
    told = capsys.readouterr()
    assert told.err.count("error: ") == 2 and "champion of mult8-v0 cannot be" in told.err
    assert "cannot be written" in told.err
    if as_json:
        document = json.loads(told.out)
        assert document["decision"] == "contender" and document["crowned"] == {}
        assert document["error"]["kind"] == "InputError" and len(document["error"]["message"].splitlines()) == 1
    else:
        assert "the contender wins: 1 of 1" in told.out


@pytest.mark.parametrize(
    ("changes", "crowned"),
    [
        (BETTER, dict.fromkeys(BOTH, "oracle:p=0.9")),
        (WORSE, dict.fromkeys(BOTH, "oracle:p=0.9")),
        (EVEN, {}),
        ({"crown": False}, {}),
    ],
)
def test_the_winner_is_crowned_and_nobody_when_it_is_inconclusive(
    changes: dict[str, Any], crowned: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(held(capsys, **{"crown": True, "as_json": True, **changes})[1])
    found = {env_id: champion_of(env_id, Settings()) for env_id in BOTH}
    assert document["crowned"] == crowned
    assert {env_id: champion.miner_id for env_id, champion in found.items() if champion} == crowned


async def report(**changes: Any) -> DuelReport:
    return await hold(options(**changes).request(), Settings(), lambda env_id, standing, pairs: None)


async def test_a_champion_that_holds_is_not_crowned_where_it_lost() -> None:
    split = await report(champion="minimax", contender="oracle:p=1", env_ids=BOTH[1:])
    assert duel.crowns(split) == {}, "a perfect player against a perfect player"
    won = await report(lead=0)
    held_elsewhere = DuelReport(
        won.request,
        won.total.model_copy(update={"decision": "champion", "won": BOTH[:1], "needed": 2}),
        tuple(each.model_copy(update={"decision": "champion"}) for each in won.duels),
        won.standings,
    )
    assert duel.crowns(held_elsewhere) == {"tictactoe-v0": "oracle:p=0.5"}


def test_who_is_champion_already_stays_so_since_then(capsys: pytest.CaptureFixture[str]) -> None:
    held(capsys, crown=True)
    first = champion_of(BOTH[0], Settings())
    assert first is not None
    path = Settings().home / "arena" / "champions" / f"{BOTH[0]}.json"
    path.write_text(first.model_copy(update={"since_s": 5}).model_dump_json())
    told = held(capsys, crown=True, seed="other")[1]
    again = champion_of(BOTH[0], Settings())
    assert again is not None and again.since_s == 5
    assert f"oracle:p=0.9 is on record as the champion of {BOTH[0]}" in told


def test_a_miner_that_cannot_be_reached_is_a_fault_and_what_was_played_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fails(request: DuelRequest, settings: Settings, watch: Watcher) -> DuelReport:
        kept: list[Sequence[Pair]] = []

        def after_three(env_id: str, standing: Standing, pairs: tuple[Pair, ...]) -> None:
            watch(env_id, standing, pairs)
            kept.append(pairs)
            if len(kept) == 3:
                raise MinerError("the server is \x1b[2J away")

        return await hold(request, settings, after_three)

    assert duel.execute(options(samples=tmp_path / "s.jsonl", as_json=True), hold=fails) == 3
    told = capsys.readouterr()
    assert json.loads(told.out)["error"]["kind"] == "MinerError"
    assert told.err == "error: the server is \\x1b[2J away\n"
    assert len(pairs(tmp_path / "s.jsonl")) == 3


async def test_a_bar_shows_the_samples_and_the_running_interval() -> None:
    file = io.StringIO()
    request = options().request()
    standing: Standing | None = None
    columns = (TextColumn("{task.description} {task.completed:.0f}/{task.total} {task.fields[standing]}"),)
    with Progress(*columns, console=Console(file=file, width=100), auto_refresh=False) as progress:
        bars = duel._Bars(progress, request)

        def watch(env_id: str, now: Standing, pairs: tuple[Pair, ...]) -> None:
            nonlocal standing
            standing = now
            bars.move(env_id, now)

        await hold(request, Settings(), watch)
    assert standing is not None
    counts, (low, high) = standing.duel, standing.duel.interval
    said = f"{counts.samples}/200 {counts.wins}-{counts.losses}-{counts.ties}  {low:.3f} .. {high:.3f}"
    assert f"tictactoe-v0 {said}" in file.getvalue()
