"""`chimera sandbox` as a user runs it: train, make threats, prove, verify; and what is said of the usual mistakes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from chimera.cli.main import main
from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(240)

WITHOUT_TORCH = """
import sys

sys.modules.update(dict.fromkeys(["torch", "opacus", "ray", "flwr", "matplotlib", "sklearn"], None))
from chimera.cli.main import main
main()
"""

SCHEMA = """
columns:
  - {name: age, low: 18, high: 99, step: 1}
  - {name: amount, low: 0, high: 1000, step: 0.5}
label: fraud
classes: ["no", "yes"]
"""


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ENABLE")}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def chimera(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return python("-m", "chimera", *arguments, cwd=cwd)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A folder with a table and its schema."""
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    rows = [f"{20 + at % 60},{(at * 37) % 900},{'yes' if at % 5 == 0 else 'no'}" for at in range(200)]
    (tmp_path / "people.csv").write_text("age,amount,fraud\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_train_generate_verify(people: Path) -> None:
    trained = chimera(
        "sandbox", "train", "people.csv", "--schema", "schema.yaml", "--out", "trained", "--steps", "60",
        "--batch", "32", "--json", cwd=people,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    told = json.loads(trained.stdout)
    assert 0.9 < told["epsilon"] <= 1.0 and told["step"] == 60
    assert "step 60 of 60: loss discriminator" in trained.stderr and "epsilon 1.000 of 1" in trained.stderr
    assert {each.name for each in (people / "trained").iterdir()} == {
        "ledger.jsonl", "checkpoint.pt", "model.pt", "progress.jsonl", "marginals.png", "epsilon.png",
    }  # fmt: skip
    assert (people / "trained").stat().st_mode & 0o777 == 0o700

    keys = chimera(
        "sandbox", "set-up", "--schema", "schema.yaml", "--rows", "8", "--made-by", "auditor", "--out", "keys",
        cwd=people,
    )  # fmt: skip
    assert keys.returncode == 0 and "research-grade, unaudited" in keys.stdout, keys.stderr
    made = chimera(
        "sandbox", "generate", "trained/model.pt", "--kind", "biased", "--strength", "0.5", "-n", "20",
        "--proving-key", "keys/proving.key", "--out", "batch", cwd=people,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "proved, 3 chunks (research-grade, unaudited)" in made.stdout
    envelope = json.loads((people / "batch" / "BATCH.json").read_text())
    assert {"cells", "salts", "data"}.isdisjoint(envelope) and "seed" not in json.dumps(envelope)

    arguments = ("sandbox", "verify", "batch/BATCH.json", "--key", "keys/verifying.json")
    opened = ("--opening", "batch/opening.json", "--data", "batch/data.csv")
    verified = python("-c", WITHOUT_TORCH, *arguments, *opened, cwd=people)
    assert verified.returncode == 0, verified.stderr
    for said in ("proved (research-grade, unaudited)", "not proved", "Not that a generator", "The mean of 'age' is"):
        assert said in verified.stdout
    assert "The columns of the records in data.csv are the committed batch" in verified.stdout

    envelope["claim"]["bias"][0] += 1.0
    (people / "tampered.json").write_text(json.dumps(envelope))
    refused = chimera("sandbox", "verify", "tampered.json", "--key", "keys/verifying.json", cwd=people)
    assert refused.returncode == 1 and "refused: column 'age' has the mean" in refused.stdout


def test_help_and_the_list_of_commands_load_no_torch(tmp_path: Path) -> None:
    for arguments in (["--help"], ["sandbox", "--help"], ["sandbox", "train", "--help"]):
        script = (
            "import sys\nfrom chimera.cli.main import main\n"
            f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
            "print([name for name in ('torch', 'opacus', 'ray', 'numpy', 'matplotlib') if name in sys.modules])"
        )
        done = python("-c", script, cwd=tmp_path)
        assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train people.csv --out o", "say with --schema what the columns"),
        ("train nobody --out o", "neither a file nor a data set: there are breast_cancer"),
        ("train wine --schema schema.yaml --out o", "a schema of its own"),
        ("train wine --out o --epsilon 0", "takes a number over 0"),
        ("train wine --out o --epsilon lots", "takes a number over 0"),
        ("train wine --out o --delta 1", "delta"),
        ("train nan.csv --schema schema.yaml --out o", "line 3, column 'amount': 'nan' is no finite number"),
        ("train text.csv --schema schema.yaml --out o", "line 3, column 'amount': 'much' is no finite number"),
        ("train column.csv --schema schema.yaml --out o", "no column 'amount'"),
        ("train class.csv --schema schema.yaml --out o", "'perhaps' is none of the classes"),
        ("train one.csv --schema schema.yaml --out o", "at least 2"),
        ("train people.csv --windows 8 --out o", "--low and --high"),
        ("train people.csv --schema schema.yaml --stride 8 --out o", "--windows"),
        ("train people.csv --schema schema.yaml --out .", "holds other things"),
        ("train people.csv --schema people.csv --out o", "people.csv"),
        ("generate none.pt --out o", "no such file: `chimera sandbox train`"),
        ("generate none.pt --key k --out o", "--key goes with --proving-key"),
        ("verify none.json", "a key that comes from the prover proves nothing"),
        ("verify none.json --key none.json", "none.json cannot be read"),
        ("verify none.json --key k --data d", "--data goes with --opening"),
        ("set-up --out o", "say what the columns are"),
        ("set-up wine --columns 3 --out o", "say what the columns are"),
        ("set-up digits --rows 1000 --out o", "fewer --rows"),
    ],
)
def test_a_usual_mistake_is_told_with_what_to_do(
    people: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    monkeypatch.chdir(people)
    for name, row in {
        "nan": "30,nan,no", "text": "30,much,no", "class": "30,5,perhaps", "one": "", "column": "",
    }.items():  # fmt: skip
        head = "age,fraud\n30,no\n" if name == "column" else f"age,amount,fraud\n20,1,no\n{row}\n".rstrip() + "\n"
        (people / f"{name}.csv").write_text(head)
    with pytest.raises(SystemExit) as left:
        main(["sandbox", *arguments.split()])
    told = capsys.readouterr()
    assert left.value.code == 2, told.err
    assert said.lower() in " ".join(told.err.lower().split()), told.err
    assert "Traceback" not in told.err


def test_a_delta_that_gives_records_away_is_warned_of_and_infinite_is_said(
    people: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(people)
    with pytest.raises(SystemExit) as left:
        main(
            "sandbox train people.csv --schema schema.yaml --out free --epsilon infinite --delta 0.01 --steps 5".split()
        )
    told = capsys.readouterr()
    assert left.value.code == 0, told.err
    assert "warning: delta 0.01 is not below 1 / 200" in told.err
    assert "epsilon: infinite (not private)" in told.out


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_commands_of_the_page_run_one_after_the_other(tmp_path: Path) -> None:
    shown = (ROOT / "docs" / "sandbox.md").read_text(encoding="utf-8")
    lines = [line for line in shown.splitlines() if line.startswith("chimera sandbox ")]
    assert {line.split()[2] for line in lines} == {
        "train", "set-up", "generate", "verify", "harden", "federate", "audit",
    }  # fmt: skip
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    for line in lines:
        done = chimera(*shlex.split(line)[1:], cwd=tmp_path)
        assert done.returncode == 0, line + done.stderr
