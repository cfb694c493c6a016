"""Becomes another program, tied to the life of the one that started it. Alone knows how the kernel is asked for that.

Run as a script, not imported: `python -I -S tether.py PARENT SIGNAL COMMAND…`. A parent that is killed cannot end its
children, so each asks for a signal of its own; and doing it here, after the fork, needs no `preexec_fn`, which is not
safe beside threads. Where there is no prctl (it is Linux') the program runs untied.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def _main() -> None:
    parent, number, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        # It died before the kernel knew whom to tell.
        sys.exit(1)
    try:
        os.execv(command[0], command)  # noqa: S606 - the command is our own, and no shell is wanted
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    _main()
