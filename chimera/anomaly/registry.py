"""Which detectors there are: those that ship, those of installed packages, those that a program registers.

A package adds one with an entry point in the group `chimera.detectors`, named as the detector calls itself:

    [project.entry-points."chimera.detectors"]
    "half_space" = "my_package.trees:HalfSpaceDetector"

A package is imported when its detector is asked for, so one that is broken hides no other. Prove yours with
`chimera.anomaly.checks.check_detector`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module, metadata
from typing import Any

from chimera.anomaly.checks import Kind
from chimera.anomaly.detectors.base import Detector
from chimera.core.errors import DetectorError

GROUP = "chimera.detectors"

MAX_DETECTORS = 1_000

BUILT_IN = {
    "forest": "chimera.anomaly.detectors.forest:IsolationForestDetector",
    "moving_average": "chimera.anomaly.detectors.moving_average:MovingAverageDetector",
    "statistical": "chimera.anomaly.detectors.statistical:StatisticalDetector",
}
"""Where the detectors are that ship."""


class Registry:
    """Detectors by name. A name has one meaning: the second to claim it is refused, and no package can take ours."""

    def __init__(self, plugins: Iterable[metadata.EntryPoint] = ()) -> None:
        self._where = dict(BUILT_IN)
        self._loaded: dict[str, Kind] = {}
        self._refused: dict[str, str] = {}
        claims: dict[str, set[tuple[str, str]]] = {}
        for plugin in plugins:
            package = f"package {plugin.dist.name}" if plugin.dist else plugin.value
            claims.setdefault(plugin.name, set()).add((package, plugin.value))
        for name in sorted(claims):
            self._admit(name, sorted(claims[name]))

    def detector(self, name: str) -> Kind:
        """What makes the detector of this name. Raises DetectorError where there is none, or its package is broken."""
        if name not in self._loaded:
            if name not in self._where:
                known = f"no detector is called {name!r}; there are {', '.join(self.detectors())}"
                raise DetectorError(self._refused.get(name, known))
            kind = find(self._where[name])
            _called(kind, name)
            self._loaded[name] = kind
        return self._loaded[name]

    def detectors(self) -> list[str]:
        """The names, sorted. Nothing is imported for it, so a detector among them may turn out to be broken."""
        return sorted(self._where)

    def refused(self) -> dict[str, str]:
        """Which names are claimed in vain, and why. One that ships is no worse for it."""
        return dict(self._refused)

    def register(self, name: str, kind: Kind) -> None:
        """Add a detector to this process. The same again is fine, another is refused.

        Other processes, such as Ray's workers, know only what is installed: make it an entry point for them.
        """
        if self._loaded.get(name, None if name in self._where else kind) is not kind:
            raise DetectorError(f"a detector is called {name} already: give this one another name")
        if len(self._where) >= MAX_DETECTORS:
            raise DetectorError(f"there are {MAX_DETECTORS} detectors already")
        _called(kind, name)
        self._where[name] = f"{getattr(kind, '__module__', '')}:{getattr(kind, '__qualname__', kind)}"
        self._loaded[name] = kind

    def _admit(self, name: str, claims: list[tuple[str, str]]) -> None:
        """Take in an entry point, or note why not."""
        packages = " and ".join(package for package, _ in claims)
        if name in BUILT_IN:
            self._refused[name] = f"{name} ships with chimera: the one of {packages} is not used"
        elif len(claims) > 1:
            self._refused[name] = f"{name} is claimed by {packages}: uninstall all but one"
        elif len(self._where) >= MAX_DETECTORS:
            self._refused[name] = f"{packages}: there are {MAX_DETECTORS} detectors already"
        else:
            self._where[name] = claims[0][1]


def find(where: str) -> Kind:
    """The detector at `module:name`, registered or not. Raises DetectorError when there is none that can be used."""
    module, _, name = where.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        _made(found)
    except (Exception, SystemExit) as error:  # whatever a package raises when it is imported
        raise DetectorError(f"{where} cannot be used: {type(error).__name__}: {error}") from error
    return found  # type: ignore[no-any-return] # it has just made a detector


def _called(kind: Kind, name: str) -> None:
    called = _made(kind).name
    if called != name or not name.isidentifier():
        raise DetectorError(f"{kind!r} is meant to be {name!r}, and calls itself {called!r}; a name is one word")


def _made(kind: Any) -> Detector:
    made = kind(1)
    if not isinstance(made, Detector):
        raise DetectorError(f"{kind!r} makes no Detector: it lacks an attribute or a method of one")
    return made


_registry = Registry(metadata.entry_points(group=GROUP))

detector = _registry.detector
detectors = _registry.detectors
refused = _registry.refused
register = _registry.register
