"""Puts a process into another time: Python runs this at its start, where this folder is on the PYTHONPATH.

`time.time` is the machine's plus what the file at CLOCK_OFFSET says, in seconds, whenever it is read; the monotonic
clock stays as it is, as when somebody sets the clock of a machine. `datetime.now` is not moved: it asks the system.
"""

import os
import time
from pathlib import Path

_OFFSET = Path(os.environ["CLOCK_OFFSET"])
_true_time = time.time


def _stepped() -> float:
    return _true_time() + float(_OFFSET.read_text())


def _stepped_ns() -> int:
    return round(_stepped() * 1_000_000_000)


time.time, time.time_ns = _stepped, _stepped_ns
