"""`chimera heal --module M --failure FILE` as a user runs it: a scripted model over a real wire, a real sandbox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chimera.healing.workspace import snapshot
from tests.conftest import ROOT, free_port
from tests.llm_stub import LlmStub, Scripted, plain

DATA = ROOT / "tests" / "data" / "healing" / "basket"

MENDED = '''\
from __future__ import annotations


def put(item: str, basket: list[str] | None = None) -> list[str]:
    """The basket with the item in it; a new one where none is given. The one that is given is not changed."""
    return [*(basket or []), item]


def merged(*baskets: list[str]) -> list[str]:
    """All items once, in the order of their first appearance."""
    return list(dict.fromkeys(item for basket in baskets for item in basket))
'''

GOOD = f"A new basket each time.\n\nA default list is shared.\n\nbasket.py\n```python\n{MENDED}```\n"
WRONG = GOOD.replace("[*(basket or []), item]", "[item]")


def completion(text: str) -> Scripted:
    """One answer as OpenAI's chat completions give it."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "scripted", "choices": [choice]}
    return plain({**body, "usage": usage})


def chimera(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_BASE_URL"))}
    command = [sys.executable, "-m", "chimera", *arguments]
    return subprocess.run(
        command, cwd=ROOT, input=stdin, env=kept | environment, capture_output=True, text=True, timeout=120, check=False
    )


class Place:
    """A workspace with a bug in it, tests that nobody sees, a failure, and a model with a script."""

    def __init__(self, folder: Path, stub: LlmStub) -> None:
        self.folder, self.stub = folder, stub
        self.app, self.state, self.failure = folder / "app", folder / "state", folder / "failure.txt"
        self.app.mkdir()
        for name in ("basket.py", "test_visible.py"):
            shutil.copy(DATA / name, self.app)
        shutil.copytree(DATA / "hidden", folder / "hidden", ignore=shutil.ignore_patterns("__pycache__"))
        self.failure.write_text("The second new basket holds what the first one got.")
        self.before = snapshot(self.app).digest

    @property
    def model(self) -> str:
        return f"compatible:scripted@{self.stub.url}/v1"

    @property
    def places(self) -> list[str]:
        named = {"workspace": self.app, "hidden-tests": self.folder / "hidden", "home": self.state}
        return [word for name, path in named.items() for word in (f"--{name}", str(path))]

    def heal(self, *more: str, module: str = "basket", **environment: str) -> subprocess.CompletedProcess[str]:
        given = [*self.places, "--timeout", "60", "--model", self.model, "--candidates", "1", *more]
        return chimera("heal", "--module", module, "--failure", str(self.failure), *given, **environment)

    @property
    def is_as_it_was(self) -> bool:
        return snapshot(self.app).digest == self.before

    def asked(self, number: int) -> str:
        return "\n".join(message["content"] for message in self.stub.asked[number].body["messages"])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with LlmStub() as stub:
        yield Place(tmp_path, stub)


def test_an_accepted_patch_is_shown_and_written_and_changes_nothing(place: Place) -> None:
    """What is printed is a diff that git takes, what is written a patch that the judge takes."""
    place.stub.script = [completion(GOOD)]
    written = place.folder / "patch.json"
    done = place.heal("--output", str(written))
    assert done.returncode == 0, done.stdout + done.stderr
    assert place.is_as_it_was
    assert "not applied" in done.stderr and "question 1" in done.stderr and "accept, all tests passed" in done.stderr
    assert "second new basket" in place.asked(0) and "test_the_given_one_is_left_alone" not in place.asked(0)
    judged = chimera("heal", "judge", *place.places[:4], "--patch", str(written), "--timeout", "60")
    assert judged.returncode == 0, judged.stdout + judged.stderr
    applied = ["git", "apply", "--unsafe-paths", "-"]
    subprocess.run(applied, cwd=place.app, input=done.stdout, text=True, check=True, timeout=30)
    assert (place.app / "basket.py").read_text() == MENDED


def test_with_apply_the_files_are_changed_and_the_cost_is_counted(place: Place) -> None:
    place.stub.script = [completion(GOOD)]
    (place.folder / "prices.yaml").write_text("'compatible:*': {input: 1.0, output: 10.0}")
    done = place.heal("--apply", "--json", "--max-usd", "1", "--prices", str(place.folder / "prices.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert (document["verdict"], document["applied"], document["calls"]) == ("accept", True, 1)
    assert document["cost_usd"] == pytest.approx(0.002)
    assert document["patch"]["edits"][0]["path"] == "basket.py" and "+++ b/basket.py" in document["diff"]
    assert (place.app / "basket.py").read_text() == MENDED
    assert sorted(path.name for path in place.app.iterdir()) == ["basket.py", "test_visible.py"]
    assert {"patches.db", "changes.db"} <= {path.name for path in place.state.iterdir()}


def test_a_rejected_patch_is_1_and_the_tree_is_as_it_was(place: Place) -> None:
    place.stub.script = [completion(WRONG)]
    written = place.folder / "patch.json"
    done = place.heal("--apply", "--json", "--repairs", "0", "--output", str(written))
    assert done.returncode == 1, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert (document["verdict"], document["applied"], document["patch"], document["diff"]) == (
        "reject",
        False,
        None,
        "",
    )
    assert document["cost_usd"] is None and "held-out tests" in document["reason"]
    assert [each["stage"] for each in document["tried"]] == ["hidden"]
    assert place.is_as_it_was and not written.exists()


def test_a_rejected_patch_goes_back_to_the_model_and_its_repair_counts(place: Place) -> None:
    place.stub.script = [completion(WRONG), completion(GOOD)]
    done = place.heal("--apply", "--repairs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "held-out tests" in place.asked(1)
    assert (place.app / "basket.py").read_text() == MENDED


def test_what_was_tried_before_is_told_the_next_time(place: Place) -> None:
    place.stub.script = [completion(WRONG), completion(WRONG)]
    for _ in range(2):
        assert place.heal("--repairs", "0").returncode == 1
    assert "tried before" not in place.asked(0)
    assert "tried before" in place.asked(1) and "A new basket each time.: rejected" in place.asked(1)


def test_a_model_that_writes_no_patch_is_1(place: Place) -> None:
    place.stub.script = [completion("I do not know.")] * 2
    done = place.heal("--apply", "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "wrote no patch" in json.loads(done.stdout)["reason"]
    assert place.is_as_it_was


def test_a_cap_that_the_first_call_could_pass_stops_it(place: Place) -> None:
    (place.folder / "prices.yaml").write_text("'compatible:*': {input: 1.0, output: 10.0}")
    done = place.heal("--max-usd", "0.0001", "--prices", str(place.folder / "prices.yaml"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "cap of 0.0001 USD" in done.stderr
    assert not place.stub.asked


def test_a_capability_that_is_allowed_may_be_brought_in(place: Place) -> None:
    answer = GOOD.replace("\n\n\ndef put", "\n\nimport socket\n\nWHERE = socket.gethostname\n\n\ndef put")
    place.stub.script = [completion(answer), completion(answer)]
    refused = place.heal("--repairs", "0")
    assert refused.returncode == 1 and "socket" in refused.stderr
    allowed = place.heal("--repairs", "0", "--allow", "network", "--allow", "import:socket")
    assert allowed.returncode == 0, allowed.stderr


def test_an_alert_of_the_watch_is_told_with_its_numbers(place: Place) -> None:
    alert = {"event": "anomaly_detected", "metric": "basket_errors", "timestamp": 9.0, "value": 41.5, "kind": "spike"}
    alert |= {"score": 7.0, "since": 8.0, "expected": 2.0}
    place.stub.script = [completion(GOOD)]
    place.failure.write_text(json.dumps(alert))
    assert place.heal().returncode == 0
    assert "basket_errors: spike" in place.asked(0) and "41.5" in place.asked(0)


def test_no_sandbox_is_3_and_the_model_is_not_asked(place: Place) -> None:
    done = place.heal("--sandbox", "bwrap", "--json", "--apply", PATH=str(place.folder))
    assert done.returncode == 3, done.stdout + done.stderr
    assert json.loads(done.stdout)["error"]["kind"] == "SandboxUnavailable"
    assert not place.stub.asked and place.is_as_it_was


def test_a_model_out_of_reach_is_3(place: Place) -> None:
    done = place.heal("--model", f"compatible:gone@http://127.0.0.1:{free_port()}/v1")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "127.0.0.1" in done.stderr


BAD: dict[str, tuple[list[str], str]] = {
    "no such failure": (["--failure", "{folder}/none.txt"], "none.txt cannot be read"),
    "a failure of zeros": (["--failure", "{folder}/zeros"], "zero byte"),
    "no such module": (["--module", "baskets"], "there is basket"),
    "no name of a module": (["--module", "../basket"], "no dotted name"),
    "no such workspace": (["--workspace", "{folder}/nowhere"], "is no folder"),
    "no hidden tests": (["--hidden-tests", "{folder}/nowhere"], "is no folder: the hidden tests"),
    "hidden tests around the workspace": (["--hidden-tests", "{folder}"], "holds the workspace"),
    "hidden tests without any": (["--hidden-tests", "{folder}/empty"], "no test_*.py"),
    "the offline model": (["--model", "offline"], "anthropic:MODEL"),
    "no such model": (["--model", "abacus"], "'abacus' is not a model"),
    "no key": (["--model", "openai:gpt-x"], "set OPENAI_API_KEY"),
    "a cap without a price": (["--max-usd", "1"], "price of compatible:scripted"),
    "a cap without end": (["--max-usd", "inf"], "usd"),
    "prices that are none": (["--prices", "{folder}/zeros"], "prices: not YAML"),
    "a home in the workspace": (["--home", "{folder}/app/state"], "lies in the workspace"),
    "an output that is there": (["--output", "{folder}/failure.txt"], "is not overwritten"),
    "an output nowhere": (["--output", "{folder}/nowhere/p.json"], "no folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_2_and_says_what_to_do(
    place: Place, case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from chimera.cli.main import main

    options, says = BAD[case]
    (place.folder / "zeros").write_bytes(b"\0" * 10)
    (place.folder / "empty").mkdir()
    given = ["--module", "basket", "--failure", str(place.failure), *place.places, "--model", place.model]
    given += [option.format(folder=place.folder) for option in options]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["heal", *given, "--json"])
    told = capsys.readouterr()
    assert ended.value.code == 2, told.err
    assert says in json.loads(told.out)["error"]["message"] and says in told.err
    assert not place.stub.asked and place.is_as_it_was


def test_the_hidden_tests_of_a_workspace_are_found_by_themselves_or_asked_for(place: Place) -> None:
    given = ["heal", "--module", "basket", "--failure", "-", "--workspace", str(place.app), "--home", str(place.state)]
    given += ["--model", place.model, "--timeout", "60"]
    done = chimera(*given, stdin="It is odd.")
    assert done.returncode == 2 and "--hidden-tests" in done.stderr
    shutil.copytree(place.folder / "hidden", place.app / "hidden")
    place.stub.script = [completion(GOOD)]
    done = chimera(*given, stdin="It is odd.")
    assert done.returncode == 0, done.stderr
    assert "It is odd." in place.asked(0)


def test_the_group_helps_and_keeps_its_options_apart(capsys: pytest.CaptureFixture[str]) -> None:
    from chimera.cli.main import main

    for given, says in (
        ([], "--failure"),
        (["--apply"], "--failure"),
        (["--module", "basket"], "--failure"),
        (["--failure", "-"], "--module"),
        (["--module", "basket", "judge", "--workspace", ".", "--hidden-tests", ".", "--patch", "p"], "after judge"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["heal", *given])
        told = capsys.readouterr()
        assert ended.value.code == 2 and says in told.out + told.err
