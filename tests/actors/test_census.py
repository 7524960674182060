"""The fixed rule of a watch over Ray: who has died is told at once, with nothing learned."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from chimera.actors.vitals import Life, Vitals
from chimera.core.watching import AnomalyDetected, AnomalyKind, Reading
from chimera.system.ray_source import DIED, ENDED, Census


def vitals(*alive: tuple[str, str, int], restarting: tuple[tuple[str, str, int], ...] = (), nodes: str = "a") -> Vitals:
    return Vitals(
        {actor: Life(kind, restarts) for actor, kind, restarts in alive},
        {actor: Life(kind, restarts) for actor, kind, restarts in restarting},
        frozenset(nodes),
    )


def brief(facts: list[AnomalyDetected]) -> list[tuple[str, float, float, float]]:
    assert all(each.kind == AnomalyKind.DROP and each.since == each.timestamp for each in facts)
    return [(each.metric, each.expected, each.value, each.score) for each in facts]


def test_who_dies_is_told_once_at_once_and_by_how_it_came_about() -> None:
    asked: list[tuple[Collection[str], Collection[str]]] = []
    wanted = {"m", "n"}

    def called_for(actors: Collection[str], nodes: Collection[str]) -> bool:
        asked.append((actors, nodes))
        return {*actors, *nodes} <= wanted

    census = Census(called_for)
    cells, manager = (("1", "Cell", 0), ("2", "Cell", 0)), ("m", "Manager", 0)
    readings, facts = census.count(vitals(*cells, manager, nodes="ano"), 1.0)
    assert facts == [] and Reading('ray_actors_alive{class="Cell"}', 1.0, 2.0) in readings
    assert Reading("ray_nodes_alive", 1.0, 3.0) in readings
    assert census.count(vitals(*cells, ("3", "Cell", 0), manager, nodes="ano"), 2.0)[1] == [], (
        "who is born is no anomaly"
    )

    cell, restarts = 'ray_actors_alive{class="Cell"}', 'ray_actor_restarts_total{class="Cell"}'
    dying = vitals(cells[0], ("3", "Cell", 0), manager, restarting=(("2", "Cell", 1),), nodes="ano")
    readings, facts = census.count(dying, 3.0)
    assert brief(facts) == [(cell, 3.0, 2.0, DIED)]
    assert [(each.channel, each.distance, each.unit) for each in facts[0].evidence] == [("actors", 1.0, "actors")]
    assert Reading(restarts, 3.0, 1.0) in readings
    readings, facts = census.count(vitals(cells[0], ("2", "Cell", 1), ("3", "Cell", 0), manager, nodes="ano"), 4.0)
    assert facts == [] and Reading(restarts, 4.0, 1.0) in readings, "who comes back has been told of"

    quick = vitals(cells[0], ("2", "Cell", 2), ("3", "Cell", 0), nodes="ao")
    readings, facts = census.count(quick, 5.0)
    assert brief(facts) == [
        (cell, 3.0, 2.0, DIED),
        ('ray_actors_alive{class="Manager"}', 1.0, 0.0, ENDED),
        ("ray_nodes_alive", 3.0, 2.0, ENDED),
    ], "one that was back between two looks has died all the same"
    assert Reading(restarts, 5.0, 2.0) in readings
    assert Reading('ray_actors_alive{class="Manager"}', 5.0, 0.0) in readings
    assert brief(census.count(vitals(nodes="a"), 6.0)[1]) == [
        (cell, 3.0, 0.0, DIED),
        ("ray_nodes_alive", 2.0, 1.0, DIED),
    ]


def test_of_many_classes_the_rest_are_counted_together() -> None:
    census = Census(lambda actors, nodes: False)
    many = vitals(*((str(n), f"Class{n:03d}", 0) for n in range(100)))
    readings, _ = census.count(many, 1.0)
    readings, facts = census.count(vitals(), 2.0)
    assert len(facts) == 33 and facts[-1].metric == 'ray_actors_alive{class="other"}' and facts[-1].expected == 68.0
    assert len(readings) < 150


def test_who_died_while_nobody_could_say_why_is_told_at_the_next_look() -> None:
    away = [True]

    def called_for(actors: Collection[str], nodes: Collection[str]) -> bool:
        if away:
            away.pop()
            raise RuntimeError("the GCS is away")
        return False

    census = Census(called_for)
    census.count(vitals(("1", "Cell", 0), ("2", "Cell", 0)), 1.0)
    with pytest.raises(RuntimeError):
        census.count(vitals(("1", "Cell", 0), restarting=(("2", "Cell", 1),)), 2.0)
    back = vitals(("1", "Cell", 0), ("2", "Cell", 1))
    readings, facts = census.count(back, 3.0)
    assert brief(facts) == [('ray_actors_alive{class="Cell"}', 2.0, 1.0, DIED)]
    assert Reading('ray_actor_restarts_total{class="Cell"}', 3.0, 1.0) in readings
    assert census.count(back, 4.0)[1] == []
