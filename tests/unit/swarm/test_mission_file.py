"""Mission documents: what is read, what is refused, and how the mistake is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chimera.core.errors import MissionError
from chimera.core.types import AgentSpec, Consensus, Isolation
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.mission import Mission
from chimera.swarm.mission_file import MAX_FILE_BYTES, load_mission, parse_json, parse_mission, parse_yaml

EXAMPLES = Path(__file__).parents[3] / "examples" / "missions"


@pytest.mark.parametrize("name", ["datasets.yaml", "graph.yaml"])
def test_the_examples_are_missions_with_a_graph(name: str) -> None:
    TaskDecomposer().decompose(load_mission(EXAMPLES / name))


def test_the_graph_example_is_a_diamond_without_its_top() -> None:
    mission = load_mission(EXAMPLES / "graph.yaml")
    graph = TaskDecomposer().decompose(mission)
    assert graph.dependents("greet-ada") == graph.dependents("greet-alan") == ("goodbye",)
    assert graph.node("greet-alan").task.consensus is Consensus.UNANIMOUS
    assert graph.node("greet-ada").task.consensus is Consensus.MAJORITY
    [spawn] = mission.spawn
    assert spawn.specs() == [AgentSpec(role="worker", policy="chimera.swarm.roles:echo")] * 6


def test_defaults() -> None:
    assert parse_mission({"goal": "g"}) == Mission(goal="g")
    mission = Mission(goal="g")
    assert (mission.replicas, mission.consensus, mission.model) == (3, Consensus.WEIGHTED, "offline")
    assert (mission.limits.deadline_s, mission.limits.max_attempts) == (60.0, 3)


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json", ".JSON"])
def test_a_file_in_each_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mission{suffix}"
    spawn = {"policy": "a:b", "isolation": "dedicated", "options": {"x": [1, None]}}
    path.write_text(json.dumps({"goal": "é?", "replicas": 5, "limits": {"deadline_s": 7}, "spawn": [spawn]}), "utf-8")
    mission = load_mission(path)
    assert (mission.goal, mission.replicas, mission.limits.deadline_s) == ("é?", 5, 7.0)
    assert mission.spawn[0].isolation is Isolation.DEDICATED
    assert parse_mission(mission.model_dump(mode="json")) == mission


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"replicas": 0}, "replicas: must be at least 1 (got 0)"),
        ({"replicas": 65}, "replicas: must be at most 64 (got 65)"),
        ({"replicas": "3"}, 'replicas: must be a whole number (got "3")'),
        ({"replicas": True}, "replicas: must be a whole number (got true)"),
        ({"goal": None}, "goal: must be text (got nothing)"),
        ({"goal": ""}, 'goal: string should have at least 1 character (got "")'),
        ({"goal": "x" * 20_001}, "goal: string should have at most 20000 characters"),
        ({"consensus": "vote"}, "consensus: must be 'majority', 'weighted', 'unanimous' or 'quorum' (got \"vote\")"),
        ({"threshold": 0.5}, "threshold: only for quorum consensus"),
        ({"consensus": "quorum", "threshold": 0}, "threshold: must be more than 0 (got 0)"),
        ({"output": "x"}, "output: only with tasks"),
        ({"replica": 3}, "replica: unknown field; did you mean 'replicas'?"),
        ({"zzz": 3}, "zzz: unknown field"),
        ({"limits": {"deadline": 3}}, "limits.deadline: unknown field; did you mean 'deadline_s'?"),
        ({"limits": {"deadline_s": 100_000}}, "limits.deadline_s: must be at most 86400 (got 100000)"),
        ({"limits": [1]}, "limits: must be a mapping (got a list)"),
        ({"tasks": [{"id": "a", "goal": "g"}, {"id": "b"}]}, "tasks[1].goal: is required"),
        ({"tasks": [{"id": "a", "goal": "g", "need": "x"}]}, "tasks[0].need: unknown field; did you mean 'needs'?"),
        ({"tasks": [{"id": "a", "goal": "g", "threshold": 0.5}]}, "tasks[0].threshold: only for quorum consensus"),
        ({"tasks": [{"id": "a[0]", "goal": "g"}]}, "tasks[0].id: string should match pattern"),
        (
            {"tasks": [{"id": "a", "goal": "g", "equality": {"kin": "text"}}]},
            "tasks[0].equality.kin: unknown field; did you mean 'kind'?",
        ),
        ({"spawn": [{"policy": "a:b", "count": 0}]}, "spawn[0].count: must be at least 1 (got 0)"),
        ({"spawn": [{"policy": "a:b", "count": 600_000}] * 2}, "spawn: more than 1000000 agents in all"),
        ({"spawn": [{"policy": "a:b", "options": {"x": [b"bytes"]}}]}, "spawn[0].options.x[0]: must be text, a number"),
        ({"agents": float("nan")}, "a value has no JSON form"),
        ({"goal": "\ud800"}, "a value has no JSON form"),
        ({1: 2}, "1: the name of a field must be text"),
    ],
)
def test_the_field_at_fault_is_named(fields: dict[object, object], says: str) -> None:
    with pytest.raises(MissionError) as refusal:
        parse_mission({"goal": "g", **fields})
    assert str(refusal.value).startswith(says)
    assert "\n" not in str(refusal.value)


def test_every_fault_is_named_up_to_a_limit() -> None:
    with pytest.raises(MissionError) as refusal:
        parse_mission({"goal": 1, "replicas": 0})
    assert str(refusal.value).splitlines() == [
        "goal: must be text (got 1)",
        "replicas: must be at least 1 (got 0)",
    ]
    with pytest.raises(MissionError) as refusal:
        parse_mission({"goal": "g", **{f"x{n}": n for n in range(50)}})
    lines = str(refusal.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 40 more"


@pytest.mark.parametrize("document", [None, [], "goal", 3])
def test_a_document_is_a_mapping(document: object) -> None:
    with pytest.raises(MissionError, match="a mission is a mapping"):
        parse_mission(document)


BILLION = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BILLION, "more than 100000 values"),
        (f"goal: &a {'x' * 50_000}\ntasks: [{'*a, ' * 100}]", "more than 4000000 characters"),
        ("goal: &a [*a]", "nested more than 50 deep"),
        ("goal: " + "[" * 60 + "]" * 60, "nested more than 50 deep"),
        ("[" * 5_000, "nested too deeply"),
        ("goal: a\nreplicas: 1\ngoal: b", r"goal: stands there twice \(line 3\)"),
        ("goal: a\nlimits: {max_attempts: 1, max_attempts: 2}", "max_attempts: stands there twice"),
        ("limits: &a {max_attempts: 1}\nspawn: [{<<: *a}]", "merge keys"),
        ("goal: !!python/object/apply:os.getcwd []", "not YAML"),
        ("goal: 2024-01-01", r"goal: must be text, a number.*\(got date\)"),
        ("goal: yes", r"goal: must be text \(got true\)"),
        ("goal: a\n---\ngoal: b", "not YAML"),
        ("goal: [", "not YAML"),
        ("goal: a\0", "not YAML"),
        ("replicas: " + "9" * 5_000, "not YAML"),
        ("? [a]\n: b", "not YAML"),
    ],
)
def test_yaml_that_is_refused(text: str, says: str) -> None:
    with pytest.raises(MissionError, match=says):
        parse_mission(parse_yaml(text))


def test_a_few_aliases_are_fine() -> None:
    text = "goal: g\nspawn:\n  - &echo {policy: 'a:b', options: {x: 1}}\n  - *echo\n"
    mission = parse_mission(parse_yaml(text))
    assert mission.spawn[0] == mission.spawn[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"goal": "a", "goal": "b"}', "goal: stands there twice"),
        ("{", "not JSON"),
        ('{"goal": "g", "agents": NaN}', "no JSON form"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_is_refused(text: str, says: str) -> None:
    with pytest.raises(MissionError, match=says):
        parse_mission(parse_json(text))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.toml", b"goal = 1", "ends in .yaml, .yml or .json"),
        ("m.yaml", b"goal: g\n#" + b"x" * MAX_FILE_BYTES, "larger than 1000000 bytes"),
        ("m.yaml", b"goal: \xff", "not UTF-8"),
        ("m.yaml", b"goal: g\nreplicas: 0", "replicas: must be at least 1"),
    ],
)
def test_a_file_that_is_refused_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MissionError, match=says) as refusal:
        load_mission(path)
    assert str(refusal.value).startswith(f"{path}: ")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissionError, match="No such file"):
        load_mission(tmp_path / "m.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(MissionError, match="directory"):
        load_mission(tmp_path / "folder.yaml")


def test_a_byte_order_mark_is_no_part_of_the_mission(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"goal": "g"}', encoding="utf-8-sig")
    assert load_mission(path).goal == "g"
