"""Learning when to poll: what this worker's polls see goes into the store, and schedules come back.

Alone knows which jobs are alike: those of one scraper, and of one mode where it has modes.
"""

import asyncio
import re

import structlog

from relay.core.errors import StoreUnavailable
from relay.core.latency import LatencyHistogram
from relay.core.model import JobSpec
from relay.core.polling import Aim, Limits, Match, Schedule, learn_schedule
from relay.core.settings import Settings
from relay.core.store.work import WorkStore
from worker.metrics import WorkerMetrics

log = structlog.get_logger("worker.learning")

_PAUSE_S = 5.0
#: Others learn as well: what they saw is looked at this often, where this worker has seen nothing.
_REFRESH_S = 60.0
#: A schedule takes some milliseconds of the event loop: no more than so many in one turn.
_AT_ONCE = 4
#: Kinds that no job was of for so long are forgotten here, and known again from the store when one is.
_FORGOTTEN_S = 600.0
#: The upstream's account of a latency is believed as far as it fits what was seen of the job.
_CLOCK_SLACK_MS = 2_000
_MODE = re.compile(r"[A-Za-z0-9_.-]{1,40}")
#: Clients choose the modes. Beyond so many kinds, those of a scraper are not told apart.
_KINDS = 100
_AIMS = {"auto": Match.POLLS, "thrifty": Match.LATENESS}


def kind_of(spec: JobSpec) -> str:
    """What a job is like, as far as latencies go: its scraper, and its mode where that is a plain word."""
    mode = spec.params.get("mode")
    return f"{spec.scraper}/{mode}" if isinstance(mode, str) and _MODE.fullmatch(mode) else spec.scraper


class Learner:
    """The schedules of this process."""

    def __init__(self, store: WorkStore, settings: Settings, metrics: WorkerMetrics) -> None:
        self._store = store
        self._metrics = metrics
        self._learns = settings.poll_strategy == "learned"
        self._aim: Aim = _AIMS.get(str(settings.poll_lambda)) or float(settings.poll_lambda)
        self._fixed = Schedule(Limits.of(floor_s=settings.poll_min_interval_s, interval_s=settings.poll_interval_s))
        self._schedules: dict[str, Schedule] = {}
        self._fresh: dict[str, LatencyHistogram] = {}
        self._learned_s: dict[str, float] = {}
        self._used_s: dict[str, float] = {}

    def next_poll_ms(self, kind: str, age_ms: int) -> int:
        """How long after `age_ms` the next poll of a job comes that is pending then."""
        if not self._learns or not kind:
            return round(self._fixed.limits.interval_s * 1000)
        kind = self._known(kind)
        # A new one is learned at the next turn, which is soon.
        schedule = self._schedules.setdefault(kind, self._fixed)
        self._used_s[kind] = asyncio.get_running_loop().time()
        return round(schedule.next_poll(age_ms / 1000) * 1000)

    def saw_pending(self, kind: str, seen_ms: int, age_ms: int) -> None:
        """A job that was pending at `seen_ms` still was at `age_ms`."""
        if self._learns and kind:
            self._histogram(kind).add_pending(seen_ms / 1000, age_ms / 1000)

    def saw_end(self, kind: str, seen_ms: int, age_ms: int, latency_ms: int | None) -> None:
        """A job that was pending at `seen_ms` was seen to have ended at `age_ms`; after `latency_ms`, where known."""
        if not self._learns or not kind:
            return
        histogram = self._histogram(kind)
        if latency_ms is None or not 0 <= latency_ms <= age_ms + _CLOCK_SLACK_MS:
            # Or the age is wrong: the save of its submit waited for the store.
            histogram.add_ended_between(seen_ms / 1000, age_ms / 1000)
        else:
            histogram.add_ended(seen_ms / 1000, min(latency_ms, age_ms) / 1000)

    async def run(self) -> None:
        """Give to the store what was seen, and learn from what all workers saw, until cancelled."""
        if not self._learns:
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(_PAUSE_S)
            self._forget()
            try:
                for kind in self._due():
                    await self._learn(kind)
            except StoreUnavailable as error:
                log.warning("nothing learned: the store is out of reach", reason=str(error))

    def _due(self) -> list[str]:
        """Those that there is something to learn of; the ones that waited longest first."""
        now_s = asyncio.get_running_loop().time()
        due = [
            kind
            for kind in {*self._schedules, *self._fresh}
            if kind in self._fresh or now_s - self._last_learned_s(kind) > _REFRESH_S
        ]
        return sorted(due, key=self._last_learned_s)[:_AT_ONCE]

    def _last_learned_s(self, kind: str) -> float:
        return self._learned_s.get(kind, float("-inf"))

    def _forget(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for kind in [kind for kind, used_s in self._used_s.items() if now_s - used_s > _FORGOTTEN_S]:
            del self._schedules[kind], self._used_s[kind]
            self._learned_s.pop(kind, None)

    async def _learn(self, kind: str) -> None:
        fresh = self._fresh.pop(kind, None) or LatencyHistogram()
        try:
            known = await self._store.learn(kind, fresh)
        except StoreUnavailable:
            # What was seen meanwhile is newer.
            newer = self._fresh.get(kind)
            if newer is not None:
                fresh.absorb(newer)
            self._fresh[kind] = fresh
            raise
        schedule = learn_schedule(known, self._fixed.limits, self._aim)
        self._schedules[kind] = schedule
        self._learned_s[kind] = asyncio.get_running_loop().time()
        if "/" not in kind:  # modes are the clients' words, and no labels
            self._metrics.poll_schedule(kind, schedule)

    def _histogram(self, kind: str) -> LatencyHistogram:
        return self._fresh.setdefault(self._known(kind), LatencyHistogram())

    def _known(self, kind: str) -> str:
        if kind in self._schedules or len(self._schedules) < _KINDS:
            return kind
        return kind.partition("/")[0]
