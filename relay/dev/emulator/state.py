"""What the emulated upstream remembers: jobs, credits, and counts to check an account by.

A job's state is a function of the job and the time: ten thousand of them need no timer.
"""

import heapq
import random
import uuid
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from relay.dev.emulator.accounts import Accounts
from relay.dev.emulator.faults import Faults
from relay.dev.emulator.markers import Markers, markers_of
from relay.dev.emulator.scrapers import Ask, answer, draw_latency_s
from relay.dev.emulator.settings import EmulatorSettings

#: A scraper, its prompt, country and own parameters: what makes two questions the same.
_Question = tuple[str, str, str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class EmulatedJob:
    """One submitted job. Times are Unix seconds."""

    id: str = field(repr=False)
    ask: Ask
    #: The hash of the key that paid for it.
    key: str
    created_s: float
    #: None: it never ends.
    ends_s: float | None
    fails: bool
    cached: bool
    credits: int
    result_bytes: int
    #: As they came; empty where they did not.
    timeout: str = ""
    bypass_cache: str = ""

    def is_ended(self, now_s: float) -> bool:
        """Whether it is done or failed by now."""
        return self.ends_s is not None and now_s >= self.ends_s

    def status(self, now_s: float) -> str:
        """`pending`, `done` or `failed`."""
        if not self.is_ended(now_s):
            return "pending"
        return "failed" if self.fails else "done"

    def result(self) -> dict[str, object]:
        """What the job came to; asked of jobs that are done."""
        assert self.ends_s is not None  # noqa: S101 - a job that never ends is never done
        return answer(
            self.ask,
            job_id=self.id,
            credits_used=self.credits,
            elapsed_ms=round((self.ends_s - self.created_s) * 1000),
            cached=self.cached,
            at_least_bytes=self.result_bytes,
        )


class State:
    """The emulated upstream's memory: at most `max_jobs` jobs, each for `retention_s`."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self.settings = settings
        self.rng = random.Random(settings.seed)
        self.faults = Faults(self.rng, settings.fault_sequence)
        self.accounts = Accounts()
        self.counts: Counter[str] = Counter()
        #: How often each scraper was given each prompt.
        self.submits_of: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._jobs: OrderedDict[str, EmulatedJob] = OrderedDict()
        #: Jobs that will fail and have not given their credits back yet, by when they will.
        self._failing: list[tuple[float, str, str, int]] = []
        #: When each question was, or will be, answered first.
        self._answered_s: OrderedDict[_Question, float] = OrderedDict()

    def credits_left(self, key: str, now_s: float) -> int:
        """What the key may still spend; failed jobs give theirs back."""
        self.settle(now_s)
        return self.settings.credits - self.accounts.spent(key)

    def markers_of(self, prompt: str) -> Markers:
        """What the prompt asks for, unless prompts may not."""
        return markers_of(prompt) if self.settings.markers else Markers()

    def submit(
        self, key: str, ask: Ask, *, timeout: str, bypass_cache: str, is_bypassing: bool, now_s: float
    ) -> EmulatedJob:
        """Take a job and its credits. `key` is a hash; `timeout` and `bypass_cache` are kept as they came."""
        settings, markers = self.settings, self.markers_of(ask.prompt)
        cached = not is_bypassing and self._answered_s.get(_question(ask), now_s + 1) <= now_s
        if markers.latency_s is not None:
            latency_s = markers.latency_s
        elif cached:
            latency_s = settings.cached_latency_s
        else:
            latency_s = draw_latency_s(self.rng, ask) * settings.latency_scale
        job = EmulatedJob(
            id=str(uuid.uuid4()),
            ask=ask,
            key=key,
            created_s=now_s,
            ends_s=None if markers.never_ends else now_s + latency_s + markers.slower_s,
            fails=markers.fails or self.rng.random() < settings.failure_rate,
            cached=cached,
            credits=settings.credits_per_job,
            result_bytes=settings.result_bytes if markers.result_bytes is None else markers.result_bytes,
            timeout=timeout,
            bypass_cache=bypass_cache,
        )
        self._take(job)
        self.counts["submits"] += 1
        self.submits_of[ask.scraper, ask.prompt] = self.submits_of.get((ask.scraper, ask.prompt), 0) + 1
        self._forget(now_s)
        return job

    def restore(self, jobs: Iterable[EmulatedJob], now_s: float) -> None:
        """Know jobs that were taken before a restart."""
        for job in jobs:
            self._take(job)
        self._forget(now_s)

    def find(self, job_id: str, now_s: float) -> EmulatedJob | None:
        """A job that is still known."""
        job = self._jobs.get(job_id)
        return job if job is not None and self._is_fresh(job, now_s) else None

    def statuses(self, now_s: float) -> Counter[str]:
        """How many jobs stand how."""
        return Counter(job.status(now_s) for job in self._jobs.values() if self._is_fresh(job, now_s))

    def settle(self, now_s: float) -> None:
        """Give the credits of jobs that have failed by now back."""
        while self._failing and self._failing[0][0] <= now_s:
            _, _, key, paid = heapq.heappop(self._failing)
            self.accounts.charge(key, -paid)

    def _take(self, job: EmulatedJob) -> None:
        self._jobs[job.id] = job
        self.accounts.charge(job.key, job.credits)
        if job.ends_s is None:
            return
        if job.fails:
            heapq.heappush(self._failing, (job.ends_s, job.id, job.key, job.credits))
        else:
            question = _question(job.ask)
            self._answered_s[question] = min(job.ends_s, self._answered_s.get(question, job.ends_s))

    def _is_fresh(self, job: EmulatedJob, now_s: float) -> bool:
        return now_s - job.created_s <= self.settings.retention_s

    def _forget(self, now_s: float) -> None:
        limit = self.settings.max_jobs
        while self._jobs:
            oldest = next(iter(self._jobs.values()))
            if self._is_fresh(oldest, now_s) and len(self._jobs) <= limit:
                break
            self._jobs.popitem(last=False)
        for known in (self._answered_s, self.submits_of):
            while len(known) > limit:
                known.popitem(last=False)


def _question(ask: Ask) -> _Question:
    return ask.scraper, ask.prompt, ask.country, tuple(sorted(ask.params.items()))
