"""The docs do what they say: every command is run, every link leads somewhere, the Python in the README runs."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chimera import Settings
from tests.acceptance.test_job import SUBMITTED
from tests.acceptance.test_run import chimera
from tests.conftest import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
STARTS = ("chimera ", "ray ", "make", "python ", "umask", "export ", ".venv/bin/")


def blocks(language: str) -> list[str]:
    return [
        body for page in PAGES for found, body in BLOCK.findall(page.read_text(encoding="utf-8")) if found == language
    ]


def commands() -> list[str]:
    lines = [line.split(" #")[0].strip() for body in blocks("") for line in body.splitlines()]
    lines = [line for line in lines if line.startswith(STARTS)]
    inline = re.findall(r"`((?:chimera|make|ray job|python) [^`]+)`", "".join(p.read_text("utf-8") for p in PAGES))
    mentioned = {"chimera run", "chimera bench swarm", "ray job submit", "chimera run --help"}
    return sorted((set(lines) | set(inline)) - mentioned)


CHIMERA_ELSEWHERE = (
    "top",
    "missions show",
    "missions resume",
    "missions cancel",
    "watch",
    "anomaly evaluate",
    "anomaly forecast",
    "heal judge",
    "heal --module",
    "heart run",
    "heart log",
    "heart reviews",
    "heart agree",
    "heart refuse",
    "reload",
    "security evaluate",
    "audit verify",
    "audit tail",
    "audit query",
    "serve",
    "users add",
    "users list",
    "users role",
    "users disable",
    "users reset",
    "certs make",
    "certs check",
    "keys create",
    "keys list",
    "keys revoke",
    "treasury",
    "sandbox",
    "tools",
    "mcp serve",
    "review",
    "content",
)
"""These need a swarm, a mission, a model or a server: the tests of ELSEWHERE run them."""

ELSEWHERE = (
    *(
        f"acceptance/test_{name}.py"
        for name in "missions watch heal heal_run heart audit treasury sandbox tools mcp_serve".split()
    ),
    "acceptance/test_security_evaluate.py",
    "acceptance/test_content.py",
    "cluster/test_reload_cli.py",
    "cluster/test_serve.py",
    "unit/cli/test_certs.py",
    "unit/cli/test_review.py",
    "unit/cli/test_users.py",
)

CHIMERA = [line for line in commands() if line.startswith("chimera ") and not line[8:].startswith(CHIMERA_ELSEWHERE)]
MAKE = [line for line in commands() if re.match(r"make( |$)", line)]
JOBS = [line for line in commands() if line.startswith("ray job submit")]
PYTHON = [line for line in commands() if line.startswith(("python bench/", "python -m bench."))]
LONG = (
    "python -m bench.llm",
    "python -m bench.anomaly",
    "python -m bench.api",
    "python -m bench.audit",
    "python -m bench.limits",
    "python -m bench.evm",
    "python -m bench.federation",
    "python -m bench.hardening",
    "python -m bench.merge",
    "python -m bench.proofs",
    "python -m bench.risk",
    "python -m bench.sandbox_",
    "python -m bench.tool",
    "python -m bench.treasury",
    "python -m bench.trends",
    "python -m bench.watching",
    "python bench/corpus.py",
    "chimera bench swarm --agents 1000",
)
"""Tested under `make soak`: each takes about ten seconds or more."""

TESTED_ELSEWHERE = (
    "umask ",
    "export ",
    "ray start ",
    ".venv/bin/",
    "python -m chimera.treasury.vault ",
)  # test_job follows the docs, test_treasury starts vaults; the rest is this suite


def each(lines: list[str]) -> list[Any]:
    return [pytest.param(line, marks=pytest.mark.soak) if line.startswith(LONG) else line for line in lines]


def test_there_are_commands_and_each_has_a_test() -> None:
    assert min(len(CHIMERA), len(MAKE), len(JOBS), len(PYTHON)) >= 2
    elsewhere = "".join((ROOT / "tests" / name).read_text(encoding="utf-8") for name in ELSEWHERE)
    for words in CHIMERA_ELSEWHERE:
        assert "chimera(" + ", ".join(f'"{word}"' for word in words.split()) in elsewhere.replace(
            "chimera, ", "chimera("
        )
    rest = {line for line in commands() if not line.startswith("chimera ")} - {*MAKE, *JOBS, *PYTHON}
    assert [line for line in rest if not line.startswith(TESTED_ELSEWHERE)] == []


@pytest.mark.cluster
@pytest.mark.timeout(240)
@pytest.mark.parametrize("line", each(CHIMERA))
def test_a_chimera_command_runs(line: str, local_ray: Settings) -> None:
    words = [word.replace("DIR", "tests/data/qa/docs") for word in shlex.split(line)[1:]]
    without_ray = words[:2] in (["missions", "list"], ["security", "review"])
    where = () if without_ray else ("--address", local_ray.address)
    done = chimera(*words, *where, timeout_s=200)
    assert done.returncode in (0, 1), done.stderr
    assert (done.stdout + done.stderr).strip() and "Traceback" not in done.stderr


@pytest.mark.parametrize("line", MAKE)
def test_a_make_target_exists(line: str) -> None:
    words = [word for word in shlex.split(line) if word not in ("||", "&&")]
    done = subprocess.run([*words, "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", JOBS)
def test_a_job_is_one_that_test_job_runs(line: str) -> None:
    assert line.removeprefix("ray job submit --working-dir . -- python ") in SUBMITTED


@pytest.mark.cluster
@pytest.mark.timeout(240)
@pytest.mark.parametrize("line", each(PYTHON))
def test_a_benchmark_runs(line: str, local_ray: Settings) -> None:
    words = shlex.split(line)[1:]
    if "corpus" in line:
        words += ["--address", local_ray.address]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_the_python_of_the_readme_runs(local_ray: Settings, tmp_path: Path) -> None:
    [program] = [body for body in blocks("python") if "asyncio.run" in body]
    script = tmp_path / "program.py"
    script.write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "CHIMERA_ADDRESS": local_ray.address},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 0.9 ")
    assert "mission_ended" in done.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")])
def test_python_shown_is_that_of_an_example_or_runs(page: Path) -> None:
    examples = {path.read_text(encoding="utf-8"): path for path in (ROOT / "examples").rglob("*.py")}
    known: dict[str, Any] = {}
    for language, body in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language != "python" or "asyncio.run" in body:
            continue
        if body.startswith('"""'):
            where = examples[body].relative_to(ROOT).with_suffix("")
            known |= vars(importlib.import_module(".".join(where.parts)))
        else:
            exec(compile(body, page.name, "exec", dont_inherit=True), known)


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_setting_is_in_the_docs() -> None:
    text = (ROOT / "docs/how-to.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        assert f"| `{name}` |" in text, name
        assert str(field.description) in text, name


def test_every_option_of_run_is_in_the_docs_and_no_other() -> None:
    help_text = chimera("run", "--help").stdout
    text = (ROOT / "docs/how-to.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(--[a-z]+)", text, re.MULTILINE))
    assert documented == set(re.findall(r"--[a-z]+", help_text)) - {"--help"}
    assert "Exit codes" in help_text


def test_architecture_is_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()) < 150
