"""What a Python source can do beyond computing with its own values, read from its syntax: nothing is run.

A capability is `kind:detail`. `import:NAME` is an import by its top-level module. The other kinds are network,
process, code (made or loaded at run time), files, environment, memory, threads, exit, introspection, tampering (with
tests or with other modules), equality (comparisons of its own), pickle, and dynamic: what cannot be read from the
source, such as `getattr` with a computed name or a module handed around as a value. The detail is the expression that
uses the power, so that a module which opens one file has no licence to open another.

It errs on the side of telling too much. What it cannot see: a power that another module of the same project holds under
a harmless name of its own, and objects with power that callers hand in. The sandbox is what holds those.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from hashlib import sha256

from chimera.healing.operands import DIFFERENCES, is_plain_comparison, looks_at_operands
from chimera.healing.powers import (
    ATTRIBUTES,
    BUILTINS,
    BY_MEMBER,
    COMPARISONS,
    DEFINED,
    DUNDERS,
    HARMLESS,
    METACLASSES,
    MODULES,
    NAMES,
    PREFIXES,
)

DETAIL_CHARS = 100
"""Longer expressions are told by their beginning and their hash."""

_DUNDER = re.compile(r"__\w+?__")
_PLACE = re.compile(
    r"(/(etc|proc|root|home|tmp|var|dev|sys|run|mnt|opt|boot|srv)(/|$)|~[\w.-]*/)|(https?|wss?|ftp|file)://", re.I
)
_REACHING = frozenset({"files", "network", "process"})
_TEST_MODULE = re.compile(r"(^|\.)(test_\w*|\w*_test|conftest|tests?)(\.|$)")


def parsed(source: str) -> ast.Module:
    """The syntax tree of what Python would run. Raises SyntaxError, whatever is wrong with the source.

    A source in another encoding than UTF-8 is refused: Python would read other words than a person.
    """
    for line in source.splitlines()[:2]:
        cookie = re.match(r"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", line)
        if cookie and cookie[1].lower().replace("_", "-") not in ("utf-8", "utf8"):
            raise SyntaxError(f"the source must be UTF-8, and declares {cookie[1]}")
    try:
        compile(source.encode(), "patched.py", "exec", dont_inherit=True)
        return ast.parse(source.encode())
    except SyntaxError:
        raise
    except (ValueError, RecursionError, MemoryError, UnicodeEncodeError) as error:
        raise SyntaxError(f"the source cannot be parsed: {error or type(error).__name__}") from error


def capabilities(source: str, local: frozenset[str] = frozenset()) -> frozenset[str]:
    """What the source can do, as `kind:detail`; raises SyntaxError where there is no reading it.

    `local` names the project's own modules, by top-level name; importing these is no capability.
    """
    try:
        reader = _Reader(parsed(source), local)
        found = frozenset(reader.found())
        # Where a name goes into `open` is not followed, so a place that is named counts wherever something opens one.
        reaches = any(each.partition(":")[0] in _REACHING for each in found)
        return found | frozenset(reader.places()) if reaches else found
    except RecursionError:
        return frozenset({"dynamic:an expression too deep to read"})


class _Reader:
    """Looks at every node once. Names are taken to mean the import of that name wherever it stands in the file."""

    def __init__(self, tree: ast.Module, local: frozenset[str]) -> None:
        self._nodes = list(ast.walk(tree))
        self._local = local
        self._parents = {child: node for node in self._nodes for child in ast.iter_child_nodes(node)}
        self._imports: dict[str, str] = {}
        for node in self._nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._imports[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self._imports[alias.asname or alias.name] = f"{'.' * node.level}{node.module or ''}.{alias.name}"

    def places(self) -> Iterator[str]:
        """The places outside of the project that its texts name: paths from the root or of a home, and addresses."""
        for node in self._nodes:
            match node:
                case ast.Constant(value=str(text)) if _PLACE.match(text) and not self._is_told(node):
                    yield f"{'network' if '://' in text else 'files'}:{_told(node)}"
                case ast.Constant(value=bytes(data)) if _PLACE.match(data.decode("latin-1")):
                    yield f"files:{_told(node)}"

    def found(self) -> Iterator[str]:
        for node in self._nodes:
            match node:
                case ast.Import():
                    for alias in node.names:
                        yield from self._imported(alias.name)
                case ast.ImportFrom():
                    yield from self._imported_from(node)
                case ast.Name():
                    yield from self._name(node)
                case ast.Attribute():
                    yield from self._attribute(node)
                case ast.Constant(value=str(text)) if not self._is_docstring(node):
                    if set(_DUNDER.findall(text)) - DUNDERS:
                        yield f"dynamic:{_told(node)}"
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    yield from self._defined(node)
                case ast.MatchClass():
                    for attribute in node.kwd_attrs:
                        yield from self._read(attribute, node)
                case ast.Call() if self._makes_a_class(node):
                    yield f"dynamic:{_told(node)}"

    def _imported(self, name: str) -> Iterator[str]:
        top = name.split(".")[0]
        if _TEST_MODULE.search(name):
            yield f"tampering:import {name}"
        if top in self._local:
            return
        yield f"import:{top}"
        kind = _kind(name)
        if kind and top not in BY_MEMBER:
            yield f"{kind}:import {name}"

    def _imported_from(self, node: ast.ImportFrom) -> Iterator[str]:
        module = node.module or ""
        if node.level:
            for alias in node.names:
                if _TEST_MODULE.search(f"{module}.{alias.name}"):
                    yield f"tampering:import {module}.{alias.name}"
        else:
            if NAMES.get(module) != "":
                yield from self._imported(module)
            else:
                yield f"import:{module.split('.')[0]}"
        for alias in node.names:
            if alias.name == "*":
                yield f"dynamic:from {module} import *"
            elif module != "__future__":
                yield from self._member(f"{module}.{alias.name}", f"from {module} import {alias.name}")

    def _member(self, dotted: str, told: str) -> Iterator[str]:
        """What it means to have this member of a module."""
        last = dotted.rpartition(".")[2]
        kind = _kind(dotted)
        if dotted in NAMES and not kind:
            return
        if kind and dotted.split(".")[0] not in self._local:
            yield f"{kind}:{told}"
        elif last.startswith("_") and last not in DUNDERS:
            yield f"introspection:{told}"
        elif last in MODULES:
            yield f"{MODULES[last]}:{told}"

    def _name(self, node: ast.Name) -> Iterator[str]:
        if node.id in self._imports:
            yield from self._use_of_import(node, self._imports[node.id])
        elif isinstance(node.ctx, ast.Load):
            if node.id in ("getattr", "setattr", "delattr"):
                yield from self._named_attribute(node)
            elif node.id == "open":
                yield from self._opened(node)
            elif node.id == "type" and not self._is_plain_type(node):
                yield "dynamic:type as a value"
            elif node.id in BUILTINS:
                yield f"{BUILTINS[node.id]}:{self._use(node)}"
            elif _DUNDER.fullmatch(node.id) and node.id not in DUNDERS:
                yield f"introspection:{self._use(node)}"
        elif node.id in COMPARISONS | DIFFERENCES:
            yield f"equality:{node.id}"
        elif _DUNDER.fullmatch(node.id) and node.id not in DUNDERS:
            yield f"dynamic:{node.id}"

    def _use_of_import(self, node: ast.Name, dotted: str) -> Iterator[str]:
        top: ast.expr = node
        parent = self._parents.get(top)
        while isinstance(parent, ast.Attribute):
            dotted = f"{dotted}.{parent.attr}"
            if not dotted.startswith("."):
                yield from self._member(dotted, self._use(parent))
            top, parent = parent, self._parents.get(parent)
        if dotted in METACLASSES and not (isinstance(parent, ast.keyword) and parent.arg == "metaclass"):
            yield f"dynamic:{dotted} as a value"
        while isinstance(parent, ast.Subscript) and parent.value is top:
            top, parent = parent, self._parents.get(parent)
        if not isinstance(getattr(top, "ctx", ast.Load()), ast.Load):
            yield f"tampering:{_told(top)}"
        elif top is node and dotted.split(".")[0] not in self._local:
            kind = _kind(dotted)
            if "." in dotted and kind:
                yield f"{kind}:{self._use(node)}"
            elif kind or dotted in HARMLESS | BY_MEMBER:
                yield f"dynamic:{dotted} as a value"
        elif top is node and dotted in self._local:
            yield f"dynamic:{dotted} as a value"

    def _attribute(self, node: ast.Attribute) -> Iterator[str]:
        yield from self._read(node.attr, node)

    def _read(self, attribute: str, node: ast.AST) -> Iterator[str]:
        """An attribute that says by its name what it is for."""
        if attribute in COMPARISONS and isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
            yield f"equality:{_told(node)}"
        elif _DUNDER.fullmatch(attribute) and attribute not in DUNDERS | COMPARISONS:
            yield f"introspection:{self._use(node)}"
        elif attribute == "__class__" and isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
            yield f"introspection:{_told(node)}"
        elif attribute in ATTRIBUTES:
            yield f"{ATTRIBUTES[attribute]}:{self._use(node)}"

    def _named_attribute(self, node: ast.Name) -> Iterator[str]:
        """`getattr` and its like: as good as the attribute itself where its name stands there."""
        match self._parents.get(node):
            case ast.Call(func=func, args=[ast.expr() as target, ast.Constant(value=str(name)), *_]) as call if (
                func is node
            ):
                yield from self._read(name, call)
                if name.startswith("_") or (isinstance(target, ast.Name) and target.id in self._imports):
                    yield f"dynamic:{_told(call)}"
                if name in MODULES or name in COMPARISONS:
                    yield f"dynamic:{_told(call)}"
            case _:
                yield f"dynamic:{self._use(node)}"

    def _opened(self, node: ast.Name) -> Iterator[str]:
        """`open`: whether it writes, and which file where that stands there. Options such as `newline` are its own."""
        call = self._parents.get(node)
        if not (isinstance(call, ast.Call) and call.func is node and call.args):
            yield "files:open as a value"
            return
        modes = [call.args[1]] if len(call.args) > 1 else [k.value for k in call.keywords if k.arg in ("mode", None)]
        match modes:
            case []:
                mode = "read"
            case [ast.Constant(value=str(text))]:
                mode = "write" if set(text) & set("wax+") else "read"
            case _:
                mode = "write"
        if any(keyword.arg == "opener" for keyword in call.keywords) or len(call.args) > 6:
            mode += " with an opener"
        path = call.args[0]
        yield f"files:{mode} {'a file' if _is_any_file(path) else _told(path)}"

    def _defined(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Iterator[str]:
        if node.name in COMPARISONS:
            if isinstance(node, ast.ClassDef) or not is_plain_comparison(node):
                yield f"equality:{node.name}"
        elif node.name in DIFFERENCES:
            if isinstance(node, ast.ClassDef) or not looks_at_operands(node):
                yield f"equality:{node.name}"
        elif _DUNDER.fullmatch(node.name) and node.name not in DUNDERS | DEFINED:
            yield f"dynamic:{node.name}"
        if node.name in self._imports:
            yield f"dynamic:{node.name} is defined twice"

    def _makes_a_class(self, call: ast.Call) -> bool:
        """`type(name, bases, members)`, be it as `type(x)(...)` or `x.__class__(...)`; an enum of no literals."""
        several = len(call.args) > 2 or any(isinstance(each, ast.Starred) for each in call.args)
        match call.func:
            case ast.Name(id="type"):
                return several
            case ast.Call(func=ast.Name(id="type")) | ast.Attribute(attr="__class__"):
                return several
            case ast.Name() | ast.Attribute():
                told = ast.unparse(call.func)
                top, _, rest = told.partition(".")
                dotted = ".".join(filter(None, (self._imports.get(top, top), rest)))
                return dotted.startswith("enum.") and not all(map(_is_literal, call.args[1:]))
        return False

    def _is_plain_type(self, node: ast.Name) -> bool:
        """Whether `type` asks for the type of something or stands in an annotation, and is not handed around."""
        parent = self._parents.get(node)
        while isinstance(parent, ast.Tuple | ast.BinOp):
            parent = self._parents.get(parent)
        match parent:
            case ast.Call(func=func):
                return func is node or (isinstance(func, ast.Name) and func.id in ("isinstance", "issubclass"))
            case ast.Subscript() | ast.arg() | ast.AnnAssign() | ast.Compare():
                return not (isinstance(parent, ast.AnnAssign) and parent.value is node)
            case ast.FunctionDef(returns=returns) | ast.AsyncFunctionDef(returns=returns):
                return returns is node
        return False

    def _use(self, node: ast.AST) -> str:
        """The whole expression that this begins: `os.environ` of `os.environ["HOME"].strip()` tells all of it."""
        parent = self._parents.get(node)
        while isinstance(parent, ast.Attribute | ast.Call | ast.Subscript):
            if (parent.func if isinstance(parent, ast.Call) else parent.value) is not node:
                break
            node, parent = parent, self._parents.get(parent)
        return _told(node)

    def _is_told(self, node: ast.AST) -> bool:
        """Whether it reaches nothing, or what it is an argument of tells it anyway."""
        match self._parents.get(node):
            case ast.Call(func=ast.Name(id="open")):
                return True
        return self._is_docstring(node)

    def _is_docstring(self, node: ast.AST) -> bool:
        return isinstance(self._parents.get(node), ast.Expr)


def _kind(dotted: str) -> str:
    """What power a module's member gives; "" where none."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in NAMES:
            return NAMES[name]
        for prefix, kind in PREFIXES.items():
            if name.startswith(prefix):
                return kind
    if parts[0] == "sys":
        return "introspection"
    return MODULES.get(parts[0], "")


def _is_any_file(path: ast.expr) -> bool:
    """Whether callers say which file it is: it is a name, or one with a literal ending as in `f"{path}.new"`."""
    match path:
        case ast.Name() | ast.Attribute():
            return True
        case ast.BinOp(left=first, op=ast.Add(), right=ast.Constant(value=str(ending))):
            return _is_any_file(first) and "/" not in ending
        case ast.JoinedStr(values=[ast.FormattedValue(value=first), ast.Constant(value=str(ending))]):
            return _is_any_file(first) and "/" not in ending
    return False


def _is_literal(node: ast.AST) -> bool:
    return all(isinstance(each, ast.Constant | ast.List | ast.Tuple | ast.Load) for each in ast.walk(node))


def _told(node: ast.AST) -> str:
    text = ast.unparse(node)
    if len(text) <= DETAIL_CHARS:
        return text
    return f"{text[: DETAIL_CHARS - 20]}... {sha256(text.encode()).hexdigest()[:12]}"
