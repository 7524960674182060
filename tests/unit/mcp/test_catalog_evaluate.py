"""What `tools evaluate` says is right, and the public sets are measured as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError
from chimera.mcp.catalog.evaluate import ToolSet, evaluate, evaluate_file, read_set

DATA = Path(__file__).parents[2] / "data" / "tools"


def lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def row(name: str, description: str) -> object:
    definition = {"server": "s", "name": name, "description": description, "input_schema": {"type": "object"}}
    return {"tool": definition}


async def test_figures_are_those_of_the_ranks(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "set.jsonl",
        {"about": {"name": "small", "split": False}},
        row("rain", "weather forecast weather"),
        row("wind", "weather of the sea"),
        row("mail", "send a letter"),
        {"query": "weather forecast", "tools": ["s/rain"]},
        {"query": "weather forecast please", "tools": ["s/wind"]},
        {"query": "xylophone", "tools": ["s/mail"]},
        {"query": "letter", "tools": ["s/mail", "s/wind"]},
    )
    report = await evaluate_file(path, clock=ManualClock())
    (score,) = report.scores
    assert (report.tools, report.queries, report.gold_tools) == (3, 4, 3)
    assert score.hit_1.value == 0.5
    assert score.hit_5.value == 0.75
    assert score.mrr == pytest.approx((1 + 1 / 2 + 0 + 1) / 4)
    assert score.recall_5 == pytest.approx((1 + 1 + 0 + 1 / 2) / 4)
    assert score.hit_5.low < 0.75 < score.hit_5.high
    header, rows = report.table()
    assert len(rows) == 1 and len(rows[0]) == len(header)


async def test_examples_and_what_is_reported_are_never_the_same_queries() -> None:
    metatool = read_set(DATA / "metatool.jsonl")
    parts = [{one.query for one in metatool.part(part)} for part in ("examples", "tuning", "reported")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(metatool.questions) == 480
    assert {query for some in metatool.examples().values() for query in some} == parts[0]


async def test_words_alone_do_on_the_public_sets_as_was_measured() -> None:
    metatool = await evaluate_file(DATA / "metatool.jsonl", clock=ManualClock())
    plain, examples = metatool.scores
    assert plain.hit_5.value >= 0.60
    assert examples.hit_5.value >= 0.82
    assert examples.gain_5 is not None and examples.gain_5.low > 0.05
    live = await evaluate_file(DATA / "livemcpbench.jsonl", clock=ManualClock())
    assert live.scores[0].hit_5.value >= 0.60


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["not an object"], "line 1"),
        ([row("a", "b"), {"query": "q", "tools": ["s/zzz"]}], "s/zzz"),
        ([row("a", "b"), {"query": "", "tools": ["s/a"]}], "line 2"),
        ([{"query": "q", "tools": ["s/a"]}], "1 to"),
        ([row("a", "b")], "no queries"),
    ],
)
async def test_a_bad_file_is_refused_with_what_is_wrong(tmp_path: Path, rows: list[object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        await evaluate_file(lines(tmp_path / "set.jsonl", *rows), clock=ManualClock())


async def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_set(tmp_path / "none.jsonl")


async def test_a_set_that_is_all_examples_is_refused() -> None:
    metatool = read_set(DATA / "metatool.jsonl")
    only = ToolSet(about=metatool.about, tools=metatool.tools, questions=metatool.part("examples"))
    with pytest.raises(InputError, match="no queries"):
        await evaluate(only, clock=ManualClock())
