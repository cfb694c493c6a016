"""What goes wrong: which fault a request meets, and how it is carried out. Alone knows what each fault does."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Iterable, Mapping

from aiohttp import web

from relay.dev.emulator.answers import CREDITS_USED_UP, json_answer, problem, rate_limited
from relay.dev.emulator.settings import Fault

_STATUSES: Mapping[str, tuple[int, str]] = {
    "400": (400, "Bad request."),
    "401": (401, "Invalid or revoked API key."),
    "404": (404, "Job not found."),
    "408": (408, "The provider timed out."),
    "credits": (429, CREDITS_USED_UP),
    "500": (500, "Scraper error."),
    "503": (503, "Scraper pool is warming up."),
    "504": (504, "Gateway timeout."),
}


class Faults:
    """Chooses the fault of each request: those that were put in line first, then by chance."""

    def __init__(self, rng: random.Random, sequence: Iterable[Fault]) -> None:
        self._rng = rng
        self._line: dict[str, deque[Fault]] = {}
        #: How often each fault was carried out.
        self.met: Counter[Fault] = Counter()
        self.put_in_line(sequence)

    def put_in_line(self, sequence: Iterable[Fault]) -> None:
        """Let the next requests meet these, in this order; what was in line before is dropped."""
        self._line = {"submit": deque(), "poll": deque()}
        for fault in sequence:
            self._line[fault.call].append(fault)

    def next(self, call: str, shares: Mapping[Fault, float]) -> Fault | None:
        """The fault of the next `submit` or `poll`; None where all goes well."""
        line = self._line[call]
        fault = line.popleft() if line else self._drawn(call, shares)
        return None if fault is None or fault.kind == "ok" else fault

    def _drawn(self, call: str, shares: Mapping[Fault, float]) -> Fault | None:
        possible = [(fault, share) for fault, share in shares.items() if fault.call == call]
        if not possible:
            # No draw: what else is drawn stays repeatable, however often is polled.
            return None
        # One draw for all: with one for each, the later ones would get a share of what the earlier ones left.
        drawn = self._rng.random()
        for fault, share in possible:
            if drawn < share:
                return fault
            drawn -= share
        return None


async def carry_out(request: web.Request, fault: Fault, *, hang_s: float, retry_after_s: int) -> web.StreamResponse:
    """Answer, or don't, as `fault` says."""
    match fault.kind:
        case "429":
            return rate_limited(retry_after_s)
        case "garbage":
            return web.Response(status=202 if fault.call == "submit" else 200, text="<html>not JSON")
        case "hang" | "stall":
            await asyncio.sleep(hang_s)
            return cut(request)
        case "reset" | "lost":
            return cut(request)
        case kind:
            status, detail = _STATUSES[kind]
            return json_answer(status, problem(detail))


def cut(request: web.Request) -> web.Response:
    """Cut the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    # Nothing of it reaches anybody.
    return web.Response()
