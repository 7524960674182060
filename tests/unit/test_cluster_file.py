"""The cluster files are ones that Ray itself accepts, and both speak of the resources that the code uses."""

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


KUBERAY = ROOT / "deploy" / "kuberay.yaml"

KUBERAY_FIELDS = {
    "spec": "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
    "headServiceAnnotations managedBy rayVersion suspend upgradeStrategy workerGroupSpecs",
    "authOptions": "enableK8sTokenAuth mode secretName",
    "autoscalerOptions": "env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext upscalingMode "
    "version volumeMounts",
    "gcsFaultToleranceOptions": "externalStorageNamespace redisAddress redisPassword redisUsername",
    "headGroupSpec": "enableIngress headService labels rayStartParams resources serviceType template",
    "workerGroupSpecs": "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts rayStartParams "
    "replicas resources scaleStrategy suspend template",
}
"""The fields of a RayCluster as of KubeRay 1.6.2 (its docs/reference/api.md). Kubernetes refuses or drops any other."""


def kubernetes(*, redis: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """The RayCluster and the NetworkPolicy, with or without the optional lines."""
    text = KUBERAY.read_text()
    if redis:
        text, count = re.subn(r"^  # (?=gcsFault|  )", "  ", text, flags=re.MULTILINE)
        assert count == 5
    cluster, policy = yaml.safe_load_all(text)
    return cluster, policy


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("redis", [False, True])
def test_kuberay_knows_every_field(redis: bool) -> None:
    cluster, _ = kubernetes(redis=redis)
    spec = cluster["spec"]
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert ("gcsFaultToleranceOptions" in spec) == redis
    for name, fields in KUBERAY_FIELDS.items():
        found = spec if name == "spec" else spec.get(name, {})
        for part in found if isinstance(found, list) else [found]:
            assert set(part) <= set(fields.split()), name


def test_on_kubernetes_the_autoscaler_reads_the_same_resources(prepared: dict[str, Any]) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster, _ = kubernetes()
    cluster["metadata"]["namespace"] = "default"
    derived = _derive_autoscaling_config_from_ray_cr(cluster)
    theirs, ours = derived["available_node_types"], prepared["available_node_types"]
    for name, same in (("head", derived["head_node_type"]), ("worker", "worker")):
        assert theirs[same]["resources"].pop("memory") > 0
        assert theirs[same]["resources"] == ours[name]["resources"]
        assert theirs[same]["max_workers"] == ours[name]["max_workers"]
    assert derived["idle_timeout_minutes"] == prepared["idle_timeout_minutes"]
    assert cluster["spec"]["enableInTreeAutoscaling"] is True
    assert cluster["spec"]["autoscalerOptions"]["version"] == "v2"


def test_on_kubernetes_no_pod_is_open_or_privileged_or_without_limits() -> None:
    cluster, policy = kubernetes()
    assert cluster["spec"]["authOptions"] == {"mode": "token", "secretName": "chimera-token"}
    assert "Secret" not in KUBERAY.read_text().split(), "the token is not kept in a file"
    for pod in pods(cluster):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert set(container["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}
    assert policy["kind"] == "NetworkPolicy" and policy["spec"]["policyTypes"] == ["Ingress"]
    ours = {"matchLabels": {"ray.io/cluster": cluster["metadata"]["name"]}}
    assert policy["spec"]["podSelector"] == ours
    (anywhere,) = (rule for rule in policy["spec"]["ingress"] if "ports" not in rule)
    assert anywhere == {"from": [{"podSelector": ours}]}


def test_both_heads_look_after_their_nodes_alike(prepared: dict[str, Any]) -> None:
    cluster, _ = kubernetes()
    head, worker = ({one["name"]: one["value"] for one in pod["containers"][0]["env"]} for pod in pods(cluster))
    for environment, role in ((head, "head"), (worker, "worker")):
        command = " ".join(prepared[f"{role}_start_ray_commands"])
        said = dict(re.findall(r"(RAY_health_\w+|RAY_gcs_rpc\w+)=(\d+)", command))
        assert said and said == {name: value for name, value in environment.items() if name.startswith("RAY_")}


def test_the_image_is_built_on_rays() -> None:
    base = re.findall(r"^FROM (\S+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    assert base == [load()["docker"]["image"]]
    cluster, _ = kubernetes()
    assert base[0].startswith(f"rayproject/ray:{cluster['spec']['rayVersion']}-")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {container["image"] for pod in pods(cluster) for container in pod["containers"]} == {
        f"REGISTRY/chimera:{version}"
    }
