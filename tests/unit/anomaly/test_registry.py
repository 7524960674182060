"""Which detectors there are."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from chimera.anomaly.detectors.moving_average import MovingAverageDetector
from chimera.anomaly.registry import BUILT_IN, GROUP, Registry
from chimera.core.errors import DetectorError


class Mine(MovingAverageDetector):
    name = "mine"


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed module that holds a detector, and things that are none."""
    module = ModuleType("some_package")
    module.Mine = Mine  # type: ignore[attr-defined]
    module.number = 5  # type: ignore[attr-defined]
    module.dictionary = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_package", module)
    return "some_package"


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


def test_those_that_ship_are_there() -> None:
    registry = Registry()
    assert registry.detectors() == sorted(BUILT_IN)
    for name in BUILT_IN:
        assert registry.detector(name)(3).name == name


def test_a_package_adds_one(package: str) -> None:
    registry = Registry([point("mine", f"{package}:Mine")])
    assert registry.detector("mine") is Mine
    assert "mine" in registry.detectors()


def test_no_package_takes_ours_nor_anothers(package: str) -> None:
    registry = Registry([point("forest", f"{package}:Mine"), point("x", "a:B"), point("x", "c:D")])
    assert registry.detector("forest")(1).name == "forest"
    assert set(registry.refused()) == {"forest", "x"}
    with pytest.raises(DetectorError, match="uninstall all but one"):
        registry.detector("x")


@pytest.mark.parametrize(
    "value", ["no_such_module:X", "some_package:Nobody", "some_package:number", "some_package:dictionary"]
)
def test_what_cannot_be_used_says_so_when_it_is_asked_for(package: str, value: str) -> None:
    registry = Registry([point("mine", value)])
    with pytest.raises(DetectorError, match="cannot be used"):
        registry.detector("mine")


def test_one_that_calls_itself_otherwise_is_refused(package: str) -> None:
    with pytest.raises(DetectorError, match="calls itself 'mine'"):
        Registry([point("yours", f"{package}:Mine")]).detector("yours")


def test_a_program_registers_its_own_once() -> None:
    registry = Registry()
    registry.register("mine", Mine)
    registry.register("mine", Mine)
    assert registry.detector("mine") is Mine
    with pytest.raises(DetectorError, match="is called mine already"):
        registry.register("mine", MovingAverageDetector)
    with pytest.raises(DetectorError, match="is called forest already"):
        registry.register("forest", Mine)


def test_an_unknown_one_is_told_what_there_is() -> None:
    with pytest.raises(DetectorError, match="there are forest, moving_average, statistical"):
        Registry().detector("nobody")
