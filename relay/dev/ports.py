"""Ports of the loopback interface for what `dev` and the tests start."""

import contextlib
import random
import socket

#: Below those that systems hand out by themselves: one of those may be taken, by any outgoing connection, between
#: looking and listening.
_FIRST, _LAST = 20_000, 31_999


def free_port() -> int:
    """A port that nobody uses now, and that the system gives to nobody who does not name it."""
    while True:
        port = random.randint(_FIRST, _LAST)
        with socket.socket() as listener, contextlib.suppress(OSError):
            # Without SO_REUSEADDR: what a connection has just left is not free.
            listener.bind(("127.0.0.1", port))
            return port
