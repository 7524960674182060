"""What is installed is what is tested: versions, extras, pins, typing marker and public names agree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import chimera

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()
PINS = dict(line.split("==") for line in CONSTRAINTS if not line.startswith("#"))


NO_DEPS = dict(line.split("==") for line in (ROOT / ".ci/no-deps.txt").read_text().splitlines() if "#" not in line)
"""What `make install` brings in without what it asks for."""
APART = {"federation"}


def asked() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    names = (name for extra in set(extras) - {"all", *APART} for name in extras[extra])
    return [Requirement(name) for name in (*PROJECT["dependencies"], *names)]


def test_the_version_is_one() -> None:
    assert version("chimera") == PROJECT["version"]


def test_every_extra_is_in_all() -> None:
    extras = dict(PROJECT["optional-dependencies"])
    (everything,) = (Requirement(name) for name in extras.pop("all"))
    assert everything.name == PROJECT["name"]
    assert everything.extras == set(extras) - APART


def test_what_is_installed_without_its_bounds_is_what_an_extra_asks_for() -> None:
    for name in PROJECT["optional-dependencies"]["federation"]:
        assert Requirement(name).specifier.contains(NO_DEPS[Requirement(name).name])
    for name, pinned in NO_DEPS.items():
        assert version(name) == pinned


def test_the_wheel_holds_the_package_and_its_typing_marker(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "chimera", source / "chimera", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, f"--wheel-dir={tmp_path}", str(source)], check=True, capture_output=True, timeout=110)
    (wheel,) = tmp_path.glob("chimera-*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {str(path.relative_to(source)) for path in (source / "chimera").rglob("*") if path.is_file()}
    assert "chimera/py.typed" in shipped
    assert shipped == package


def test_the_command_is_there() -> None:
    (command,) = entry_points(group="console_scripts", name="chimera")
    assert callable(command.load())


def test_pins_hold_what_pyproject_asks_for() -> None:
    for requirement in asked():
        name = canonicalize_name(requirement.name)
        assert name in PINS, f"{name}: run `make lock`"
        assert requirement.specifier.contains(PINS[name]), f"{name}: run `make lock`"


def test_torch_is_the_version_that_every_mirror_has() -> None:
    assert "torch==2.13.0" in CONSTRAINTS


def test_pins_name_versions_and_nothing_of_a_machine() -> None:
    header = [line for line in CONSTRAINTS if line.startswith("#")]
    assert "`make lock`" in header[0]
    for line in CONSTRAINTS[len(header) :]:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][a-z0-9.!]*", line), line
    assert not re.search(r"https?://|file:|(^|\s)/|[A-Za-z]:\\", "\n".join(CONSTRAINTS))
    assert CONSTRAINTS[len(header) :] == sorted(CONSTRAINTS[len(header) :])


def fresh(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / ".ci/constraints.py"), "check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_pins_are_fresh_and_stale_ones_are_noticed(tmp_path: Path) -> None:
    assert fresh(ROOT).returncode == 0
    (tmp_path / ".ci").mkdir()
    for name in (".ci/constraints.py", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(pyproject.read_text() + "\n[tool.another]\nkey = 1\n")
    assert fresh(tmp_path).returncode == 0, "only what decides the installation counts"
    pyproject.write_text(pyproject.read_text().replace('"rich>=14,<16"', '"rich>=14.1,<16"'))
    stale = fresh(tmp_path)
    assert stale.returncode == 1
    assert "make lock" in stale.stderr


def test_public_names_are_sorted_and_documented() -> None:
    names = chimera.__all__
    assert names == sorted(set(names))
    for name in names:
        assert getattr(chimera, name).__doc__, f"chimera.{name} has no docstring"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md"])
def test_a_page_names_make_targets_that_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^\s*|`)make ([a-z]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert named
    assert named <= targets


def test_hooks_call_tools_that_are_installed() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local", "no hook is downloaded"
    for hook in repo["hooks"]:
        folder, tool = hook["entry"].split()[0].rsplit("/", 1)
        assert folder == ".venv/bin"
        assert Path(sys.executable).with_name(tool).exists()
