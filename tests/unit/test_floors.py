"""The floors hold: the contracts of pyproject.toml pass on the code as it is and catch each way to break them."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70

FLOORS = "Imports only go down the floors"
RAY = "Ray is imported in chimera.actors only"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its contracts, to be broken at will."""
    shutil.copytree(ROOT / "chimera", tmp_path / "chimera", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_the_code_keeps_its_contracts(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout
    assert f"{FLOORS} KEPT" in done.stdout
    assert f"{RAY} KEPT" in done.stdout


LAZY_RAY = "def start() -> None:\n    import ray\n\n    ray.init()\n"
TYPED_RAY = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from ray.actor import ActorHandle\n"


@pytest.mark.parametrize(
    ("file", "code", "contract"),
    [
        pytest.param("arena/__init__.py", "import chimera.swarm\n", FLOORS, id="a domain imports another"),
        pytest.param("llm/probe.py", "import chimera.storage\n", FLOORS, id="a service imports another"),
        pytest.param("core/probe.py", "from chimera import swarm\n", FLOORS, id="the ground imports a domain"),
        pytest.param("core/probe.py", "def late():\n    import chimera.swarm\n", FLOORS, id="late, in a function"),
        pytest.param("swarm/probe.py", "import chimera.actors\n", FLOORS, id="a domain imports the actors"),
        pytest.param("actors/probe.py", "import chimera.system\n", FLOORS, id="the actors import the system"),
        pytest.param("gossip/__init__.py", "", FLOORS, id="a package that no floor lists"),
        pytest.param("gossip.py", "", FLOORS, id="a module that no floor lists"),
        pytest.param("swarm/probe.py", "import ray\n", RAY, id="Ray in a domain"),
        pytest.param("swarm/probe.py", "from ray.util import queue\n", RAY, id="a part of Ray in a domain"),
        pytest.param("system/probe.py", TYPED_RAY, RAY, id="Ray for its types"),
        pytest.param("cli/probe.py", LAZY_RAY, RAY, id="Ray in a function of the command line"),
        pytest.param("review/__init__.py", "import ray\n", RAY, id="Ray in a package that is new"),
        pytest.param("__init__.py", "import ray\n", RAY, id="Ray in the root package"),
    ],
)
def test_a_breach_is_caught(copy: Path, file: str, code: str, contract: str) -> None:
    path = copy / "chimera" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(code)
    done = lint(copy)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout, done.stdout + done.stderr


def test_the_public_names_are_no_way_round_the_floors(copy: Path) -> None:
    """`from chimera import X` in a lower floor reaches the edges through the root package."""
    (copy / "chimera/__init__.py").write_text("from chimera.client import probe\n")
    (copy / "chimera/client.py").write_text("probe = 1\n")
    (copy / "chimera/core/probe.py").write_text("from chimera import probe\n")
    done = lint(copy)
    assert done.returncode == 1
    assert f"{FLOORS} BROKEN" in done.stdout


def test_the_actors_may_import_ray(copy: Path) -> None:
    (copy / "chimera/actors/probe.py").write_text("import ray\nfrom ray.util import queue\n")
    assert lint(copy).returncode == 0


def test_the_ground_stands_on_the_standard_library_and_pydantic() -> None:
    graph = grimp.build_graph("chimera", include_external_packages=True, cache_dir=None)
    ground = {"chimera.core", *graph.find_descendants("chimera.core")}
    used = {name.partition(".")[0] for module in ground for name in graph.find_modules_directly_imported_by(module)}
    assert used - sys.stdlib_module_names <= {"chimera", "pydantic", "pydantic_settings"}


def test_files_and_functions_stay_small() -> None:
    long = []
    for path in sorted((ROOT / "chimera").rglob("*.py")):
        source = path.read_text()
        if source.count("\n") >= MAX_FILE_LINES:
            long.append(f"{path.relative_to(ROOT)}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines >= MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {lines} lines")
    assert long == []
