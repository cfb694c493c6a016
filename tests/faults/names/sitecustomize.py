"""Has a process ask a test for addresses: Python runs this at its start, where this folder is on the PYTHONPATH.

The server at NAME_SERVER (`address:port`) takes the place of the system's. Everything else is as always: c-ares asks
over UDP, waits, asks again and gives up.
"""

import os
from typing import Any

import pycares

_SERVER = os.environ["NAME_SERVER"]


class _Channel(pycares.Channel):
    def __init__(self, **options: Any) -> None:
        super().__init__(**{"servers": (_SERVER,), **options})


pycares.Channel = _Channel  # type: ignore[misc]  # to replace it is the purpose
