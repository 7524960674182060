"""The one way to call a tool: approved, with fitting arguments, permitted, bounded, on record, and not believed.

A call passes the pin (`pins.py`), the tool's schema (`schema.py`), the gates of its server (`gates.py`) and authority
(`chimera.security.gateway.guard`), which asks for `writes:mcp` and the like on `mcp/SERVER/TOOL`. What a tool does
comes from the configuration; a server's own hints lower nothing, and a tool that nobody spoke of writes and sends. What
is refused is a value, and nothing was sent. What comes back is tainted and screened.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from pydantic import JsonValue

from chimera.core.clock import Clock
from chimera.core.errors import InputError, NotThere, Overloaded, SourceError
from chimera.core.hashing import canonical_json, digest
from chimera.llm.backoff import Backoff
from chimera.mcp.config import ServerConfig
from chimera.mcp.gates import Gates
from chimera.mcp.outcome import Answered, Failed, Outcome, Refused
from chimera.mcp.pins import Pins, hash_of
from chimera.mcp.schema import InputSchema
from chimera.mcp.shown import resource_of, shown, source_of
from chimera.mcp.types import ToolDefinition, ToolResult, Tools
from chimera.security.gateway.gateway import Screened, SecurityGateway
from chimera.security.gateway.guard import Call, Capability, Effect, Tool, ToolGuard
from chimera.security.gateway.taint import Tainted

GUARDED_AS: Final = "mcp"
"""What tools are called in operations, `writes:mcp`: the resource says which one."""

UNKNOWN_EFFECTS: Final = frozenset({Effect.WRITES, Effect.SENDS})
"""What a tool does of which nobody has said what it does."""

ACTION: Final = "tool.call"
MAX_TIMEOUT_S: Final = 3_600.0
GRACE_S: Final = 1.0
"""What whoever carries the call gets beyond its time, before the call is given up over its head."""

MAX_DEPTH: Final = 32
MAX_SCHEMAS: Final = 500
LONG_CHARS: Final = 4_000
"""A longer answer is screened in a thread, so that other calls go on."""

Sleep = Callable[[float], Awaitable[None]]


class Audit(Protocol):
    """Where calls are written down: `chimera.security.audit.AuditLog`. What cannot be written down is not done."""

    def append(
        self, actor: str, action: str, resource: str, outcome: str, detail: Mapping[str, JsonValue] | None = None
    ) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """Of one caller: arguments and answers in characters of JSON and text, calls at once over all servers, retries."""

    argument_chars: int = 200_000
    answer_chars: int = 50_000
    at_once: int = 64
    backoff: Backoff = field(default_factory=lambda: Backoff(rounds=3, base_s=0.2, longest_s=5.0))


@dataclass(frozen=True, slots=True)
class _Asked:
    """One call that somebody wants to make. `arguments` are as given, what is tainted in them marked."""

    id: str
    server: str
    tool: str
    actor: str
    arguments: Mapping[str, object]
    sources: frozenset[str]
    capability: Capability | None
    timeout_s: float | None

    @property
    def resource(self) -> str:
        return resource_of(self.server, self.tool)


class ToolCaller:
    """Makes calls for agents, over `tools`. One event loop."""

    def __init__(
        self,
        tools: Tools,
        pins: Pins,
        *,
        gateway: SecurityGateway,
        audit: Audit,
        clock: Clock,
        rng: random.Random,
        limits: CallLimits | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._tools = tools
        self._pins = pins
        self._gateway = gateway
        self._audit = audit
        self._clock = clock
        self._rng = rng
        self._limits = limits or CallLimits()
        self._sleep = sleep
        self._gates = Gates(clock=clock, at_once=self._limits.at_once)
        self._schemas: OrderedDict[str, InputSchema] = OrderedDict()

    async def call(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, object],
        *,
        trail_sources: frozenset[str],
        capability: Capability | None,
        actor: str,
        timeout_s: float | None = None,
    ) -> Outcome:
        """Call a tool in the name of `actor`, and say what came of it.

        `arguments` are JSON, in which texts may be `Tainted`. `trail_sources` is `Trail.sources` of the context that
        wants the call. `timeout_s` is for all attempts together; the server's own unless given. Raises AuditError or
        Overloaded where the call cannot be written down, StorageError where approvals cannot be read, and MissingExtra.
        """
        call_id = f"{self._rng.getrandbits(48):012x}"
        asked = _Asked(call_id, server, tool, actor, arguments, trail_sources, capability, timeout_s)
        values, unfit = self._plain(arguments)
        self._note(asked, "asked", {"arguments": digest(values), "from_outside": [*sorted(trail_sources)[:8]]})
        try:
            outcome = unfit or await self._outcome(asked, values)
        except BaseException as error:
            ended = "cancelled" if isinstance(error, asyncio.CancelledError) else "raised"
            self._note(asked, ended, {"error": type(error).__name__})
            raise
        self._note(asked, *_recorded(outcome))
        return outcome

    async def _outcome(self, asked: _Asked, values: dict[str, JsonValue]) -> Outcome:
        config = self._configured(asked)
        if isinstance(config, Refused):
            return config
        timeout_s = config.timeout_s if asked.timeout_s is None else asked.timeout_s
        if not 0.0 < timeout_s <= MAX_TIMEOUT_S:
            return Refused("arguments", f"a call takes up to {MAX_TIMEOUT_S:g} s, not {timeout_s}", "give another time")
        if refused := self._gates.full():
            return refused
        until = self._clock.monotonic() + timeout_s
        with self._gates.running():
            definition = await self._found(asked, timeout_s)
            if not isinstance(definition, ToolDefinition):
                return definition
            refused = (
                self._unapproved(definition)
                or self._misfit(definition, values)
                or self._gates.broken(asked.server)
                or self._gates.take(config)
                or self._unauthorized(asked, config)  # last, since it may use a capability up
            )
            return refused or await self._attempts(asked, config, values, until)

    def _plain(self, arguments: Mapping[str, object]) -> tuple[dict[str, JsonValue], Refused | None]:
        try:
            made = {_name(name): _unmarked(value, MAX_DEPTH) for name, value in arguments.items()}
            size = len(canonical_json(made).encode())
        except (ValueError, InputError) as error:
            why = error.message if isinstance(error, InputError) else "the arguments are not JSON"
            return {}, Refused("arguments", why, "give JSON: texts, numbers, lists and objects")
        if size > self._limits.argument_chars:
            most = self._limits.argument_chars
            return {}, Refused("arguments", f"{size} bytes of arguments are too many", f"give at most {most}")
        return made, None

    def _configured(self, asked: _Asked) -> ServerConfig | Refused:
        try:
            return self._tools.config(asked.server)
        except NotThere:
            return _unused(asked)

    async def _found(self, asked: _Asked, timeout_s: float) -> ToolDefinition | Refused | Failed:
        """The tool as the server describes it now."""
        server = shown(asked.server, 128)
        try:
            async with asyncio.timeout(timeout_s):
                offered = [each for each in await self._tools.tools(asked.server) if each.name == asked.tool]
        except NotThere:
            return _unused(asked)
        except InputError:
            return Refused("server", f"{server} cannot be used as it is configured", "`chimera tools servers` says why")
        except Overloaded as error:
            return Failed(f"{server} cannot be reached just now", False, 0, error.retry_after_s)
        except (SourceError, TimeoutError):
            return Failed(f"{server} did not say which tools it has", False, 0)
        if not offered:
            return Refused("tool", f"{server} has no tool {shown(asked.tool, 128)}", "search for the tool again")
        if len(offered) > 1:
            return Refused("pin", f"{server} has two tools of that name", "tell whoever runs the server")
        return offered[0]

    def _unapproved(self, definition: ToolDefinition) -> Refused | None:
        standing = self._pins.standing(definition)
        if standing == "approved":
            return None
        why = "has changed since it was approved" if standing == "changed" else "is not approved"
        advice = f"have a person look at it: `chimera tools approve {definition.server}`"
        return Refused("pin", f"{definition.server}/{shown(definition.name, 128)} {why}", advice)

    def _misfit(self, definition: ToolDefinition, values: Mapping[str, JsonValue]) -> Refused | None:
        try:
            problems = self._schema(definition).problems(values)
        except InputError as error:
            return Refused("schema", error.message, "tell whoever runs the server; use another tool")
        if not problems:
            return None
        return Refused("arguments", "; ".join(problems), "change the arguments so that they fit the tool's schema")

    def _schema(self, definition: ToolDefinition) -> InputSchema:
        key = hash_of(definition)
        made = self._schemas.pop(key, None) or InputSchema(definition.input_schema)
        self._schemas[key] = made
        if len(self._schemas) > MAX_SCHEMAS:
            self._schemas.popitem(last=False)
        return made

    def _unauthorized(self, asked: _Asked, config: ServerConfig) -> Refused | None:
        effects = config.effects.get(asked.tool) or UNKNOWN_EFFECTS
        guard = ToolGuard([Tool(GUARDED_AS, effects)])
        wanted = Call(GUARDED_AS, asked.resource, asked.arguments)
        verdict = guard.allow(wanted, tainted_by=asked.sources, capability=asked.capability)
        if verdict.allowed:
            return None
        return Refused("authority", verdict.why, f"ask for a capability on {asked.resource}")

    async def _attempts(
        self, asked: _Asked, config: ServerConfig, values: dict[str, JsonValue], until: float
    ) -> Outcome:
        """Send it, and again where that is safe: nothing was sent, or the tool is one that may be asked twice.

        The first attempt has been counted by the rate.
        """
        sent = False
        for attempt in range(1, self._limits.backoff.rounds + 1):
            if attempt > 1 and (refused := self._gates.take(config)):
                return Failed(refused.why, sent, attempt - 1, refused.retry_after_s or 0.0)
            try:
                result = await self._once(asked, values, until)
            except Overloaded as error:
                wait_s = error.retry_after_s
            except SourceError:
                sent, wait_s = True, 0.0
            except (NotThere, InputError):
                return Failed(f"{config.name} refuses the connection: see `chimera tools servers`", sent, attempt)
            else:
                return await self._answered(asked, result, attempt)
            pause_s = self._limits.backoff.pause_s(attempt, self._rng, wait_s)
            safe = not sent or asked.tool in config.idempotent
            if not safe or pause_s is None or self._clock.monotonic() + pause_s >= until:
                break
            await self._sleep(pause_s)
        why = "gave no answer: the call may have worked" if sent else "cannot be reached just now"
        return Failed(f"{config.name} {why}", sent, attempt, wait_s)

    async def _once(self, asked: _Asked, values: dict[str, JsonValue], until: float) -> ToolResult:
        """One attempt. Only silence speaks against a server: one that cannot be reached has the hub's own pauses."""
        now = self._clock.monotonic()
        breaker = self._gates.breaker(asked.server)
        permit = breaker.begin(now)
        if permit is None:
            raise Overloaded("left alone, or another call is the probe", max(1.0, breaker.back_in_s(now)))
        left_s = max(until - now, 0.001)
        good: bool | None = None
        try:
            async with asyncio.timeout(left_s + GRACE_S):
                result = await self._tools.call(asked.server, asked.tool, values, timeout_s=left_s)
            good = True
            return result
        except TimeoutError:
            good = False
            raise SourceError("out of time") from None
        except SourceError:
            good = False
            raise
        finally:
            breaker.end(permit, self._clock.monotonic(), good)

    async def _answered(self, asked: _Asked, result: ToolResult, attempts: int) -> Answered:
        most = self._limits.answer_chars
        cut = len(result.text) > most
        structured = "" if result.structured is None else _json(result.structured)
        dropped = len(structured) > most or (result.structured is not None and not structured)
        source = source_of(asked.server, asked.tool)
        text = await self._screened(result.text[:most], source)
        return Answered(
            text=text,
            structured=None if dropped or not structured else await self._screened(structured, source),
            is_error=result.is_error,
            truncated=result.truncated or cut or dropped,
            size_bytes=result.size_bytes,
            attempts=attempts,
        )

    async def _screened(self, text: str, source: str) -> Screened:
        text = text.encode(errors="replace").decode()
        if len(text) < LONG_CHARS:
            return self._gateway.screen(text, source)
        return await asyncio.to_thread(self._gateway.screen, text, source)

    def _note(self, asked: _Asked, outcome: str, detail: dict[str, JsonValue]) -> None:
        self._audit.append(asked.actor, ACTION, asked.resource, outcome, detail | {"call": asked.id})


def _unused(asked: _Asked) -> Refused:
    return Refused("server", f"no server {shown(asked.server, 128)} is in use", "`chimera tools servers` lists them")


def _recorded(outcome: Outcome) -> tuple[str, dict[str, JsonValue]]:
    match outcome:
        case Answered():
            seen: list[JsonValue] = [*sorted({finding.kind for finding in outcome.text.findings})]
            ended = "error" if outcome.is_error else "ok"
            return ended, {"attempts": outcome.attempts, "bytes": outcome.size_bytes, "seen": seen}
        case Refused():
            return "refused", {"rule": outcome.rule}
        case Failed():
            return "failed", {"sent": outcome.sent, "attempts": outcome.attempts}


def _unmarked(value: object, depth: int) -> JsonValue:
    """The value as plain JSON: the guard has seen what was tainted in it by then, or sees it before it is sent."""
    match value:
        case Tainted(text=text):
            return text
        case None | bool() | int() | float() | str():
            return value
        case _ if depth == 0:
            raise InputError(f"the arguments are nested deeper than {MAX_DEPTH}")
        case Mapping():
            return {_name(name): _unmarked(each, depth - 1) for name, each in value.items()}
        case list() | tuple():
            return [_unmarked(each, depth - 1) for each in value]
        case _:
            raise InputError(f"a {type(value).__name__} among the arguments is not JSON")


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise InputError("a name among the arguments is no text")
    return name


def _json(value: JsonValue) -> str:
    """Canonical JSON; empty for what is none."""
    try:
        return canonical_json(value)
    except (ValueError, RecursionError):
        return ""
