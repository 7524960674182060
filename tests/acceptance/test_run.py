"""`chimera run` as a user runs it: in a process of its own, on the tests' Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sklearn.datasets
from typer.testing import CliRunner

from chimera import Settings
from chimera.cli.main import app
from tests.conftest import ROOT

DIABETES = "Which dataset came from a study of diabetes patients, and how many features has it?"


def actors() -> set[str]:
    """The names of the actors that live in the tests' Ray."""
    import ray.util

    return {str(actor["name"]) for actor in ray.util.list_named_actors(all_namespaces=True)}


def chimera(*arguments: str, timeout_s: float = 110, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chimera", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=ROOT,
        env={**os.environ, "CHIMERA_CELLS": "1", **environment},
        check=False,
    )


@pytest.mark.cluster
def test_make_run_prints_the_right_dataset_a_citation_and_the_number(local_ray: Settings) -> None:
    environment = {**os.environ, "CHIMERA_ADDRESS": local_ray.address}
    done = subprocess.run(
        ["make", "run"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "diabetes" in done.stdout and "[diabetes.rst:" in done.stdout and "10 feature variables" in done.stdout
    assert "extracts and does not write" in done.stdout


@pytest.mark.cluster
def test_json_is_one_document_with_quotes_that_stand_in_their_sources(local_ray: Settings) -> None:
    arguments = ("run", DIABETES, "--docs", "package:sklearn/datasets/descr", "--json", "--address", local_ray.address)
    done = chimera(*arguments)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert {
        "question",
        "answer",
        "quotes",
        "confidence",
        "decision",
        "dissent",
        "elapsed_s",
        "cost_usd",
    } <= first.keys()
    assert first["quotes"][0]["file"] == "diabetes.rst"
    assert all({"text", "file", "line"} <= quote.keys() for quote in first["quotes"])
    assert 0 < first["confidence"] <= 1 and first["cost_usd"] == 0
    folder = Path(sklearn.datasets.__file__).parent / "descr"
    for quote in first["quotes"]:  # each stands word for word in its source, and begins on its line
        lines = (folder / quote["file"]).read_text(encoding="utf-8").splitlines()
        assert quote["text"] in " ".join(" ".join(lines[quote["line"] - 1 :]).split())
        assert quote["text"].split()[0] in lines[quote["line"] - 1]


@pytest.mark.cluster
def test_a_batch_is_a_line_for_each_question_in_their_order(local_ray: Settings, tmp_path: Path) -> None:
    lines = (ROOT / "tests/data/qa/questions.jsonl").read_text(encoding="utf-8").splitlines()[:12]
    batch = tmp_path / "batch.jsonl"
    batch.write_text("\n".join(lines), encoding="utf-8")
    done = chimera(
        "run", "--questions", str(batch), "--docs", "tests/data/qa/docs", "--json", "--address", local_ray.address
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    asked = [json.loads(line) for line in lines]
    assert [answer["question"] for answer in answers] == [question["question"] for question in asked]
    hits = [
        any(word in answer["quotes"][0]["text"] for word in question["answers"])
        for answer, question in zip(answers, asked, strict=True)
    ]
    assert sum(hits) >= 8


@pytest.mark.cluster
def test_files_that_cannot_be_read_are_named_and_the_rest_is_used(local_ray: Settings, tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("# Moon\n\nThe moon is made of rock, said the geologist.\n")
    (tmp_path / "junk.txt").write_bytes(b"\x00\x01\x02" * 100)
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    (tmp_path / "page.html").write_text(
        "<html><body><script>moon()</script><p>Cheese is made of milk.</p></body></html>"
    )
    done = chimera(
        "run", "What is the moon made of?", "--docs", str(tmp_path), "--json", "--address", local_ray.address
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["quotes"][0] == {
        "text": "The moon is made of rock, said the geologist.",
        "file": "good.md",
        "line": 3,
    }
    assert [skipped["file"] for skipped in answer["skipped"]] == ["broken.pdf", "junk.txt"]


@pytest.mark.cluster
def test_no_agreement_is_exit_code_1_with_the_partial_result(local_ray: Settings, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Nothing here is about it.\n")
    done = chimera(
        "run", "Zebra xylophone?", "--docs", str(tmp_path), "--json", "--consensus", "unanimous",
        "--address", local_ray.address,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    answer = json.loads(done.stdout)
    assert answer["decision"]["outcome"] == "no_quorum"
    assert answer["state"] == "undecided" and answer["explanation"].startswith("not agreed")


@pytest.mark.cluster
def test_a_mission_out_of_time_is_exit_code_1_and_says_so(local_ray: Settings) -> None:
    done = chimera(
        "run",
        DIABETES,
        "--docs",
        "package:sklearn/datasets/descr",
        "--deadline",
        "0.05",
        "--address",
        local_ray.address,
    )
    assert done.returncode == 1, done.stdout
    assert "deadline" in done.stdout


@pytest.mark.cluster
def test_a_user_written_graph_runs(local_ray: Settings) -> None:
    done = chimera("run", "--mission", "examples/missions/graph.yaml", "--json", "--address", local_ray.address)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "answered"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a question"], "--docs"),
        ([], "give one of a question, --mission FILE or --questions FILE"),
        (["q?", "--mission", "examples/missions/datasets.yaml"], "not question and mission"),
        (["q?", "--docs", "no/such/folder"], "no/such/folder"),
        (["q?", "--docs", "{empty}"], "{empty}"),
        (["q?", "--docs", "docs", "--replicas", "5"], "there are 3 methods"),
        (["q?", "--docs", "docs", "--replicas", "0"], "replicas"),
        (["q?", "--docs", "docs", "--agents", "4"], "at least 6"),
        (["q?", "--docs", "docs", "--deadline", "-1"], "deadline_s"),
        (["q?", "--docs", "docs", "--threshold", "0.7"], "threshold: only for quorum"),
        (["q?", "--docs", "docs", "--model", "openai:gpt-4o"], "openai"),
        (["q?", "--docs", "docs", "--model", "gpt"], "offline"),
        (["q?", "--docs", "docs", "--consensus", "loudest"], "loudest"),
        (["--mission", "no/such.yaml"], "no/such.yaml"),
        (["--questions", "README.md", "--docs", "docs"], "README.md:1"),
        (["--mission", "{bad_yaml}"], "not YAML: KeyError"),
        (["--mission", "{goal_only}"], "--docs"),
    ],
)
def test_bad_input_is_exit_code_2_and_says_what_to_do(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("goal: !!bool x")
    (tmp_path / "goal.yaml").write_text("goal: what?")
    (tmp_path / "empty").mkdir()
    places = {"{empty}": tmp_path / "empty", "{bad_yaml}": tmp_path / "bad.yaml", "{goal_only}": tmp_path / "goal.yaml"}
    filled = [str(places.get(argument, argument)) for argument in arguments]
    done = CliRunner().invoke(app, ["run", *filled], env={"COLUMNS": "200"})
    assert done.exit_code == 2, done.output
    plain = " ".join(done.stderr.replace("│", " ").split())
    assert str(places.get(said, said)) in plain
    assert done.stdout == ""


@pytest.mark.cluster
def test_standard_output_holds_the_result_alone_even_when_a_worker_is_killed(
    local_ray: Settings, tmp_path: Path
) -> None:
    mission = {
        "goal": "survive",
        "spawn": [{"role": "worker", "policy": "tests.policies:dies_once", "count": 1}],
        "tasks": [{"id": "t", "goal": "survive", "inputs": {"marker": str(tmp_path / "died")}, "replicas": 1}],
        "consensus": "majority",
    }
    (tmp_path / "mission.json").write_text(json.dumps(mission))
    done = chimera("run", "--mission", str(tmp_path / "mission.json"), "--json", "--address", local_ray.address)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["value"] == 42


@pytest.mark.cluster
def test_sigterm_ends_the_swarm_and_its_processes(local_ray: Settings, tmp_path: Path) -> None:
    before = actors()
    mission = {"goal": "wait", "spawn": [{"policy": "tests.policies:hangs"}], "consensus": "majority", "replicas": 1}
    (tmp_path / "mission.json").write_text(json.dumps(mission))
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "chimera",
            "run",
            "--mission",
            str(tmp_path / "mission.json"),
            "--address",
            local_ray.address,
        ],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "Ray dashboard" in process.stderr.readline()
    assert len(actors() - before) >= 3, "its coordinator, manager and cells are there"
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "Traceback" not in rest and "stack" not in rest.lower()
    assert actors() == before


@pytest.mark.cluster
def test_an_error_from_the_swarm_is_one_clear_line(local_ray: Settings, tmp_path: Path) -> None:
    mission = {"goal": "x", "spawn": [{"policy": "no.such:thing"}], "replicas": 1, "consensus": "majority"}
    (tmp_path / "mission.json").write_text(json.dumps(mission))
    done = chimera("run", "--mission", str(tmp_path / "mission.json"), "--json", "--address", local_ray.address)
    assert done.returncode == 2
    told = json.loads(done.stdout)["error"]
    assert told["kind"] == "PolicyError"
    assert told["message"].startswith("policy no.such:thing: ModuleNotFoundError") and "\n" not in told["message"]
    assert "ray::" not in done.stderr


@pytest.mark.parametrize(
    "content",
    ["\ufeff" + json.dumps({"question": "a?"}), json.dumps({"question": "a\u2028b?"}, ensure_ascii=False) + "\r\n\r\n"],
)
def test_a_file_of_questions_may_have_a_mark_or_odd_separators(content: str, tmp_path: Path) -> None:
    from chimera.cli.run import read_questions

    path = tmp_path / "q.jsonl"
    path.write_text(content, encoding="utf-8", newline="")
    assert len(read_questions(path)) == 1


def test_an_address_where_nobody_listens_is_said_so_at_once() -> None:
    done = chimera("run", "q?", "--docs", "docs", "--address", "127.0.0.1:1")
    assert done.returncode == 2 and done.stdout == ""
    assert "no Ray cluster answers at '127.0.0.1:1'" in done.stderr and "Traceback" not in done.stderr


def test_bad_input_is_json_too_where_json_is_asked_for(tmp_path: Path) -> None:
    done = chimera("run", "q?", "--docs", str(tmp_path / "nowhere"), "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["kind"] == "DocumentsError"
