"""A node's settings: the same in three forms, paths from the file's folder, options over it, faults named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from chimera.cli.heart_file import MAX_FILE_BYTES, read_heart_file
from chimera.core.errors import InputError

NODE: dict[str, Any] = {
    "source": "-",
    "workspace": "app",
    "hidden_tests": "hidden",
    "home": "state",
    "model": "local:m",
    "owners": {"till_*": "shop.till"},
    "max_usd_a_day": 2.5,
    "prices": {"local:*": {"input": 0.0, "output": 0.0}},
    "reading": {"metrics": ["till_*"]},
    "deciding": {"attempts": 2},
}

TOML = """
source = "-"
workspace = "app"
hidden_tests = "hidden"
home = "state"
model = "local:m"
max_usd_a_day = 2.5
owners = {"till_*" = "shop.till"}
prices = {"local:*" = {input = 0.0, output = 0.0}}
reading = {metrics = ["till_*"]}
deciding = {attempts = 2}
"""


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_the_three_forms_say_the_same(tmp_path: Path) -> None:
    texts = {"a.toml": TOML, "a.yaml": yaml.safe_dump(NODE), "a.yml": yaml.safe_dump(NODE), "a.json": json.dumps(NODE)}
    found = [read_heart_file(written(tmp_path, name, text), {}) for name, text in texts.items()]
    assert all(each == found[0] for each in found)
    assert (found[0].workspace, found[0].home) == (tmp_path / "app", tmp_path / "state")
    assert found[0].prices["local:*"].input == 0.0 and found[0].deciding.attempts == 2


def test_an_option_takes_the_place_of_what_stands_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "a.toml", TOML)
    found = read_heart_file(path, {"model": "local:other", "home": "/elsewhere", "owners": {"m": "basket"}})
    assert (found.model, found.home, found.owners) == ("local:other", Path("/elsewhere"), {"m": "basket"})
    assert found.source == "-"


def test_options_suffice_without_a_file(home: Path, tmp_path: Path) -> None:
    given = {"source": "-", "workspace": str(tmp_path), "hidden_tests": "/hidden", "owners": {"m": "basket"}}
    found = read_heart_file(None, given)
    assert (found.home, found.model) == (home / "heart", "offline")


def test_a_source_that_is_a_file_is_looked_for_beside_the_settings(tmp_path: Path) -> None:
    written(tmp_path, "readings.csv", "timestamp,m\n")
    path = written(tmp_path, "a.json", json.dumps(NODE | {"source": "readings.csv"}))
    assert read_heart_file(path, {}).source == str(tmp_path / "readings.csv")
    assert read_heart_file(path, {"source": "readings.csv"}).source == "readings.csv"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.ini", "", "end in .toml"),
        ("a.toml", "source = ", "a.toml: not TOML: Invalid value"),
        ("a.toml", TOML + "wrokspace = 1\n", "wrokspace"),
        ("a.toml", TOML.replace("attempts = 2", "attempts = 0"), "deciding.attempts"),
        ("a.toml", TOML.replace("2.5", "nan"), "no plain data"),
        ("a.toml", TOML.replace('{"till_*" = "shop.till"}', "{}"), "owners"),
        ("a.toml", TOML.replace('home = "state"', "home = 2026-01-01"), "no plain data"),
        ("a.toml", "#" * (MAX_FILE_BYTES + 1), "larger than"),
        ("a.yaml", "a: &a 1\nb: *a\n", "aliases"),
        ("a.yaml", "a: [", "not YAML"),
        ("a.json", '{"source": 1, "source": 2}', "twice"),
        ("a.json", "[]", "a table of settings"),
        ("a.json", "{}", "workspace"),
        ("a.json", "[" * 100_000, "deeply"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_heart_file(written(tmp_path, name, text), {})
    assert name in str(caught.value)


def test_what_is_missing_without_a_file_can_be_given_in_one() -> None:
    with pytest.raises(InputError, match=r"workspace: field required.*with --config, or give each as an option"):
        read_heart_file(None, {"source": "-"})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        read_heart_file(tmp_path / "none.toml", {})
