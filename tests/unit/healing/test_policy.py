"""What a patch may touch and what powers it may bring in, attacked with what is done to hide them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.healing.capabilities import capabilities
from chimera.healing.policy import PathPolicy, judge_capabilities, local_modules

ATTACKS = {
    "computed name": ("import os\ngetattr(os, '_ex' + 'it')(0)", "dynamic"),
    "computed import": ("__import__('o' + 's').system('id')", "code"),
    "globals": ("globals()['__builtins__']", "introspection"),
    "rot13": ("import codecs\nexec(codecs.decode('vzcbeg bf', 'rot13'))", "code"),
    "base64": ("import base64\ne = eval\ne(base64.b64decode('MQ=='))", "code"),
    "decorator": ("@eval\ndef f(): pass", "code"),
    "default argument": ("def f(run=__import__): pass", "code"),
    "keyword-only default": ("def f(*, run=compile): pass", "code"),
    "class body": ("class A:\n    import os as x\n    x._exit(0)", "exit"),
    "lambda": ("f = lambda: open('/etc/passwd').read()", "files"),
    "alias": ("import os as o\no._exit(0)", "exit"),
    "alias of a member": ("from os import _exit as leave\nleave(0)", "exit"),
    "importlib": ("import importlib\nimportlib.import_module('os')", "code"),
    "subclasses": ("[c for c in object.__subclasses__() if c.__name__ == 'Popen']", "introspection"),
    "f-string": ("f'{().__class__.__base__}'", "introspection"),
    "format string": ("'{0.__globals__}'.format(print)", "dynamic"),
    "module in a harmless one": ("import statistics\nstatistics.sys.exit(0)", "introspection"),
    "from a harmless one": ("from statistics import sys", "introspection"),
    "hidden in a harmless one": ("import threading\nthreading._os._exit(0)", "exit"),
    "aliased in a harmless one": ("import enum\nenum.bltns.open('x', 'w')", "introspection"),
    "through os.path": ("import os.path as p\np.os.system('id')", "process"),
    "monkeypatch": ("import math\nmath.floor = lambda x: 1", "tampering"),
    "monkeypatch in a loop": ("import json\nfor json.loads in [len]: pass", "tampering"),
    "setattr": ("import json\nsetattr(json, 'loads', len)", "dynamic"),
    "getattr as a value": ("import functools\nfunctools.reduce(getattr, ['a'])", "dynamic"),
    "attrgetter": ("from operator import attrgetter\nattrgetter('a.b')", "dynamic"),
    "pattern": ("match print:\n    case object(__self__=b): pass", "introspection"),
    "equal to all": ("class A:\n    def __eq__(self, other): return True", "equality"),
    "equal by assignment": ("class A:\n    __eq__ = lambda self, other: True", "equality"),
    "equal by type()": ("type('A', (), {'__eq__': lambda s, o: True})", "dynamic"),
    "star": ("from math import *", "dynamic"),
    "module as a value": ("import collections\nx = collections", "dynamic"),
    "exit by name": ("raise SystemExit(0)", "exit"),
    "frame": ("def f():\n    yield\nf().gi_frame", "introspection"),
    "traceback": ("try: 1 / 0\nexcept Exception as e: e.__traceback__", "introspection"),
    "gc": ("import gc\ngc.get_objects()", "introspection"),
    "ctypes": ("import ctypes", "memory"),
    "pytest": ("import pytest", "tampering"),
    "its own tests": ("import test_visible", "tampering"),
    "environment": ("from os import environ", "environment"),
    "socket": ("import socket", "network"),
    "submodule": ("from urllib import request", "network"),
    "asyncio socket": ("import asyncio\nasyncio.open_connection('h', 1)", "network"),
    "subprocess": ("from subprocess import run as r\nr(['id'])", "process"),
    "unpickling": ("import pickle", "pickle"),
    "thread": ("from threading import Thread", "threads"),
    "wide letters": ("\uff4f\uff50\uff45\uff4e('/etc/passwd')", "files"),
    "function made of code": ("import types\ntypes.FunctionType", "dynamic"),
    "type hints": ("import typing\ntyping.get_type_hints(print)", "dynamic"),
    "path": ("import pathlib\npathlib.Path('x').write_text('y')", "files"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hidden_power_is_seen_and_refused(name: str) -> None:
    source, kind = ATTACKS[name]
    refusals = judge_capabilities("", source)
    assert kind in {refusal.partition(":")[0] for refusal in refusals}


ORDINARY = """
from __future__ import annotations
import csv, functools, io, itertools, math, threading, time
import datetime as dt
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from urllib.parse import quote

_lock = threading.Lock()

@dataclass(frozen=True, slots=True)
class Entry:
    '''A line. Its __dict__ is nobody's business.'''
    at: dt.datetime
    cents: int = 0

class Ledger:
    __slots__ = ("_rows",)
    def __init__(self, rows: Iterable[str] = ()) -> None:
        super().__init__()
        self._rows = deque(csv.reader(io.StringIO("\\n".join(rows))))
    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._rows)!r})"
    def __len__(self) -> int:
        with _lock:
            return len(self._rows)

@functools.lru_cache(maxsize=None)
def rounded(x: Decimal) -> int:
    try:
        return int(x.quantize(Decimal("1"), rounding=ROUND_HALF_UP))
    except (ValueError, ArithmeticError) as error:
        raise KeyError(quote("x")) from error

if __name__ == "__main__":
    print(math.floor(time.monotonic()), next(itertools.count()))
"""


def test_ordinary_code_brings_in_nothing() -> None:
    assert judge_capabilities("", ORDINARY) == []


def test_what_was_there_may_stay_and_options_may_change() -> None:
    before = "import os\ndef f(path):\n    return open(path).read(), os.environ['HOME']\n"
    after = "import os\ndef f(path):\n    return open(path, newline='').read().strip(), os.environ['HOME']\n"
    assert judge_capabilities(before, after) == []


@pytest.mark.parametrize(
    "more", ["os.environ", "os.environ['TOKEN']", "open(path, 'w')", "open('/etc/passwd')", "os._exit(0)", "[os][0]"]
)
def test_a_power_that_was_there_is_no_licence_for_another_use(more: str) -> None:
    before = "import os\ndef f(path):\n    return open(path).read(), os.environ['HOME']\n"
    assert len(judge_capabilities(before, f"{before}    {more}\ng = {more}\n")) == 1


def test_what_is_allowed_by_name_or_by_kind() -> None:
    source = "import socket\nsocket.socket()\n"
    assert judge_capabilities("", source, {"import:socket", "network"}) == []
    assert judge_capabilities("", source, {"import:socket"}) != []


def test_own_modules_are_no_capability_but_what_lies_in_them_is() -> None:
    local = local_modules(["rates.py", "src/shop/__init__.py", "csv.py", "notes.txt"])
    assert local == {"rates", "shop"}
    assert judge_capabilities("", "import rates\nfrom shop import basket\nrates.convert(1)\n", (), local) == []
    assert judge_capabilities("", "import rates\nrates.os.system('id')\n", (), local) != []
    assert judge_capabilities("", "from shop import os\n", (), local) != []
    assert judge_capabilities("", "import rates\nrates.RATES = {}\n", (), local) != []


@pytest.mark.parametrize("source", ["def f(:", "return 1", "x = '\0'", "# coding: utf-7\nx = 1", "(" * 5_000, "\ud800"])
def test_what_cannot_be_read_is_a_syntax_error(source: str) -> None:
    with pytest.raises(SyntaxError):
        capabilities(source)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(source: str) -> None:
    try:
        found = capabilities(source)
    except SyntaxError:
        return
    assert all(kind.partition(":")[1] for kind in found)


@given(st.sampled_from(sorted(ATTACKS)), st.sampled_from(["", "def ordinary():\n    return 1\n", ORDINARY]))
def test_harmless_code_around_it_hides_nothing(name: str, around: str) -> None:
    source, kind = ATTACKS[name]
    before = around.replace("from __future__ import annotations\n", "")
    found = judge_capabilities(before, f"{before}\n{source}\n")
    assert kind in {refusal.partition(":")[0] for refusal in found}


PROTECTED = """
test_visible.py pkg/test_a.py a_test.py conftest.py pkg/Conftest.py tests/data.py tests/deep/er.py pytest.ini
pyproject.toml setup.cfg tox.ini x.pth sitecustomize.py usercustomize.py chimera/security/keys.py
chimera/healing/judge.py src/chimera/healing/x/y.py .env .github/workflows/x.py pkg/.hidden.py pkg/__pycache__/a.py
""".split()


@pytest.mark.parametrize("path", [*PROTECTED, *(path.upper() for path in PROTECTED)])
def test_protected_files_stay_so_whatever_is_allowed(path: str) -> None:
    assert PathPolicy(allowed=("**",)).refusal(path, [path]) is not None


@pytest.mark.parametrize("path", ["../a.py", "/a.py", "a/../../b.py", "", "a//b.py", "./a.py", "a\\b.py", "a\nb.py"])
def test_a_path_stays_within(path: str) -> None:
    assert PathPolicy(allowed=("**",)).refusal(path) is not None


@pytest.mark.parametrize("path", ["json.py", "pytest.py", "_pytest/x.py", "os/__init__.py", "Shop.py", "notes.txt"])
def test_new_files_stand_in_for_nothing(path: str) -> None:
    assert PathPolicy().refusal(path, ["shop.py"]) is not None


def test_what_may_be_changed() -> None:
    policy = PathPolicy()
    assert policy.refusals(["shop.py", "pkg/deep/er.py", "contest.py"], ["shop.py", "calendar.py"]) == []
    assert policy.refusal("calendar.py", ["calendar.py"]) is None
    assert PathPolicy(allowed=("pkg/*.py",)).refusal("pkg/a/b.py") is not None
    assert PathPolicy(allowed=("data/*.json",)).refusal("data/x.json") is None
