"""A port that a later process of the same user can take over while it is in use (SO_REUSEPORT, Linux).

The kernel deals new connections to all who listen, and resets those that wait at one who stops. So the newcomer first
steers them all to itself, with a classic BPF program (SO_ATTACH_REUSEPORT_CBPF, socket(7)); the one before takes in
what still came to it, and then stops.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import socket
import struct

from chimera.core.errors import InputError

log = logging.getLogger(__name__)

BACKLOG = 2_048

_SO_ATTACH_REUSEPORT_CBPF = 51
_BPF_RETURN_CONSTANT = 0x06
_SECOND = 1
"""The place in the group of who came second. Where there is none, the kernel deals as without a program."""


def bind(host: str, port: int, *, join: bool = False) -> socket.socket:
    """A socket at `host`:`port` (0: any that is free), which others may join later. It does not listen yet.

    Without `join` somebody who listens there already is an error: InputError.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        if not join and port:
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen(1)  # binding alone is refused only where somebody listens without SO_REUSEADDR
        made = socket.socket(family, kind, proto)  # without it asyncio leaves Nagle's algorithm on
    except (OSError, UnicodeError) as error:
        raise _refused(host, port, error) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.setblocking(False)
        made.bind(address)
    except OSError as error:
        made.close()
        raise _refused(host, port, error) from error
    return made


def take_over(newcomer: socket.socket) -> bool:
    """Have all new connections, where `newcomer` is the second who listens; whether the kernel does so."""
    code = (ctypes.c_uint64 * 1)(struct.unpack("Q", struct.pack("HBBI", _BPF_RETURN_CONSTANT, 0, 0, _SECOND))[0])
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(code))
    try:
        newcomer.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)
    except OSError as error:
        log.warning("new connections are not steered (%s): some may be reset when the one before ends", error)
        return False
    return True


def _refused(host: str, port: int, error: OSError | UnicodeError) -> InputError:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return InputError(f"port {port} of {host} is taken: name another with --port, or end who has it")
    return InputError(f"{host}:{port} cannot be listened at: {error}")
