"""A validator's plan from a file: the example is one, and what is no plan is named with its field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from chimera.cli.arena.plan_file import load_plan
from chimera.core.errors import InputError
from tests.conftest import ROOT

EXAMPLE = ROOT / "examples/arena/validator.yaml"


def test_the_example_is_a_plan_as_yaml_and_as_json(tmp_path: Path) -> None:
    plan = load_plan(EXAMPLE)
    assert plan.hotkey == "//Alice" and [miner.spec for miner in plan.round.miners] == ["oracle:p=0.5", "oracle:p=0.9"]
    other = tmp_path / "plan.json"
    other.write_text(json.dumps(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))))
    assert load_plan(other) == plan


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hotkey: //Alice", "hotkey: 5", "hotkey: input should be a valid string"),
        ("hotkey: //Alice", "hotkeys: //Alice", "hotkeys: extra inputs are not permitted"),
        ("own: 32", "own: '32'", "round.own"),
        ("own: 32", "own: -1", "round.own"),
        ("own: 32", "own: 2027-01-01", "no plain data"),
        ("own: 32", "own: .inf", "no plain data"),
        ("own: 32", "own: 32\n  own: 33", "stands there twice"),
        ("rule: calibrated", "rule: loudest", "terms.rule"),
        ("beacon: seed:example", "beacon: coin", "beacon"),
        ("env_ids: [mult8-v0, tictactoe-v0]\n  rule", "env_ids: [mult8-v0]\n  rule", "other environments"),
        ("champion: 5DPD", "champion: 5XYZ", "not among the miners"),
        ("peers: []", BOMB, "aliases"),
        ("peers: []", "peers: [", "not YAML"),
        ("peers: []", "peers: " + "[" * 3_000, "nested too deeply"),
        ("peers: []", "peers: \udcff", "no plain data"),
    ],
)
def test_what_is_wrong_with_a_plan_is_named(old: str, new: str, said: str, tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "plan.yaml"
    path.write_bytes(text.replace(old, new, 1).encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as raised:
        load_plan(path)
    assert said in str(raised.value) and str(raised.value).startswith(str(path))


def test_a_plan_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(b" " * 1_000_001)
    with pytest.raises(InputError, match="larger than 1000000 bytes"):
        load_plan(path)
