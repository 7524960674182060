"""ray_cluster.yaml starts no node without TLS, and gives nodes what `chimera certs make` makes for them: no more."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from chimera.cli.main import app
from tests.conftest import ROOT

TEXT = (ROOT / "ray_cluster.yaml").read_text(encoding="utf-8")
FILE: dict[str, Any] = yaml.safe_load(TEXT)


@pytest.mark.parametrize("role", ["head", "worker"])
def test_no_node_starts_without_tls(role: str) -> None:
    (start,) = (command for command in FILE[f"{role}_start_ray_commands"] if "ray start" in command)
    assert "RAY_USE_TLS=1" in start.partition("ray start")[0].split()


def test_nodes_have_the_files_of_the_command_in_its_head_and_not_the_authoritys_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (line,) = (line for line in TEXT.splitlines() if "chimera certs make" in line)
    made = CliRunner().invoke(app, shlex.split(line.partition("chimera ")[2]))
    assert made.exit_code == 0, made.output
    environment = dict(
        option.removeprefix("-e ").split("=", 1) for option in FILE["docker"]["run_options"] if option.startswith("-e ")
    )
    assert environment["RAY_USE_TLS"] == "1"
    mounted = Path(FILE["file_mounts"]["/home/ray/tls"]).expanduser()
    files = {Path(path).name for name, path in environment.items() if name.startswith("RAY_TLS_")}
    assert files == {path.name for path in mounted.iterdir()}
    for name, path in environment.items():
        if name.startswith("RAY_TLS_"):
            assert Path(path).parent == Path("/home/ray/tls")
    assert (tmp_path / ".ray" / "tls" / "certs" / "ca-key.pem").exists()
    assert all("ca-key" not in str(path) for path in mounted.iterdir())


def test_head_and_workers_are_in_the_one_subnet_of_the_certificate() -> None:
    subnets = [node["node_config"]["SubnetIds"] for node in FILE["available_node_types"].values()]
    assert len(subnets) == 2 and subnets[0] == subnets[1] and len(subnets[0]) == 1
