"""A policy is an agent's behaviour: `(task, context) -> value | Reply`, a function or an object, sync or async."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import cloudpickle
from pydantic import JsonValue, ValidationError

from chimera.core.config import Settings
from chimera.core.errors import BudgetExceeded, PolicyError, ReplyError
from chimera.core.hashing import canonical_json, digest
from chimera.core.rng import rng
from chimera.core.types import AgentSpec, Budget, Isolation, Reply, Spend
from chimera.swarm.attempt import Attempt, Settled, Work

Policy = Callable[..., Any]

MAX_POLICY_BYTES = 2_900_000

MAX_USD = 1e12
"""Dollars in one go: sums of such amounts stay finite."""

MAX_COUNT = 1 << 63


class Meter:
    """What one attempt has spent, and may spend: what it was granted is never passed."""

    def __init__(self, grant: Budget) -> None:
        self.grant = grant
        self._usd, self._tokens, self._calls = 0.0, 0, 0
        self._closed = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """The attempt has ended: nothing more may be spent, also by a policy that goes on."""
        with self._lock:
            self._closed = True

    def spend(self, *, usd: float = 0.0, tokens: int = 0, calls: int = 0) -> None:
        """Count this in before it is spent. Raises BudgetExceeded, and has then counted nothing.

        Raises ValueError for what is no amount: negative, infinite, NaN, or a part of a token or call.
        """
        if not (0.0 <= usd < MAX_USD and _is_count(tokens) and _is_count(calls)):
            raise ValueError(f"not an amount to spend: usd={usd}, tokens={tokens}, calls={calls}")
        with self._lock:
            if self._closed:
                raise BudgetExceeded("this attempt has ended: nothing is reserved for it any more")
            after = {"usd": self._usd + usd, "tokens": self._tokens + tokens, "calls": self._calls + calls}
            for name, amount in after.items():
                limit = getattr(self.grant, name)
                if limit is not None and amount > limit * (1 + 1e-12):
                    raise BudgetExceeded(f"{amount:g} {name} would be spent; {limit:g} are reserved for this attempt")
            self._usd, self._tokens, self._calls = after["usd"], int(after["tokens"]), int(after["calls"])

    def total(self, seconds: float) -> Spend:
        """All that was spent, in `seconds`."""
        if not (self._usd or self._tokens or self._calls):
            return Spend.model_construct(usd=0.0, tokens=0, calls=0, seconds=seconds)
        return Spend(usd=self._usd, tokens=self._tokens, calls=self._calls, seconds=seconds)


def _is_count(number: int) -> bool:
    return isinstance(number, int) and 0 <= number < MAX_COUNT


class Memory(Protocol):
    """What an agent remembers between its tasks. It is the agent's own, and survives its cell."""

    async def get(self, name: str) -> JsonValue:
        """The value under `name`, or None."""
        ...

    async def put(self, name: str, value: JsonValue) -> None:
        """Keep `value` under `name`. Raises StorageError when it cannot be kept."""
        ...


@dataclass(frozen=True)
class Context:
    """What a policy is told besides its task.

    `upstream` holds the decided tasks that this one depends on, by id. `idempotency_key` is the same for every try of
    this piece of work: hand it to whatever has side effects. `timeout_s` is how long the attempt may run. `spend`
    counts what is about to be spent, and raises BudgetExceeded rather than let the budget be passed. `memory` is the
    agent's own. `rng` is seeded by the work, not by chance.
    """

    agent_id: str
    role: str
    mission_id: str
    task_id: str
    replica: int
    attempt: int
    timeout_s: float
    idempotency_key: str
    upstream: Mapping[str, Settled]
    settings: Settings
    memory: Memory
    budget: Budget
    spend: Callable[..., None]
    goal: str = ""

    @classmethod
    def of(
        cls, attempt: Attempt, work: Work, *, agent_id: str, role: str, settings: Settings, memory: Memory, meter: Meter
    ) -> Context:
        return cls(
            agent_id=agent_id,
            role=role,
            mission_id=attempt.mission_id,
            task_id=attempt.task_id,
            replica=attempt.replica,
            attempt=attempt.number,
            timeout_s=attempt.timeout_s,
            idempotency_key=attempt.idempotency_key,
            upstream=work.upstream,
            settings=settings,
            memory=memory,
            budget=meter.grant,
            spend=meter.spend,
            goal=work.task.goal,
        )

    @cached_property
    def rng(self) -> random.Random:
        """A generator of this work's own."""
        return rng(self.goal, self.task_id, self.replica)


@dataclass(frozen=True)
class Seat:
    """An agent as it travels: its policy by name, or pickled by the process that wrote it and opened only in a cell."""

    agent_id: str
    role: str
    policy: str
    isolation: Isolation
    options: Mapping[str, JsonValue]
    pickled: bytes = b""
    skills: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: AgentSpec, *, agent_id: str = "") -> Seat:
        """Pack `spec` for the journey. Raises PolicyError for a policy that cannot travel."""
        pickled = b""
        if isinstance(spec.policy, str):
            name = spec.policy
        else:
            name = getattr(spec.policy, "__qualname__", type(spec.policy).__qualname__)
            try:
                pickled = cloudpickle.dumps(spec.policy)
            except Exception as error:
                raise PolicyError(
                    f"policy {name} cannot be pickled ({error}); give it as 'package.module:name'"
                ) from error
            if len(pickled) > MAX_POLICY_BYTES:
                raise PolicyError(f"policy {name} is {len(pickled)} bytes pickled; the limit is {MAX_POLICY_BYTES}")
        return cls(agent_id, spec.role, name, spec.isolation, dict(spec.options), pickled, spec.skills)

    def named(self, agent_id: str) -> Seat:
        """This seat for the agent of that id; the pickled policy is shared."""
        return Seat(agent_id, self.role, self.policy, self.isolation, self.options, self.pickled, self.skills)

    @property
    def label(self) -> str:
        """The policy's short name, as votes and the dashboard show it."""
        return self.policy.rpartition(":")[2]

    @cached_property
    def identity(self) -> str:
        """What tells this policy from others: two of the same label are the same only if this is equal."""
        if not self.pickled and not self.options:
            return self.policy
        told: JsonValue = {"options": dict(self.options), "pickled": hashlib.blake2b(self.pickled).hexdigest()}
        return f"{self.policy}#{digest(told)}"

    def load(self) -> Policy:
        """The callable. A class is made once, with the agent's options. Raises PolicyError with what to do."""
        try:
            target = self._find()
        except PolicyError:
            raise
        except (Exception, SystemExit) as error:  # a user's module may raise anything when imported
            hint = "; is the module on the path of the workers (working_dir)?" if isinstance(error, ImportError) else ""
            raise PolicyError(f"policy {self.policy}: {type(error).__name__}: {error}{hint}") from error
        if not callable(target):
            raise PolicyError(f"policy {self.policy} is a {type(target).__name__}, not something that can be called")
        return target  # type: ignore[no-any-return]

    def _find(self) -> Any:
        target = cloudpickle.loads(self.pickled) if self.pickled else _resolve(self.policy)
        if inspect.isclass(target):
            if not any("__call__" in cls.__dict__ for cls in target.__mro__):
                raise PolicyError(f"policy {self.policy} is a class without __call__(task, context)")
            return target(**self.options)
        if self.options:
            raise PolicyError(f"policy {self.policy} is a function; options are for classes")
        return target


def _resolve(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise PolicyError(f"policy {name!r} is not of the form 'package.module:name'")
    target: Any = importlib.import_module(module)
    for part in attribute.split("."):
        target = getattr(target, part)
    return target


def check_reply(returned: Any, *, max_bytes: int) -> tuple[Reply, bytes]:
    """What a policy returned, as a Reply and its JSON. Raises ReplyError when it is nothing, no JSON, or too large."""
    if returned is None:
        raise ReplyError("the policy returned nothing; return a JSON value or a Reply")
    try:
        reply = returned if isinstance(returned, Reply) else Reply(value=returned)
        told = reply.model_dump(mode="json", warnings="error", exclude_defaults=True)
        encoded = canonical_json({"value": None, **told}).encode()
        if len(encoded) > max_bytes:
            raise ReplyError(f"the reply is {len(encoded)} bytes; the limit is {max_bytes} (CHIMERA_MAX_REPLY_BYTES)")
        # Made anew: what a policy hands over may have passed by its own checks, or bring methods of its own.
        return Reply.model_validate_json(encoded), encoded
    except ReplyError:
        raise
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ReplyError(f"not a JSON value: {where}: {first['msg']} ({type(returned).__name__})") from error
    except Exception as error:
        raise ReplyError(f"not a JSON value: {type(error).__name__}: {error}") from error
