"""The garbage collector of a service."""

import gc
import subprocess
import sys


def test_it_looks_seldom_and_only_at_what_came_later() -> None:
    """Set up in a process of its own: what was imported is out of its sight, and it is still there for cycles."""
    program = """
import gc
from relay.core.collector import set_up_collector
set_up_collector()
print(gc.isenabled(), gc.get_freeze_count() > 1000, gc.get_threshold()[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603 - our own
    enabled, frozen, young = done.stdout.split()
    assert (enabled, frozen) == ("True", "True")
    assert int(young) > gc.get_threshold()[0]
