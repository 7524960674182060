"""`chimera security evaluate`: figures with intervals for labelled texts, and a clear line for a file that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.test_run import chimera
from tests.conftest import ROOT

TEXTS = ROOT / "tests" / "data" / "injection" / "texts.jsonl"


def test_json_has_every_figure_with_its_interval() -> None:
    done = chimera("security", "evaluate", str(TEXTS), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["n"], found["attacks"], found["benign"], found["refused"]) == (160, 80, 80, 0)
    for name in ("recall", "false_positive_rate", "auc"):
        low, high = found[f"{name}_interval"]
        assert 0 <= low <= found[name] <= high <= 1 and high - low > 0
    assert found["recall"] >= 0.6 and found["false_positive_rate"] <= 0.1 and found["auc"] >= 0.9
    assert 0 < found["p50_ms"] <= found["p95_ms"]


def test_a_person_gets_a_table() -> None:
    done = chimera("security", "evaluate", str(TEXTS))
    assert done.returncode == 0, done.stderr
    for word in ("recall", "false positives", "AUC", "p95", "80 attacks"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("", "empty"),
        ("[1, 2]\n", "line 1"),
        ('{"text": "a", "label": 0}\n{"text": "b", "label": 2}\n', "line 2"),
        ('{"text": "a", "label": 0}\nnonsense\n', "line 2"),
        ("[" * 50_000 + "\n", "not JSON"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, content: str | None, says: str) -> None:
    file = tmp_path / "texts.jsonl"
    if content is not None:
        file.write_text(content)
    done = chimera("security", "evaluate", str(file), "--json")
    assert done.returncode == 2
    assert says in json.loads(done.stdout)["error"]["message"] and "Traceback" not in done.stderr
