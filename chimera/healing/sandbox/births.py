"""Whether another process or thread of a run may begin: asked by the kernel, each time, before it does.

RLIMIT_NPROC counts the processes of a user and does not hold for root. Looking at a run now and then is too late for a
fork bomb, which fills the machine's table of processes between two looks. So the run's own filter has the kernel hold
each clone until it is answered here (seccomp_unotify(2)).
"""

from __future__ import annotations

import errno
import fcntl
import select
import struct
from collections.abc import Callable

RECEIVE, SEND = 0xC0502100, 0xC0182101
CONTINUE = 1
NOTICE_BYTES = 80  # struct seccomp_notif


class Births:
    """Answers on `listener`. `most` may live at a time; `count` says how many do, and is asked only when it matters."""

    def __init__(self, listener: int, most: int, count: Callable[[], int]) -> None:
        self._listener = listener
        self._most = most
        self._count = count
        self._left = 0
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def answer(self) -> bool | None:
        """Answer one question: whether it was a yes. None if nobody is left who could ask."""
        events = dict(self._poll.poll(0)).get(self._listener, 0)
        if not events & select.POLLIN:
            return None if events else True
        notice = bytearray(NOTICE_BYTES)
        try:
            fcntl.ioctl(self._listener, RECEIVE, notice)
        except OSError:  # who asked has died
            return True
        if self._left <= 0:
            self._left = self._most - self._count()
        self._left -= 1
        allowed = self._left >= 0
        answer = (0, 0, CONTINUE) if allowed else (0, -errno.EAGAIN, 0)
        try:
            fcntl.ioctl(self._listener, SEND, struct.pack("=QqiI", *struct.unpack_from("=Q", notice), *answer))
        except OSError:
            return True
        return allowed
