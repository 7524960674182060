"""What an agent keeps between its attempts: the attributes of its policy's object, be they in a dict or in slots."""

from __future__ import annotations

import copy
import inspect
from types import BuiltinFunctionType, MemberDescriptorType, ModuleType
from typing import Any

from chimera.core.errors import ReloadError
from chimera.swarm.policy import Policy

COPIES = 20
"""How often the state of an agent at work is copied before it counts as never at rest."""

HEAP_TYPE = 1 << 9
"""CPython's Py_TPFLAGS_HEAPTYPE: the class was made by a `class` statement."""


def holder_of(policy: Any) -> Any:
    """The object that keeps the state: of a method, the one that it is bound to; None for a function."""
    if not inspect.isroutine(policy):
        return policy
    owner = getattr(policy, "__self__", None)
    return None if inspect.isclass(owner) or isinstance(owner, ModuleType) else owner


def home_of(policy: Policy) -> str:
    """The module whose code a policy is."""
    holder = holder_of(policy)
    return str(getattr(policy if holder is None else type(holder), "__module__", ""))


def can_share(*classes: type) -> bool:
    """Whether objects of these classes can share all of their state: what is in slots cannot be shared."""
    return not any(map(_slots, classes))


def state_of(policy: Policy) -> dict[str, Any] | None:
    """None for a function. It is the object's own `__dict__` where that is all there is."""
    holder = holder_of(policy)
    if holder is None:
        return None
    kept: dict[str, Any] = getattr(holder, "__dict__", {})
    slots = _slots(type(holder))
    if not slots:
        return kept
    return kept | {name: slot.__get__(holder) for name, slot in slots.items() if _is_set(slot, holder)}


def give(holder: Any, state: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Its attributes are these from now on. Slots such as `__pydantic_private__`, which are no names of the user's,
    stay as they were `before` where `state` leaves them out. Raises ReloadError for a name without a place.
    """
    slots = _slots(type(holder))
    rest = {name: value for name, value in state.items() if name not in slots} if slots else state
    check_places(type(holder), state)
    if hasattr(holder, "__dict__"):
        object.__setattr__(holder, "__dict__", rest)
    inner = {name: value for name, value in (before or {}).items() if name.startswith("__") and name.endswith("__")}
    for name, value in (inner | state).items():
        if name in slots:
            slots[name].__set__(holder, value)


def check_places(cls: type, state: dict[str, Any]) -> None:
    """Raises ReloadError for a name in `state` that an object of this class has no place for."""
    if not cls.__dictoffset__ and (lost := sorted(map(repr, state.keys() - _slots(cls).keys()))):
        raise ReloadError(f"{cls.__qualname__} has no slot for {', '.join(lost)}")


def copied(policy: Policy, agent_id: str) -> dict[str, Any] | None:
    """A deep copy of its state, which others may be changing meanwhile. Raises ReloadError."""
    error: Exception | None = None
    for _ in range(COPIES):
        try:
            return copy.deepcopy(state_of(policy))
        except RuntimeError as changed:
            error = changed
        except Exception as failed:
            error = failed
            break
    raise ReloadError(
        f"the state of agent {agent_id} cannot be copied for migrate(): {error!r:.300}. Keep what cannot be copied (a "
        "lock, a connection) out of the attributes, or in an object whose __deepcopy__ gives itself"
    ) from error


def check_class(cls: type, agent_id: str) -> None:
    """Raises ReloadError for an agent whose state cannot be carried over from, or to, an object of this class."""
    if foreign := next((base for base in cls.__mro__[:-1] if _is_foreign(base)), None):
        raise ReloadError(
            f"{cls.__qualname__}, which agent {agent_id} is, is a {foreign.__qualname__}, and what it holds as such "
            "cannot be taken over: keep it in an attribute"
        )
    if inspect.isabstract(cls):
        raise ReloadError(f"{cls.__qualname__}, which agent {agent_id} is, is abstract")


def _is_foreign(cls: type) -> bool:
    """Whether it is made by C code, which may keep something where Python does not see it."""
    return not cls.__flags__ & HEAP_TYPE or isinstance(vars(cls).get("__new__"), BuiltinFunctionType)


def _slots(cls: type) -> dict[str, MemberDescriptorType]:
    """What `__slots__` of a class and its bases made."""
    return {
        name: thing
        for base in reversed(cls.__mro__)
        if not _is_foreign(base)
        for name, thing in vars(base).items()
        if isinstance(thing, MemberDescriptorType)
    }


def _is_set(slot: MemberDescriptorType, holder: Any) -> bool:
    try:
        slot.__get__(holder)
    except AttributeError:
        return False
    return True
