"""From the options of `chimera watch` to what they mean. What would stop the watch later is said before it begins."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from chimera.anomaly.forecast.warning import MAX_LIMITS, Limit, parse_limit
from chimera.anomaly.options import WatchOptions
from chimera.anomaly.sources.source import SourceOptions
from chimera.cli.arena import command
from chimera.core.errors import InputError, MissingExtra

LONGEST_S = 10 * 366 * 86_400.0

FILE, RAY = "a file", "--ray"

KINDS = ("prometheus", "scrape", "statsd", "otlp", "http")

MEANT_FOR = {
    "--query": ("prometheus",),
    "--history": ("prometheus",),
    "--interval": ("prometheus", "scrape", "statsd", RAY),
    "--token-env": ("prometheus", "scrape", "otlp", "http"),
}
"""The sources to which an option means something. One that is not here is for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one `chimera watch`, as they were given."""

    source: str | None
    metrics: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    interval_s: float | None = None
    history_s: float | None = None
    for_s: float | None = None
    detectors: tuple[str, ...] = ()
    plot: Path | None = None
    token_env: str | None = None
    on_ray: bool = False
    shards: int | None = None
    address: str | None = None
    as_json: bool = False

    def check(self) -> None:
        """Raise InputError or MissingExtra for options that contradict one another, or cannot be followed."""
        if self.on_ray == (self.source is not None):
            raise InputError(f"name one source to watch, or --ray{' instead of ' + self.source if self.source else ''}")
        self._check_meant()
        if self.for_s is not None and not (math.isfinite(self.for_s) and 0.0 < self.for_s <= LONGEST_S):
            raise InputError(f"--for takes seconds, over 0, not {self.for_s:g}")
        if self.plot is not None:
            check_picture(self.plot)
            if self.needs_ray:
                raise InputError("--plot draws what is detected in this process: leave out --shards and --ray")

    def _check_meant(self) -> None:
        """Raise InputError for an option that the source would ignore, and for the one that it cannot do without."""
        begin, colon, _ = (self.source or "").partition(":")
        kind = RAY if self.on_ray else begin if colon and begin in KINDS else FILE
        given = {
            "--query": self.queries or None,
            "--history": self.history_s,
            "--interval": self.interval_s,
            "--token-env": self.token_env,
        }
        for option, meant_for in MEANT_FOR.items():
            if given[option] is not None and kind not in meant_for:
                shown = ", ".join(each if each == RAY else f"{each}:" for each in meant_for)
                raise InputError(f"{option} is for {shown}, and means nothing to {kind}: leave it out")
        if self.address is not None and not self.needs_ray:
            raise InputError("--address is of Ray, for --ray and --shards, and means nothing here: leave it out")
        if kind == "prometheus" and not self.queries:
            raise InputError("say with --query what to ask Prometheus for, in PromQL: --query up, for example")

    @property
    def needs_ray(self) -> bool:
        return self.on_ray or self.shards is not None

    def source_options(self) -> SourceOptions:
        """Raises InputError."""
        given = {"interval_s": self.interval_s, "history_s": self.history_s, "token_env": self.token_env}
        with command.options():
            return SourceOptions.model_validate(
                {"metrics": self.metrics, "queries": self.queries}
                | {name: value for name, value in given.items() if value is not None}
            )

    def watch_options(self) -> WatchOptions:
        """Raises InputError."""
        with command.options():
            return WatchOptions(detectors=self.detectors)

    def parsed_limits(self) -> tuple[Limit, ...]:
        """Raises InputError."""
        if len(self.limits) > MAX_LIMITS:
            raise InputError(f"at most {MAX_LIMITS} limits, not {len(self.limits)}")
        return tuple(parse_limit(limit) for limit in self.limits)


def check_picture(path: Path) -> None:
    """Raise InputError or MissingExtra where no picture could be drawn into `path` later."""
    if path.suffix.lower() != ".png":
        raise InputError(f"a plot is a PNG file, and {path} does not end in .png")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} for the plot")
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} is there already, and is not overwritten: name another file for the plot")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"the plot cannot be written to {path.parent}: you may not write there")
    if find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "anomaly")
