"""Unit tests start no Ray: whoever reaches `ray.init`, also through a first `.remote()`, is told so at once.

Hypothesis draws the same examples in every run and has no deadline, so that no result depends on chance or load.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NoReturn

import pytest
from hypothesis import settings

settings.register_profile("chimera", deadline=None, derandomize=True)
settings.load_profile("chimera")


class RayStarted(BaseException):
    """A unit test reached `ray.init`. Not an Exception, so that no `except Exception` in the code hides it."""


def _refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise RayStarted("a unit test must not start Ray: move it to tests/cluster and mark it `cluster`")


class _PatchOnImport(MetaPathFinder):
    """Lets `import ray` go its way and replaces `init` once the module has run, so that nothing is imported for it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == "ray" else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            run(module)
            self._patch.setattr(module, "init", _refuse)

        spec.loader.exec_module = run_and_patch  # type: ignore[method-assign]
        return spec


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if "ray" in sys.modules:
        monkeypatch.setattr(sys.modules["ray"], "init", _refuse)
        yield
        return
    finder = _PatchOnImport(monkeypatch)
    sys.meta_path.insert(0, finder)
    yield
    sys.meta_path.remove(finder)
