"""From what names data on the command line to a table, and what else the options of several commands mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from chimera.core.errors import InputError, MissingExtra
from chimera.sandbox.datasets import NAMES, load, read_schema, read_table, windows
from chimera.sandbox.schema import Table

EXAMPLE = """columns:
  - {name: age, low: 0, high: 120, step: 1}
  - {name: amount, low: 0, high: 1000}
label: fraud
classes: ["no", "yes"]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where records come from, as it was given."""

    data: str
    schema: Path | None = None
    windows: int | None = None
    stride: int | None = None
    low: float | None = None
    high: float | None = None

    def read(self) -> Table:
        """Raises InputError that says what to do, and MissingExtra."""
        of_windows = {"--stride": self.stride, "--low": self.low, "--high": self.high}
        if self.windows is None and (given := [name for name, value in of_windows.items() if value is not None]):
            raise InputError(f"{given[0]} is for windows of a metric: say with --windows how long they are")
        if self.windows is not None:
            return self._metric(self.windows)
        path = Path(self.data)
        if self.data in NAMES and not path.exists():
            if self.schema is not None:
                raise InputError(f"{self.data} has a schema of its own: leave out --schema")
            return load(self.data)
        if not path.is_file():
            raise InputError(f"{self.data} is neither a file nor a data set: there are {', '.join(NAMES)}")
        if self.schema is None:
            raise InputError(
                f"say with --schema what the columns of {path} may hold (ranges are never read off the data), in a "
                f"YAML file such as\n{EXAMPLE}"
            )
        return read_table(path, read_schema(self.schema))

    def _metric(self, length: int) -> Table:
        if self.schema is not None:
            raise InputError("windows of a metric have no --schema: say --low and --high")
        if self.low is None or self.high is None:
            raise InputError("say with --low and --high what the metric can be at all: they are public")
        path = Path(self.data)
        if not path.is_file():
            raise InputError(f"{self.data} is no file with the columns timestamp and value")
        return windows(path, length=length, stride=self.stride or length, low=self.low, high=self.high)


def overlap_of(source: Source) -> str:
    """What epsilon does not cover where windows overlap; empty where they do not."""
    if source.windows is None or source.stride is None or source.stride >= source.windows:
        return ""
    times = -(-source.windows // source.stride)
    return (
        f"warning: windows of {source.windows} readings, {source.stride} apart, overlap: epsilon is for a window, and "
        f"each reading is in {times} of them: for a reading it is up to {times} times as much"
    )


def epsilon_of(text: str) -> float:
    """A positive number, or infinity for no privacy. Raises InputError."""
    if text.lower() in ("infinite", "infinity", "inf", "none"):
        return math.inf
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"--epsilon takes a number over 0, or `infinite` to train without privacy, not {text!r}")
    return value


def say_epsilon(epsilon: float, delta: float) -> str:
    """As `chimera.sandbox.model` says it, for commands that need no torch."""
    return f"epsilon {epsilon:.4g} at delta {delta:g}" if math.isfinite(epsilon) else "epsilon: infinite (not private)"


def warning_of(delta: float, records: int) -> str:
    """What is wrong with so large a delta; empty where nothing is."""
    if delta * records < 1.0:
        return ""
    return (
        f"warning: delta {delta:g} is not below 1 / {records} records: giving away a record whole would be within it; "
        "take a tenth of that or less"
    )


def needs_torch() -> None:
    """Raises MissingExtra where training would fail for want of a package."""
    for package in ("torch", "opacus"):
        if find_spec(package) is None:
            raise MissingExtra(package, "sandbox")


def new_folder(folder: Path) -> Path:
    """`folder`, made if it is not there, for its owner alone. Raises InputError where something is in it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not empty: name a new folder with --out")
        folder.chmod(0o700)
    except OSError as error:
        raise InputError(f"{folder} cannot be used with --out: {error.strerror}") from error
    return folder
