"""ray_cluster.yaml is a cluster that Ray's own launcher accepts, and it speaks of the resources that the code uses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]


def load() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    return loaded


def launch(config: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` does with a file before it calls the cloud: defaults merged in, then Ray's schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


@pytest.fixture(scope="module")
def prepared() -> dict[str, Any]:
    return launch(load())


def test_ray_refuses_what_is_wrong() -> None:
    with pytest.raises(jsonschema.ValidationError):
        launch({**load(), "worker_count": 3})
    with pytest.raises(ValueError, match="head_node_type"):
        launch({**load(), "head_node_type": "no such type"})


def test_the_head_stands_alone_and_the_workers_scale(prepared: dict[str, Any]) -> None:
    nodes = prepared["available_node_types"]
    assert nodes[prepared["head_node_type"]]["max_workers"] == 0
    workers = [node for name, node in nodes.items() if name != prepared["head_node_type"]]
    assert workers
    for worker in workers:
        assert 0 <= worker["min_workers"] < worker["max_workers"] <= prepared["max_workers"]
    assert prepared["idle_timeout_minutes"] > 0


def test_resources_are_those_that_the_code_asks_for(prepared: dict[str, Any]) -> None:
    from chimera.actors.cluster import CELL_RESOURCE

    for node in prepared["available_node_types"].values():
        assert set(node["resources"]) == {"CPU", CELL_RESOURCE}
        assert 1 <= node["resources"][CELL_RESOURCE] <= node["resources"]["CPU"]


@pytest.mark.parametrize("role", ["head", "worker"])
def test_no_node_starts_open(prepared: dict[str, Any], role: str) -> None:
    (start,) = (command for command in prepared[f"{role}_start_ray_commands"] if "ray start" in command)
    assert "RAY_AUTH_MODE=token" in start.partition("ray start")[0].split()
    environment = {option.removeprefix("-e ") for option in prepared["docker"]["run_options"]}
    (path,) = (variable for variable in environment if variable.startswith("RAY_AUTH_TOKEN_PATH="))
    assert path.partition("=")[2] in prepared["file_mounts"]
    assert "RAY_AUTH_MODE=token" in environment


def test_the_dashboard_listens_on_loopback_only(prepared: dict[str, Any]) -> None:
    hosts = re.findall(r"--dashboard-host[= ](\S+)", " ".join(prepared["head_start_ray_commands"]))
    assert hosts == ["127.0.0.1"]


def test_image_and_pins_are_the_projects(prepared: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (ray,) = (name.partition("==")[2] for name in project["dependencies"] if name.startswith("ray["))
    python = project["requires-python"].partition(",")[0].removeprefix(">=").replace(".", "")
    assert prepared["docker"]["image"] == f"rayproject/ray:{ray}-py{python}"
    assert prepared["file_mounts"]["/home/ray/dist"] == "./dist"
    assert any("-c ~/dist/constraints.txt ~/dist/chimera-" in command for command in prepared["setup_commands"])
