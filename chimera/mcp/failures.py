"""What a failure of the SDK, of the network or of a process means: in our types, and in our words only.

Nothing that a server says enters a message here; its stderr is in its status, its errors are results of calls.
"""

from __future__ import annotations

from typing import Final

import mcp_types
from mcp import MCPError

from chimera.core.errors import ChimeraError, InputError, Overloaded, SourceError
from chimera.mcp.config import ServerConfig
from chimera.mcp.session import Session
from chimera.mcp.wire import Fault

BUSY_S: Final = 1.0
"""When to come back to a server that has too much to do, and does not say when."""


def failure_of(session: Session, error: MCPError, why_lost: str) -> ChimeraError | None:
    """What to raise for a call that an error ended; None if the error is the server's own answer to it."""
    name = session.config.name
    fault, wait_s = fault_of(session, error)
    match fault:
        case Fault.UNSENT | Fault.SESSION | Fault.BUSY:
            return Overloaded(f"the server {name} did not take the call: {error.error.message}", wait_s or BUSY_S)
        case Fault.REFUSED:
            return InputError(f"the server {name} refuses us: {error.error.message}: check its headers")
        case Fault.BROKEN:
            return SourceError(f"the server {name} gave no answer: {error.error.message}. It may have worked")
    if error.error.code == mcp_types.CONNECTION_CLOSED:
        why = why_lost or "the connection was closed"
        return SourceError(f"the server {name} gave no answer: {why}. It may have worked")
    if error.error.code == mcp_types.PARSE_ERROR:
        return SourceError(f"the server {name} gave no answer that can be read: it is too long, or no JSON")
    return None


def explained(
    config: ServerConfig, error: BaseException, session: Session | None = None, why_lost: str = ""
) -> ChimeraError:
    """Why a server cannot be connected: InputError if somebody has to change something first."""
    begin = f"the server {config.name} cannot be connected"
    fault = fault_of(session, error)[0] if session is not None and isinstance(error, MCPError) else None
    match error:
        case ChimeraError():  # it is explained already
            return error
        case TimeoutError():
            return SourceError(f"{begin}: no answer within {config.connect_s:g} s")
        case FileNotFoundError() | PermissionError() | NotADirectoryError():
            return InputError(f"{begin}: {config.place} cannot be started ({error.strerror}): check its entry")
        case MCPError() if fault is Fault.REFUSED:
            return InputError(f"{begin}: {error.error.message}: check its headers")
        case MCPError() if fault is not None:
            return SourceError(f"{begin}: {error.error.message}")
        case MCPError() if error.error.code != mcp_types.CONNECTION_CLOSED:
            over = "streamable HTTP at this address" if config.transport == "http" else "its standard output"
            return SourceError(f"{begin}: error {error.error.code}; does it speak MCP over {over}?")
        case _:
            return SourceError(f"{begin}: {why_lost or kind_of(error)}")


def fault_of(session: Session, error: MCPError) -> tuple[Fault | None, float]:
    """What went wrong with an HTTP request, and the seconds that the server asks to wait."""
    return (session.wire and session.wire.fault_of(error)) or (None, 0.0)


def first_of(error: BaseException | None) -> BaseException:
    """The first error of a group of them, which is what the SDK's task groups raise."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error or RuntimeError("the session ended before it began")


def kind_of(error: BaseException) -> str:
    return f"error {error.error.code}" if isinstance(error, MCPError) else type(error).__name__
