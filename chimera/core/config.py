"""Settings, read once at the edge and handed down. Every field is an environment variable `CHIMERA_<NAME>`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """How a Chimera runs. Pickles, and is what actors are given instead of open connections."""

    model_config = SettingsConfigDict(env_prefix="CHIMERA_", frozen=True, extra="ignore")

    home: Path = Field(
        default_factory=lambda: Path.home() / ".local" / "state" / "chimera",
        description="Where the embedded stores live.",
    )
    address: str = Field(
        default="auto",
        description="auto (join a cluster if one runs here, else start one), local, HOST:PORT or ray://HOST:PORT.",
    )
    journal_url: str = Field(
        default="",
        repr=False,
        description="sqlite:///PATH, redis://, postgresql:// or memory://; empty is a SQLite file in `home`.",
    )
    state_url: str = Field(
        default="",
        repr=False,
        description="Agents' memory: sqlite:///PATH, redis:// or memory://; empty is a SQLite file on the head node.",
    )
    model: str = Field(
        default="offline",
        description="offline, openai:MODEL, anthropic:MODEL, local:MODEL or another of docs/models.md.",
    )
    cells: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="Cell processes; 0 is one per CPU, at most 8."
    )
    max_cells: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=0, description="Cells that a busy swarm may grow to by Ray's autoscaler; 0 does not grow."
    )
    scale_down_s: Annotated[float, Field(ge=1, le=86_400)] = Field(
        default=60.0, description="Seconds of low load after which cells are given back."
    )
    cells_per_manager: Annotated[int, Field(ge=1)] = Field(default=8, description="Cells that one manager looks after.")
    max_agents: Annotated[int, Field(ge=1, le=1_000_000)] = Field(default=10_000, description="Agents in one swarm.")
    max_missions: Annotated[int, Field(ge=1, le=13_000)] = Field(
        default=1_000, description="Missions running at once. Low priorities are refused at two thirds of it."
    )
    max_waiting: Annotated[int, Field(ge=1)] = Field(
        default=100_000, description="Attempts that wait for a free agent, in one manager."
    )
    max_nodes: Annotated[int, Field(ge=1)] = Field(default=10_000, description="Tasks in one mission's graph.")
    max_reply_bytes: Annotated[int, Field(ge=1_024)] = Field(default=1_000_000, description="JSON bytes in one reply.")
    shard_bytes: Annotated[int, Field(ge=1_024)] = Field(
        default=256_000, description="Document bytes in one extraction task."
    )
    index_cache_bytes: Annotated[int, Field(ge=0)] = Field(
        default=128_000_000, description="Indexed documents kept by a cell."
    )
    max_dedicated: Annotated[int, Field(ge=0)] = Field(
        default=64, description="Agents with a process of their own in one swarm; each costs about 90 MB."
    )
    spawn_timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=120.0, description="A cell that has not started and loaded its agents by then is an error."
    )
    treasury_fund: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_.\-:/]{0,95})?$",
        description="The treasury's fund that pays for missions' models; empty: their costs are in no ledger.",
    )
    stall_s: Annotated[float, Field(gt=0)] = Field(
        default=15.0, description="A cell or manager silent for this long is restarted."
    )
    orphan_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="A cell or manager that nobody has asked for this long ends itself."
    )

    @field_validator("home")
    @classmethod
    def _expand(cls, home: Path) -> Path:
        return home.expanduser()

    @property
    def state(self) -> str:
        """The URL of the agents' memory, with the default filled in."""
        return self.state_url or f"sqlite:///{self.home / 'state.db'}"

    @property
    def journal(self) -> str:
        """The journal's URL, with the default filled in."""
        return self.journal_url or f"sqlite:///{self.home / 'journal.db'}"
