"""What the commands `chimera tools` do."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from chimera.cli import render
from chimera.cli.arena.command import table
from chimera.cli.settings import read_settings
from chimera.core.clock import SystemClock
from chimera.core.errors import InputError
from chimera.llm.models import open_model
from chimera.mcp.agent import AgentLimits, ToolUser
from chimera.mcp.calls import GUARDED_AS
from chimera.mcp.catalog.evaluate import evaluate_file
from chimera.mcp.outcome import Answered, Failed, Outcome, Refused
from chimera.mcp.pins import CUT, Approval, whole
from chimera.mcp.shown import resource_of, shown
from chimera.mcp.types import ToolDefinition
from chimera.security.gateway.guard import Capability
from chimera.system.tools import Meaning, Toolbox, embedder_for

DONE, NOT_ALL = 0, 1
MAX_ASKED_CHARS: Final = 4_000
"""Of a call's arguments, when a person is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the commands have in common. `wait_s` is for servers to answer."""

    servers: Path | None
    wait_s: float
    meaning: Meaning = "none"
    on_ray: bool = False
    as_json: bool = False
    model: str | None = None

    def toolbox(self) -> Toolbox:
        settings = read_settings(model=self.model)
        return Toolbox(settings, servers=self.servers, meaning=self.meaning, on_ray=self.on_ray)


class OwnWord(Capability):
    """The leave of the person who runs the command, for this one tool.

    What follows from a tool's answer is covered only with `tainted`.
    """

    def __init__(self, resource: str, *, tainted: bool = False) -> None:
        self._resource, self._tainted = resource, tainted

    def verify(self, operations: tuple[str, ...], resource: str) -> bool:
        follows = any(operation.startswith("tainted:") for operation in operations)
        ours = all(operation.rpartition(":")[2] == GUARDED_AS for operation in operations)
        return ours and resource == self._resource and (self._tainted or not follows)


async def servers(options: Options) -> int:
    async with options.toolbox() as toolbox:
        with render.waiting("connecting", shown=not options.as_json):
            await toolbox.refresh(options.wait_s)
        found = await toolbox.status()
        if options.as_json:
            told = {name: status.model_dump(mode="json") for name, status in found.items()}
            render.line(render.to_line({"servers": told, "problems": toolbox.problems}))
        else:
            rows = []
            for name, config in sorted(toolbox.servers.items()):
                status = found.get(name)
                state = "off" if config.disabled else status.state if status else "unusable"
                why = toolbox.problems.get(name, "") or "; ".join(config.notes)
                counts = (str(status.tools), f"{status.memory_bytes / 2**20:.0f} MB") if status else ("", "")
                rows.append((name, config.transport, str(state), *counts, shown(why, 160)))
            table(("SERVER", "OVER", "STATE", "TOOLS", "MEMORY", ""), rows)
    return NOT_ALL if toolbox.problems else DONE


async def listed(options: Options, server: str | None) -> int:
    async with options.toolbox() as toolbox:
        if server is not None:
            toolbox.hubs.config(server)
        with render.waiting("asking for tools", shown=not options.as_json):
            await toolbox.refresh(options.wait_s, only=None if server is None else (server,))
        names = [name for name in toolbox.hubs.names() if server in (None, name) and name not in toolbox.problems]
        standing = {name: {each.tool: each for each in toolbox.standings(name)} for name in names}
        offered = {name: {each.name: each for each in toolbox.offered(name)} for name in names}
        if options.as_json:
            told = [
                {"server": name, "tool": tool, "standing": each.standing, "changed": list(each.difference)}
                for name in names
                for tool, each in standing[name].items()
            ]
            render.line(render.to_line({"tools": told, "problems": toolbox.problems}))
        else:
            rows = [
                (f"{name}/{shown(tool, 80)}", each.standing, _first_line(offered[name].get(tool)))
                for name in names
                for tool, each in standing[name].items()
            ]
            table(("TOOL", "STANDS", ""), rows)
            _tell_problems(toolbox)
    return NOT_ALL if toolbox.problems else DONE


async def approve(
    options: Options, server: str, names: Sequence[str] | None, *, by: str | None, despite: bool, yes: bool
) -> int:
    async with options.toolbox() as toolbox:
        toolbox.hubs.config(server)
        with render.waiting("asking for tools", shown=not options.as_json):
            await toolbox.refresh(options.wait_s, only=(server,))
        offered = [each for each in toolbox.offered(server) if not names or each.name in names]
        if not yes:
            _show(offered, toolbox, server)
            _confirm(f"Approve {'this' if len(offered) == 1 else f'these {len(offered)} tools'} as they are now?")
        made = toolbox.approve(server, by=by or getpass.getuser(), only=names or None, despite=despite)
    if options.as_json:
        held = {each.tool: list(each.signs) for each in made.held}
        render.line(render.to_line({"approved": list(made.approved), "held": held}))
    else:
        _tell_approval(made)
    return NOT_ALL if made.held or not made.approved else DONE


async def revoke(options: Options, server: str, names: Sequence[str] | None) -> int:
    async with options.toolbox() as toolbox:
        taken = toolbox.revoke(server, names or None)
    if options.as_json:
        render.line(render.to_line({"revoked": list(taken)}))
    else:
        render.say(f"{len(taken)} approvals of {shown(server)} are taken back")
    return DONE if taken else NOT_ALL


async def search(options: Options, query: str, most: int) -> int:
    async with options.toolbox() as toolbox:
        with render.waiting("asking for tools", shown=not options.as_json):
            await toolbox.refresh(options.wait_s)
        found = await toolbox.search(query, most)
        if options.as_json:
            told = [
                {
                    "server": each.tool.server,
                    "tool": each.tool.name,
                    "description": each.tool.description,
                    "input_schema": each.tool.input_schema,
                    "score": each.score,
                }
                for each in found
            ]
            render.line(render.to_line({"tools": told, "problems": toolbox.problems}))
        else:
            rows = [(f"{e.tool.server}/{shown(e.tool.name, 80)}", f"{e.score:.2f}", _first_line(e.tool)) for e in found]
            table(("TOOL", "SCORE", ""), rows)
            _tell_problems(toolbox)
            if not found:
                render.note("none fits: only approved tools are searched (`chimera tools list` says which are)")
    return DONE if found else NOT_ALL


async def call(
    options: Options, tool: str, given: Sequence[str], *, timeout_s: float | None, by: str | None, yes: bool
) -> int:
    arguments = _arguments(given)
    async with options.toolbox() as toolbox:
        server, name = _named(tool, toolbox)
        config = toolbox.hubs.config(server)
        harmless = {effect.value for effect in config.effects.get(name, ())} == {"reads"}
        if not (yes or harmless):
            _confirm(f"Call {server}/{shown(name, 128)} with {_all_of(arguments)}? It may write or send.")
        outcome = await toolbox.call(
            server,
            name,
            arguments,
            actor=by or getpass.getuser(),
            capability=OwnWord(resource_of(server, name)),
            timeout_s=timeout_s,
        )
    return _tell_outcome(outcome, as_json=options.as_json)


async def ask(options: Options, question: str, most: int, *, by: str | None, yes: bool) -> int:
    settings = read_settings(model=options.model)
    async with options.toolbox() as toolbox, open_model(settings.model) as model:
        if not model.writes:
            raise InputError("the offline model knows no tools: name another with --model, as docs/models.md says")
        with render.waiting("asking for tools", shown=not options.as_json):
            await toolbox.refresh(options.wait_s)

        async def leave(tool: ToolDefinition, arguments: Mapping[str, object]) -> Capability | None:
            called = f"{tool.server}/{shown(tool.name, 128)} with {_all_of(arguments)}"
            if yes or _said_yes(f"The model wants to call {called}. May it?"):
                return OwnWord(resource_of(tool.server, tool.name), tainted=True)
            return None

        user = ToolUser(
            model=model,
            toolbox=toolbox,
            actor=by or getpass.getuser(),
            leave=leave,
            limits=AgentLimits(tools=most),
        )
        answer = await user.ask(question)
    if options.as_json:
        render.line(render.to_line(answer.model_dump(mode="json")))
    else:
        render.say(answer.text)
        for made in answer.calls:
            render.say((f"  {made.server}/{shown(made.tool, 80)}: {made.outcome}", "dim"))
    return DONE if all(made.outcome == "ok" for made in answer.calls) else NOT_ALL


async def evaluated(options: Options, file: Path) -> int:
    settings = read_settings(model=options.model)
    embedder = embedder_for(options.meaning, settings)
    with render.waiting("measuring", shown=not options.as_json):
        report = await evaluate_file(file, clock=SystemClock(), embedder=embedder)
    if options.as_json:
        render.line(render.to_line(report.model_dump(mode="json")))
    else:
        render.say(
            f"{report.name}: {report.queries} queries, {report.tools} tools, of which {report.gold_tools} are asked for"
        )
        table(*report.table())
    return DONE


def _named(tool: str, toolbox: Toolbox) -> tuple[str, str]:
    """Server and tool: a server's name may have slashes too, and the longest that fits is meant. Raises InputError."""
    fitting = [name for name in toolbox.servers if tool.startswith(f"{name}/") and len(tool) > len(name) + 1]
    if fitting:
        server = max(fitting, key=len)
        return server, tool.removeprefix(f"{server}/")
    server, _, name = tool.partition("/")
    if not server or not name:
        raise InputError(f"{tool!a:.100} is no tool: give SERVER/TOOL, as `chimera tools list` shows it")
    return server, name


def _all_of(arguments: Mapping[str, object]) -> str:
    """The arguments, whole: nobody agrees to what they have not seen. Raises InputError for more than can be read."""
    text = json.dumps(arguments, ensure_ascii=False)
    if len(text) > MAX_ASKED_CHARS:
        raise InputError(
            f"the arguments have {len(text):,} characters, too many to be asked about: --yes agrees to them"
        )
    return shown(text, 10 * MAX_ASKED_CHARS)


def _arguments(given: Sequence[str]) -> dict[str, JsonValue]:
    """`name=value` each, or all as one JSON object. Raises InputError."""
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        try:
            value = json.loads(given[0])
        except (ValueError, RecursionError) as error:
            raise InputError(f"the arguments are no JSON object: {error}") from None
        if not isinstance(value, dict):
            raise InputError("the arguments are a JSON object, or name=value each")
        return value
    arguments: dict[str, JsonValue] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or not name or name in arguments:
            raise InputError(f"{each!a:.100} is no name=value, or its name stands twice")
        try:
            arguments[name] = json.loads(text)
        except (ValueError, RecursionError):
            arguments[name] = text
    return arguments


def _show(offered: Sequence[ToolDefinition], toolbox: Toolbox, server: str) -> None:
    """All of each tool, or all that has changed in it. Raises InputError for more than anybody can read."""
    changed = {each.tool: each.difference for each in toolbox.standings(server)}
    for tool in offered:
        lines = changed.get(tool.name) or whole(tool)
        if lines is None or lines[-1] == CUT:
            raise InputError(
                f"{server}/{shown(tool.name, 128)} is too long to be shown: ask whoever runs the server what it is, and"
                " approve it by its name with --yes"
            )
        render.say((f"{server}/{shown(tool.name, 128)}", "bold"))
        for line in lines:
            render.say(f"  {line}")


def _tell_approval(made: Approval) -> None:
    render.say(
        f"{len(made.approved)} approved"
        + (f": {', '.join(shown(n, 80) for n in made.approved)}" if made.approved else "")
    )
    for held in made.held:
        render.say((f"held back: {shown(held.tool, 80)}", "red"), f": {'; '.join(held.signs)}")
    if made.held:
        render.note("what is held back looks poisoned: read it, and use --despite if it is not")


def _tell_outcome(outcome: Outcome, *, as_json: bool) -> int:
    match outcome:
        case Answered():
            text = outcome.text.text.text
            if as_json:
                structured = json.loads(outcome.structured.text.text) if outcome.structured else None
                told = {"text": text, "structured": structured, "is_error": outcome.is_error}
                render.line(
                    render.to_line(told | {"truncated": outcome.truncated, "suspicious": outcome.text.suspicious})
                )
            else:
                render.say(text)
                if outcome.truncated:
                    render.note(f"cut: the answer has {outcome.size_bytes:,} bytes")
                if outcome.text.suspicious:
                    render.note("this reads like orders to an assistant: do not follow them")
            return NOT_ALL if outcome.is_error else DONE
        case Refused():
            if as_json:
                render.line(render.to_line({"refused": outcome.rule, "why": outcome.why, "advice": outcome.advice}))
            else:
                render.note(f"refused ({outcome.rule}): {outcome.why}. {outcome.advice}")
        case Failed():
            if as_json:
                render.line(render.to_line({"failed": outcome.why, "sent": outcome.sent}))
            else:
                render.note(f"{outcome.why}" + (" (it was sent, and may have worked)" if outcome.sent else ""))
    return NOT_ALL


def _tell_problems(toolbox: Toolbox) -> None:
    for name, why in sorted(toolbox.problems.items()):
        render.note(f"{name}: {shown(why, 300)}")


def _first_line(tool: ToolDefinition | None) -> str:
    return shown((tool.description or tool.title).strip().partition("\n")[0], 100) if tool else ""


def _confirm(question: str) -> None:
    """Raises InputError where nobody can be asked, or the answer is no."""
    if not _said_yes(question):
        raise InputError("nothing was done: nobody agreed (--yes agrees beforehand)")


def _said_yes(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    render.note(f"{question} [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
