"""How a prompt steers its own job. Alone knows the convention.

`[fail]` ends failed · `[never]` never ends · `[latency=0.2]` takes so many seconds · `[slow=20]` so many more ·
`[status=503]` is answered with that status · `[reject]` with 400 · `[bytes=9000]` has a text of at least that size.
"""

import re
from dataclasses import dataclass

_MARKER = re.compile(r"\[(fail|never|reject|(?:latency|slow|status|bytes)=([0-9]{1,8}(?:\.[0-9]{1,6})?))\]")


@dataclass(frozen=True, slots=True)
class Markers:
    """What a prompt asks for; the defaults ask for nothing."""

    fails: bool = False
    never_ends: bool = False
    latency_s: float | None = None
    slower_s: float = 0.0
    #: An error status that the submit is answered with.
    status: int | None = None
    result_bytes: int | None = None


def markers_of(prompt: str) -> Markers:
    """The markers in `prompt`; the last of a kind counts, and what is not one of them means nothing."""
    found = {word.partition("=")[0]: value for word, value in _MARKER.findall(prompt)}
    status = 400 if "reject" in found else int(float(found.get("status") or 0))
    return Markers(
        fails="fail" in found,
        never_ends="never" in found,
        latency_s=float(found["latency"]) if "latency" in found else None,
        slower_s=float(found.get("slow") or 0),
        status=status if 400 <= status <= 599 else None,
        result_bytes=int(float(found["bytes"])) if "bytes" in found else None,
    )
