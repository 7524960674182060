"""Whether a comparison or a subtraction that a class defines looks at both sides: who does not may pass any assertion.

An object that says it is equal to everything passes `assert result == expected`, and one whose difference to everything
is 0 passes `assert abs(result - expected) < 0.001`. What ordinary classes write is told from that by its form.
"""

from __future__ import annotations

import ast

COMPARES = frozenset("__eq__ __ne__ __lt__ __le__ __gt__ __ge__".split())
DIFFERENCES = frozenset("__sub__ __rsub__ __isub__ __abs__".split())
"""Methods whose result a test compares with 0."""

_ORDERS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def is_plain_comparison(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether all that it returns is NotImplemented, False, or a comparison of like attributes of both operands.

    `return (self.x, self.y) == (other.x, other.y)` is; so is `return item in self._items` as `__contains__`.
    """
    names = _parameters(method)
    if len(names) != 2 or any(isinstance(each, ast.NamedExpr) for each in ast.walk(method)):
        return False
    return all(_is_plain(statement, method.name, *names) for statement in method.body)


def looks_at_operands(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether each value that it returns is made of all its operands."""
    names = set(_parameters(method))
    returned = [each.value for each in ast.walk(method) if isinstance(each, ast.Return)]
    return bool(names and returned) and all(
        _is_no_answer(value) or names <= {each.id for each in ast.walk(value) if isinstance(each, ast.Name)}
        for value in returned
        if value is not None
    )


def _parameters(method: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Their names, in order; none where it has other parameters than plain ones, or is no plain method."""
    given = method.args
    plain = isinstance(method, ast.FunctionDef) and not method.decorator_list
    if not plain or given.vararg or given.kwarg or given.kwonlyargs or given.defaults:
        return []
    return [each.arg for each in (*given.posonlyargs, *given.args)]


def _is_plain(statement: ast.stmt, name: str, me: str, other: str) -> bool:
    match statement:
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.If(body=body, orelse=orelse):
            return all(_is_plain(each, name, me, other) for each in (*body, *orelse))
        case ast.Return(value=ast.Compare(left=ast.Name(id=left), ops=[ast.In()], comparators=[right])):
            return name == "__contains__" and left == other and _parts(right, me) is not None
        case ast.Return(value=ast.expr() as value):
            return name in COMPARES and (_is_no_answer(value) or _compares(value, me, other))
    return False


def _is_no_answer(value: ast.expr) -> bool:
    match value:
        case ast.Name(id="NotImplemented") | ast.Constant(value=False):
            return True
    return False


def _compares(value: ast.expr, me: str, other: str) -> bool:
    match value:
        case ast.BoolOp(op=ast.And(), values=values):
            compared = [each for each in values if not _asks_for_type(each)]
            return bool(compared) and all(_compares(each, me, other) for each in compared)
        case ast.UnaryOp(op=ast.Not(), operand=ast.Compare() as compared):
            sides = [compared.left, *compared.comparators]
            return [each.id for each in sides if isinstance(each, ast.Name)] == [me, other] and len(sides) == 2
        case ast.Compare(left=left, ops=[order], comparators=[right]) if isinstance(order, _ORDERS):
            mine, theirs = _parts(left, me), _parts(right, other)
            if mine is None:
                mine, theirs = _parts(right, me), _parts(left, other)
            return mine is not None and mine == theirs
    return False


def _asks_for_type(value: ast.expr) -> bool:
    match value:
        case ast.Call(func=ast.Name(id="isinstance")):
            return True
    return False


def _parts(value: ast.expr, owner: str) -> list[str] | None:
    """The names of the owner's attributes that it is made of; None where it is made of anything else.

    A method counts only if its name is private: numbers have public ones that nearly all of them answer alike.
    """
    match value:
        case ast.Tuple(elts=values) | ast.List(elts=values) if values:
            found = [_parts(each, owner) for each in values]
            return None if None in found else [name for names in found if names for name in names]
        case ast.Attribute(value=ast.Name(id=name), attr=attr) if name == owner and not attr.startswith("__"):
            return [attr]
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr), args=[], keywords=[]):
            return [attr] if name == owner and attr.startswith("_") and not attr.startswith("__") else None
    return None
