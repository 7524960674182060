"""What a client of our own MCP server may ask: the arguments of its tools. Clients read the docstrings and fields."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from chimera.core.types import Frozen, Name

MAX_VALUES = 5_000
MAX_HORIZON = 500

Miner = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/=@,\-]{0,255}$")]
EnvId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}-v[0-9]{1,4}$")]


class RunMission(Frozen):
    """Have the swarm's agents work on a goal and agree on an answer, with quotes where it is about documents."""

    goal: Annotated[
        str, Field(min_length=1, max_length=20_000, description="the question or task, in a sentence or two")
    ]
    documents: Annotated[
        str | None,
        Field(
            min_length=1, max_length=1_024, description="a folder below the one that is shared; all of it unless given"
        ),
    ] = None
    budget_usd: Annotated[
        float | None, Field(ge=0.0, le=1_000.0, allow_inf_nan=False, description="the most that it may spend, in USD")
    ] = None
    deadline_s: Annotated[float, Field(gt=0.0, le=3_600.0, description="seconds that it may take")] = 60.0


class MissionStatus(Frozen):
    """How a mission stands, and its result once it has ended."""

    mission_id: Annotated[Name, Field(description="as run_mission gave it")]
    wait_s: Annotated[float, Field(ge=0.0, le=30.0, description="seconds to wait for its end")] = 0.0


class AskDuel(Frozen):
    """Hold a duel: two miners reply to the same challenges of an environment, until one is shown to be better."""

    champion: Annotated[Miner, Field(description="the miner to beat, such as random, minimax or oracle:p=0.7")]
    contender: Annotated[Miner, Field(description="the miner that wants its place")]
    env_ids: Annotated[tuple[EnvId, ...], Field(min_length=1, max_length=8, description="the environments")]
    samples: Annotated[int, Field(ge=1, le=1_000, description="challenges in each environment, at most")] = 200
    seed: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$", description="deals the challenges")] = "0"


class WatchMetric(Frozen):
    """Anomalies in a series of values, oldest first, or in a metric that the server watches; and a forecast of it."""

    metric: Annotated[
        str | None, Field(min_length=1, max_length=512, description="the name of a metric that is watched")
    ] = None
    values: Annotated[
        tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None,
        Field(min_length=1, max_length=MAX_VALUES, description="the series itself, instead of a name"),
    ] = None
    interval_s: Annotated[float, Field(gt=0.0, le=86_400.0, description="seconds between two values")] = 60.0
    horizon: Annotated[int, Field(ge=0, le=MAX_HORIZON, description="values to forecast")] = 0

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.metric is None) == (self.values is None):
            raise ValueError("give either metric, the name of one that is watched, or values")
        return self
