"""There is no second way out: read from the source of every module, late imports included.

What these hold the code to: `Cleared` is made in the gateway only; its private parts are nobody else's; whoever sends
is a `Publisher`, whose sending is called by `publish` alone; and of the packages that make content, a module that can
reach the network has nothing in it but publishers.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from chimera.content.publish.publisher import AccountPublisher
from chimera.security.safety.cleared import Publisher

PACKAGE = Path(__file__).parents[4] / "chimera"
GATE = "security/safety/cleared.py"
MAKERS = {GATE, "security/safety/gateway.py"}
PRIVATE = {"_TOKEN", "_KEY", "_seal", "_sealed", "_output", "clear"}
NETWORK = set(
    "aiohttp anthropic ftplib http httpx httpx2 imaplib openai requests smtplib socket telnetlib urllib".split()
)
NETWORK |= {"atproto", "atproto_client", "mastodon"}
NETWORK |= {"urllib3", "websockets", "xmlrpc", "obstore", "bittensor", "subprocess", "ssl"}
NETWORK |= {"boto3", "botocore", "grpc", "httpcore", "nntplib", "paramiko", "poplib", "pycurl"}
NETWORK |= {"multiprocessing", "playwright", "socketserver", "telegram", "tweepy", "webbrowser", "websocket"}
HERE = {"chimera.http_client", "chimera.client", "chimera.llm.pool"}
"""Modules of Chimera's own that reach what a caller names."""
BY_NAME = {"open_connection", "open_unix_connection", "create_connection", "create_datagram_endpoint"}
BY_NAME |= {"create_subprocess_exec", "create_subprocess_shell", "popen", "system", "posix_spawn", "execv", "execve"}
"""Of asyncio and os, which everybody imports."""
HARMLESS = {"urllib.parse"}
PUBLISHERS = {"Publisher", "AccountPublisher"}
"""The second is the first, for the accounts of content; a test says so."""
OWN = set("actors anomaly api arena cli client core healing http_client llm reload security storage".split())
OWN |= {"mcp", "review", "swarm", "system", "treasury"}
"""Packages that talk to Chimera's own users, machines and models. What else there is, is for the public."""


def breaches(package: Path) -> list[str]:
    """Each way past the gate in a package, as `FILE:LINE: why`."""
    found: list[str] = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name == GATE:
            continue
        source = path.read_text(encoding="utf-8")
        if "cleared" in source or _is_public(name):
            found += [f"{name}:{line}: {why}" for line, why in _in_module(name, ast.parse(source))]
    return found


def _in_module(name: str, tree: ast.Module) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    nodes = list(ast.walk(tree))
    imported = [(line, module, what) for node in nodes for line, module, what in _imports(node)]
    near = any("safety.cleared" in f"{module}.{what}" for _, module, what in imported)
    if near and name not in MAKERS:
        for line, _, what in imported:
            if what in PRIVATE or what == "*":
                found.append((line, f"imports {what}"))
        for node in nodes:
            touched = _named(node)
            if touched in PRIVATE:
                found.append((node.lineno, f"touches {touched}"))  # type: ignore[attr-defined]
            if isinstance(node, ast.Call) and _makes(node):
                found.append((node.lineno, "makes a Cleared"))
    if near:
        found += [
            (node.lineno, "calls _send") for node in nodes if isinstance(node, ast.Call) and _last(node.func) == "_send"
        ]
    return found + _loose(tree, nodes, imported) if _is_public(name) else found


def _is_public(name: str) -> bool:
    return "/" in name and name.partition("/")[0] not in OWN


def _loose(tree: ast.Module, nodes: list[ast.AST], imported: list[tuple[int, str, str]]) -> list[tuple[int, str]]:
    """What a module that reaches the network has besides publishers."""
    reached = [
        line
        for line, module, what in imported
        if _reaches(module, what) and not {module, f"{module}.{what}"} & HARMLESS
    ]
    reached += [node.lineno for node in nodes if isinstance(node, ast.Call) and _last(node.func) in BY_NAME]
    if not reached:
        return []
    found = [
        (node.lineno, f"{node.name} reaches the network and is no Publisher")
        for node in _statements(tree.body)
        if (isinstance(node, ast.ClassDef) and not PUBLISHERS & set(map(_last, node.bases)))
        or (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"))
    ]
    found += [
        (node.lineno, "a name for what reaches the network: no Publisher")
        for node in _statements(tree.body)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr) and _hands_on(node, _bound(tree, reached))
    ]
    publishes = any(isinstance(node, ast.ClassDef) for node in tree.body)
    return found if found or publishes else [(reached[0], "reaches the network and has no Publisher")]


def _reaches(module: str, what: str) -> bool:
    own = {module, f"{module}.{what}"}
    return module.partition(".")[0] in NETWORK or bool(own & HERE) or what in BY_NAME


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Those of a module, and of its `if`, `try` and `with`, which are its own too."""
    found: list[ast.stmt] = []
    for node in body:
        found.append(node)
        for part in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
                found += _statements(getattr(node, part, []))
        if isinstance(node, ast.Try):
            found += [each for handler in node.handlers for each in _statements(handler.body)]
    return found


def _bound(tree: ast.Module, reached: list[int]) -> set[str]:
    """The names that those imports give."""
    return {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and node.lineno in reached
        for alias in node.names
    }


def _hands_on(statement: ast.stmt, names: set[str]) -> bool:
    return any(isinstance(node, ast.Name) and node.id in names for node in ast.walk(statement))


def _makes(call: ast.Call) -> bool:
    made = _last(call.func) == "Cleared" or any(_last(argument) == "Cleared" for argument in call.args)
    return made and _last(call.func) not in ("isinstance", "issubclass")


def _imports(node: ast.AST) -> list[tuple[int, str, str]]:
    if isinstance(node, ast.Import):
        return [(node.lineno, alias.name, "") for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.lineno, node.module or "", alias.name) for alias in node.names]
    if isinstance(node, ast.Call) and _last(node.func) in ("import_module", "__import__") and node.args:
        first = node.args[0]
        return [(node.lineno, _named(first), "")] if isinstance(first, ast.Constant) else []
    return []


def _named(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _last(node: ast.AST) -> str:
    return _named(node) if isinstance(node, ast.Attribute | ast.Name) else ""


def test_the_publishers_that_are_let_be_are_publishers() -> None:
    assert issubclass(AccountPublisher, Publisher)


def test_the_code_has_one_way_out() -> None:
    assert breaches(PACKAGE) == []
    assert (PACKAGE / GATE).exists()


FROM = "from chimera.security.safety.cleared import "
LATE = "def late():\n    " + FROM + "Cleared\n\n    return Cleared(None, None, (), '')\n"
OTHER = "import chimera.security.safety.cleared as gate\n\n"
MINE = FROM + "Publisher\n\n\nclass Mine(Publisher):\n    async def _send(self, text, audience):\n        ...\n\n\n"


@pytest.mark.parametrize(
    ("file", "code", "why"),
    [
        pytest.param("content/x.py", LATE, "makes a Cleared", id="constructed, late"),
        pytest.param("swarm/x.py", FROM + "clear\n", "imports clear", id="the gateway's own function"),
        pytest.param("security/safety/x.py", FROM + "_TOKEN as t\n", "imports _TOKEN", id="the token, in the package"),
        pytest.param("content/x.py", FROM + "*\n", "imports *", id="everything"),
        pytest.param("content/x.py", OTHER + "x = gate.clear(1, (), '')\n", "touches clear", id="by the module"),
        pytest.param("content/x.py", OTHER + "t = getattr(gate, '_TOKEN')\n", "touches _TOKEN", id="by its name"),
        pytest.param("content/x.py", OTHER + "o = object.__new__(gate.Cleared)\n", "makes a Cleared", id="no init"),
        pytest.param(
            "content/x.py",
            "from chimera.security.safety import cleared\n\nmade = cleared.clear(1, (), '')\n",
            "touches clear",
            id="the module from its package",
        ),
        pytest.param("content/x.py", MINE + "def go(mine):\n    mine._send('x', 'y')\n", "calls _send", id="past it"),
        pytest.param("content/x.py", "import httpx\n\n\ndef post(text):\n    ...\n", "no Publisher", id="a function"),
        pytest.param("content/x.py", "import smtplib\n\n\nclass Mail:\n    ...\n", "no Publisher", id="a class"),
        pytest.param("content/x.py", "def _late():\n    import socket\n", "no Publisher", id="a late import"),
        pytest.param("content/x.py", "from http import client\n", "no Publisher", id="the standard library"),
        pytest.param(
            "content/x.py",
            "import httpx\n" + MINE + "if True:\n    def post(text):\n        httpx.post(text)\n",
            "no Publisher",
            id="within an if",
        ),
        pytest.param(
            "content/x.py",
            "try:\n    import httpx\nexcept ImportError:\n    def post(text): ...\n" + MINE,
            "no Publisher",
            id="within a try",
        ),
        pytest.param("content/x.py", "import httpx\n" + MINE + "post = httpx.post\n", "no Pub", id="another name"),
        pytest.param(
            "content/x.py", "import httpx as h\n" + MINE + "go = lambda t: h.post(t)\n", "no Pub", id="a lambda"
        ),
        pytest.param("content/x.py", "import httpx\n" + MINE + "httpx.post('x')\n", "no Pub", id="at its import"),
        pytest.param(
            "content/x.py",
            "import asyncio\n\n\nasync def post(text):\n    await asyncio.open_connection('h', 1)\n",
            "no Publisher",
            id="asyncio",
        ),
        pytest.param("content/x.py", "import os\n\n\ndef post(t):\n    os.system(t)\n", "no Pub", id="a command"),
        pytest.param(
            "content/x.py", "from chimera import http_client\n\n\ndef post(t): ...\n", "no Pub", id="our own client"
        ),
        pytest.param("content/x.py", "import importlib\nx = importlib.import_module('ssl')\n", "no Pub", id="by text"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, file: str, code: str, why: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert any(why in line for line in breaches(tmp_path)), breaches(tmp_path)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import httpx\n" + MINE, id="a publisher"),
        pytest.param("from urllib.parse import quote\n\n\ndef link(text):\n    return quote(text)\n", id="no network"),
        pytest.param(FROM + "Cleared\n\n\ndef keep(one: Cleared) -> str:\n    return one.text\n", id="a reader"),
    ],
)
def test_what_keeps_to_the_way_is_let_be(tmp_path: Path, code: str) -> None:
    path = tmp_path / "content" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert breaches(tmp_path) == []
