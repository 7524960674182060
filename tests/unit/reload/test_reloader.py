"""Versions of modules side by side: whole before they are seen, switched by a pointer, and back."""

from __future__ import annotations

import importlib
import inspect
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import ReloadError
from chimera.reload.held import Held
from chimera.reload.reloader import MAX_PREPARED, ModuleReloader


class Project:
    """A folder on `sys.path` with modules."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reloader = ModuleReloader(clock=ManualClock(), limit_s=2.0)

    def write(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
        return file

    def load(self, module: str, text: str | None = None) -> None:
        self.reloader.commit(self.reloader.prepare(module, text if text is None else dedent(text)))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Project(tmp_path)
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_version_is_seen_when_it_is_committed_and_old_objects_stay_on_theirs(project: Project) -> None:
    project.write("shop.py", "class Cart: size = 1\ndef price(): return 1\n")
    old = importlib.import_module("shop")
    cart, price = old.Cart(), old.price
    project.write("shop.py", "class Cart: size = 2\ndef price(): return 2\n")
    prepared = project.reloader.prepare("shop")
    assert sys.modules["shop"] is old and prepared.module.price() == 2
    version = project.reloader.commit(prepared)
    assert (version.version, version.path) == (2, str(project.folder / "shop.py"))
    assert importlib.import_module("shop").price() == 2
    assert price() == 1 and cart.size == 1 and isinstance(cart, old.Cart)
    assert [one.version for one in project.reloader.versions("shop")] == [1, 2]
    assert "price(): return 2" in inspect.getsource(prepared.module)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def f(:\n", "line 1"),
        ("x = 1\nraise KeyError('k')\n", "line 2: KeyError"),
        ("import sys\nsys.exit(3)\n", "SystemExit"),
        ("def __smoke__():\n    assert 1 == 2, 'sum'\n", "AssertionError: sum"),
        ("def __smoke__(): return False\n", "says False"),
        ("async def __smoke__(): pass\n", "coroutine"),
        ("x = 0\nwhile True:\n    x += 1\n", "more than 0.3 s"),
        ("while True:\n    try:\n        while True: pass\n    except Exception: pass\n", "more than 0.3 s"),
        ("x = '\0'\n", "null"),
        ("#" * (1 << 20) + "\n", "larger than"),
    ],
)
def test_whatever_is_wrong_the_old_version_stays(project: Project, text: str, says: str) -> None:
    project.reloader = ModuleReloader(clock=ManualClock(), limit_s=0.3)
    project.load("shop", "value = 1\n")
    old = sys.modules["shop"]
    with pytest.raises(ReloadError, match=says):
        project.reloader.prepare("shop", text)
    assert sys.modules["shop"] is old and project.reloader.module("shop") is old
    assert project.reloader.current("shop").version == 1 and vars(old)["value"] == 1
    project.load("shop", "value = 2\n")
    assert project.reloader.module("shop").value == 2


def test_a_first_version_that_fails_leaves_no_name(project: Project) -> None:
    with pytest.raises(ReloadError, match="ZeroDivisionError"):
        project.reloader.prepare("shop", "1 / 0\n")
    assert "shop" not in sys.modules
    with pytest.raises(ReloadError, match="has not been loaded"):
        project.reloader.module("shop")


def test_other_threads_see_the_old_version_while_the_new_one_runs(project: Project) -> None:
    project.load("shop", "value = 1\n")
    inside, seen, go_on = threading.Event(), [], threading.Event()
    sys.modules["gate"] = type(sys)("gate")
    vars(sys.modules["gate"]).update(inside=inside, go_on=go_on)
    slow = "import gate, sys\nvalue = 2\nmine = sys.modules[__name__].value\ngate.inside.set()\ngate.go_on.wait(20)\n"

    def look() -> None:
        inside.wait(20)
        seen.append((importlib.import_module("shop").value, sys.modules["shop"].__dict__["value"]))
        go_on.set()

    thread = threading.Thread(target=look)
    thread.start()
    project.reloader = ModuleReloader(clock=ManualClock(), limit_s=30.0)
    prepared = project.reloader.prepare("shop", slow)
    thread.join()
    assert seen == [(1, 1)] and prepared.module.mine == 2


def test_models_of_a_new_version_are_made_of_its_own_classes(project: Project) -> None:
    text = """
        from __future__ import annotations
        from dataclasses import dataclass
        from typing import ClassVar
        from pydantic import BaseModel
        class Item(BaseModel):
            name: str
        class Cart(BaseModel):
            items: list[Item]
        @dataclass
        class Box:
            size: ClassVar[int] = 3
        def __smoke__():
            assert Cart(items=[Item(name="a")]).items[0].name == "a"
    """
    for _ in range(2):
        project.load("shop", text)
        shop = project.reloader.module("shop")
        assert type(shop.Cart.model_validate({"items": [{"name": "a"}]}).items[0]) is shop.Item
        assert not shop.Box.__dataclass_fields__["size"].init or shop.Box() == shop.Box()


def test_packages_relative_imports_and_submodules(project: Project) -> None:
    project.write("store/__init__.py", "from . import prices\nlevel = 1\n")
    project.write("store/prices.py", "from .rates import rate\ndef price(): return 10 * rate\n")
    project.write("store/rates.py", "rate = 1\n")
    store = importlib.import_module("store")
    project.write("store/rates.py", "rate = 2\n")
    project.load("store.rates")
    project.load("store.prices")
    assert store.prices.price() == 20
    project.write("store/__init__.py", "from . import prices\nlevel = 2\n")
    project.load("store")
    new = importlib.import_module("store")
    assert new is not store and new.level == 2 and new.prices.price() == 20 and new.rates.rate == 2
    assert new.__path__ == store.__path__ and new.__package__ == "store"


def test_circular_imports_see_the_new_version_and_go_with_it_if_it_is_given_up(project: Project) -> None:
    project.load("shop", "def price(): return 1\n")
    project.write("till.py", "import shop\nfrom shop import price\ndef pay(): return shop.price() + price()\n")
    circular = "def price(): return 2\nimport till\n"
    prepared = project.reloader.prepare("shop", circular)
    project.reloader.abort(prepared)
    project.reloader.abort(prepared)
    assert "till" not in sys.modules
    project.load("shop", circular)
    assert importlib.import_module("till").pay() == 4
    with pytest.raises(ReloadError, match="before"):
        project.reloader.commit(prepared)


def test_a_module_with_getattr(project: Project) -> None:
    project.load("shop", "def __getattr__(name):\n    return f'lazy {name}'\n")
    project.load("shop", "def __getattr__(name):\n    if name == 'a': return 2\n    raise AttributeError(name)\n")
    assert project.reloader.module("shop").a == 2
    assert project.reloader.roll_back("shop").version == 1 and project.reloader.module("shop").b == "lazy b"


def test_threads_end_with_their_version(project: Project) -> None:
    loop = "import threading\nend = threading.Event()\ndef work(): end.wait(20)\n"
    start = "worker = threading.Thread(target=work, daemon=True)\nworker.start()\n"
    stop = "def __stop__():\n    end.set()\n    worker.join()\n"
    with pytest.raises(ReloadError, match="__stop__"):
        project.reloader.prepare("shop", loop + start)
    prepared = project.reloader.prepare("shop", loop + start + stop)
    project.reloader.abort(prepared)
    assert not prepared.module.worker.is_alive()
    project.load("shop", loop + start + stop)
    first = project.reloader.module("shop").worker
    for value in range(3):
        project.load("shop", f"value = {value}\n")
        assert first.is_alive()
    project.load("shop", "value = 3\n")
    assert not first.is_alive() and len(project.reloader.versions("shop")) == 4


def test_state_is_migrated_on_a_copy_and_all_holders_or_none(project: Project) -> None:
    project.load("shop", "def add(state): state['n'] += 1\n")
    good, other = Held({"n": 1, "log": []}), Held({"n": 5, "log": []})
    project.reloader.hold("shop", good)
    project.reloader.hold("shop", other)
    before = [good.state, other.state]
    picky = """
        def migrate(state, old_version):
            state["log"].append(old_version)
            if state["n"] > 6: raise ValueError("too many")
            return {"count": state["n"], "log": state["log"]}
    """
    prepared = project.reloader.prepare("shop", dedent(picky))
    assert [good.state, other.state] == [{"n": 1, "log": []}, {"n": 5, "log": []}]
    other.state["n"] = 7
    with pytest.raises(ReloadError, match="too many"):
        project.reloader.commit(prepared)
    assert good.state is before[0] and other.state is before[1] and good.state["log"] == []
    assert project.reloader.current("shop").version == 1
    other.state["n"] = 6
    project.reloader.commit(prepared)
    assert [good.state, other.state] == [{"count": 1, "log": [1]}, {"count": 6, "log": [1]}]
    with pytest.raises(ReloadError, match="migrate_back"):
        project.reloader.roll_back("shop")
    assert project.reloader.current("shop").version == 2
    project.reloader.roll_back("shop", lossy=True)
    assert other.state == {"n": 6, "log": []}


def test_migrate_raising_in_prepare_and_migrate_back(project: Project) -> None:
    project.load("shop", "x = 1\n")
    held = Held([1])
    project.reloader.hold("shop", held)
    with pytest.raises(ReloadError, match=r"migrate.*boom"):
        project.reloader.prepare("shop", "def migrate(state, old_version): raise OSError('boom')\n")
    project.load("shop", "def migrate(s, old): return (*s,)\ndef migrate_back(s, to): return [*s, to]\n")
    assert held.state == (1,)
    project.reloader.roll_back("shop")
    assert held.state == [1, 1]


def test_stale_and_too_many_prepared_versions_are_refused(project: Project) -> None:
    project.load("shop", "x = 1\n")
    stale = project.reloader.prepare("shop", "x = 2\n")
    project.load("shop", "x = 3\n")
    with pytest.raises(ReloadError, match="prepare it again"):
        project.reloader.commit(stale)
    for _ in range(MAX_PREPARED - 1):
        project.reloader.prepare("shop", "x = 4\n")
    with pytest.raises(ReloadError, match="commit or abort"):
        project.reloader.prepare("shop", "x = 5\n")
    with pytest.raises(ReloadError, match="not above"):
        ModuleReloader(clock=ManualClock()).prepare("shop", "x = 1\n", version=1)


def test_numbers_are_never_used_twice(project: Project) -> None:
    for value in range(3):
        project.load("shop", f"x = {value}\n")
    project.reloader.roll_back("shop")
    project.load("shop", "x = 9\n")
    assert [one.version for one in project.reloader.versions("shop")] == [1, 2, 4]


def test_pickles_of_old_versions(project: Project) -> None:
    text = "class Cart:\n    def __init__(self): self.n = 1\n    kind = %d\n"
    project.load("shop", text % 1)
    cart = project.reloader.module("shop").Cart()
    kept = project.reloader.pickled([cart])
    project.load("shop", text % 2)
    assert pickle.loads(kept)[0].kind == 2
    with pytest.raises(ReloadError, match=r"shop.Cart is of version 1, which is not in use"):
        project.reloader.pickled([cart])
    assert pickle.loads(project.reloader.pickled(project.reloader.module("shop").Cart())).kind == 2


@pytest.mark.parametrize("name", ["", "a..b", "../etc", "x" * 300, "a b"])
def test_names_that_are_no_modules(project: Project, name: str) -> None:
    with pytest.raises(ReloadError, match="no module name"):
        project.reloader.prepare(name, "x = 1\n")


def test_what_has_no_source(project: Project) -> None:
    with pytest.raises(ReloadError, match="no source file"):
        project.reloader.prepare("math")
    with pytest.raises(ReloadError, match="cannot be read"):
        project.reloader.prepare("shop", project.folder / "gone.py")
