"""The worker's metrics. Names follow the conventions of Prometheus; labels never hold anything of a client's data.

What can be counted is there from the start, at 0: a counter that appears with its first event hides that one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from relay.core.gauges import gauge, gauges
from relay.core.loop_lag import loop_lag
from relay.core.model import AttemptOutcome, ClientName, ErrorCode, JobStatus
from relay.core.observability import NAMESPACE, new_registry
from relay.core.policy import Trouble
from relay.core.polling import Schedule
from relay.core.store.work import Look, News
from worker.upstream_answers import (
    Ambiguous,
    CreditsExhausted,
    Done,
    Lost,
    PollOutcome,
    PollUnavailable,
    RateLimited,
    Rejected,
    StillPending,
    SubmitOutcome,
    Submitted,
    Unauthorized,
    Unavailable,
    Unsent,
    UpstreamFailed,
)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)
_LATENESS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 3600)
_JOB_SECONDS = (1, 2.5, 5, 7.5, 10, 15, 20, 30, 45, 60, 120, 300, 600, 1800)
_COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
_KINDS = ("submit", "poll", "deliver")
#: What an upstream key is paused for.
_PAUSES = (Trouble.RATE_LIMITED, Trouble.CREDITS)

_SUBMITS: Mapping[type[SubmitOutcome], str] = {
    Submitted: "submitted",
    Rejected: "rejected",
    Unauthorized: "unauthorized",
    RateLimited: "rate_limited",
    CreditsExhausted: "credits_exhausted",
    Unavailable: "unavailable",
    Unsent: "unsent",
    Ambiguous: "ambiguous",
}
_POLLS: Mapping[type[PollOutcome], str] = {
    StillPending: "pending",
    Done: "done",
    UpstreamFailed: "failed",
    Lost: "lost",
    PollUnavailable: "unavailable",
}
#: How jobs end here; those that are cancelled end elsewhere.
_ENDS = (
    (JobStatus.DONE.value, ""),
    (JobStatus.TIMED_OUT.value, ErrorCode.DEADLINE_EXCEEDED.value),
    *((JobStatus.FAILED.value, code.value) for code in ErrorCode if code is not ErrorCode.DEADLINE_EXCEEDED),
)


def _found_once(counter: Counter, known: Iterable[tuple[str, ...]]) -> Callable[..., Counter]:
    """The counters of given labels. To find one takes longer than to count, and every step counts: found once."""
    find = cache(counter.labels)
    for labels in known:
        find(*labels)
    return find


class WorkerMetrics:
    """What a worker counts and measures; `clients` are those that are configured."""

    def __init__(self, clients: Iterable[ClientName] = ()) -> None:
        self.registry: CollectorRegistry = new_registry("worker")
        self.looked = _Looked(clients)
        self.registry.register(self.looked)
        self._submits = self._counters(
            "submits", "Submits to the upstream, by how they ended.", outcome=_SUBMITS.values()
        )
        self._polls = self._counters("polls", "Polls of the upstream, by what they found.", outcome=_POLLS.values())
        self.attempts = self._counters(
            "callback_attempts", "Attempts at callbacks, by how they ended.", outcome=AttemptOutcome
        )
        outcomes = self._counter("job_outcomes", "Jobs that ended, by status and error code.", "status", "code")
        self._outcomes = _found_once(outcomes, _ENDS)
        self.ambiguous = self._counter("ambiguous_submits", "Submits whose answer was lost.")
        self.orphans = self._counter("orphaned_submits", "Upstream jobs that were paid for and belong to no job.")
        self.refused = self._counters("refused_saves", "Saves of steps whose lease was lost.", kind=_KINDS)
        self.leases_lost = self._counter("leases_lost", "Leases that ran out while their steps were under way.")
        self.credits = self._counters("upstream_credits", "Credits that finished jobs used.", client=clients)
        self.faults = self._counter("internal_errors", "Requests, steps and batches that failed by a fault of ours.")
        self.destination_changes = self._counters(
            "destination_changes", "Destinations that became unresponsive or paused, or recovered.", change=News
        )
        self._learned = self._gauge("poll_schedule_learned", "1 where enough jobs were seen to learn from.", "scraper")
        self._expected_polls = self._gauge(
            "poll_schedule_expected_polls", "Polls that a job takes by the learned schedule.", "scraper"
        )
        self._expected_lateness = self._gauge(
            "poll_schedule_expected_lateness_seconds", "Time from outcome to poll by the learned schedule.", "scraper"
        )
        self.running = self._gauge("steps_running", "Steps under way.")
        self.slots = self._gauge("slots", "Steps of a kind that this worker may have under way.", "kind")
        self.slots_free = self._gauge("slots_free", "Steps of a kind that may start now.", "kind")
        self.submit_wait_seconds = self._histogram(
            "submit_wait_seconds", "Time from acceptance to the first submit.", _LATENESS
        )
        self.upstream_seconds = self._histogram(
            "upstream_job_duration_seconds", "Time from the submit to the poll that found an outcome.", _JOB_SECONDS
        )
        self.polls_per_job = self._histogram("polls_per_job", "Polls that it took to find an outcome.", _COUNTS)
        self.attempt_seconds = self._histogram(
            "callback_attempt_duration_seconds", "Time that one attempt took.", _SECONDS
        )
        self.lateness_seconds = self._histogram(
            "callback_lateness_seconds", "Time from the outcome to the first attempt.", _LATENESS
        )
        self.loop_lag = loop_lag(self.registry)

    def submitted(self, outcome: SubmitOutcome) -> None:
        """Count a submit."""
        self._submits(_SUBMITS[type(outcome)]).inc()

    def polled(self, outcome: PollOutcome) -> None:
        """Count a poll."""
        self._polls(_POLLS[type(outcome)]).inc()

    def ended(self, status: JobStatus, code: ErrorCode | None) -> None:
        """Count an outcome."""
        self._outcomes(status.value, code.value if code is not None else "").inc()

    def poll_schedule(self, scraper: str, schedule: Schedule) -> None:
        """Take note of a schedule that is in use from now on."""
        self._learned.labels(scraper).set(schedule.is_learned)
        if schedule.expected is not None:
            self._expected_polls.labels(scraper).set(schedule.expected.polls)
            self._expected_lateness.labels(scraper).set(schedule.expected.lateness_s)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _counters(self, name: str, text: str, **known: Iterable[str]) -> Callable[..., Counter]:
        """A counter with one label, by its value."""
        [(label, values)] = known.items()
        return _found_once(self._counter(name, text, label), [(str(value),) for value in values])

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, namespace=NAMESPACE, registry=self.registry, buckets=buckets)


class _Looked(Collector):
    """What the pump saw last: the whole system's, the same in every worker. Nothing while the store is out of reach."""

    def __init__(self, clients: Iterable[ClientName]) -> None:
        self._clients = frozenset(clients)
        self.look: Look | None = None

    def collect(self) -> Iterator[Metric]:
        """The gauges, made of the last look when they are asked for."""
        look = self.look
        yield gauge("store_up", "1 while the store is reached.", int(look is not None))
        if look is None:
            return
        submits = [seen for name, seen in look.clients.items() if name in self._clients]
        held = [seen for seen in submits if seen.paused_until_ms > look.now_ms]
        free = [seen for seen in submits if seen.paused_until_ms <= look.now_ms]
        first_ms = min((seen.since_ms for seen in free), default=look.now_ms)
        kinds = (
            ("submit", sum(seen.due for seen in free), first_ms),
            ("poll", look.poll, look.poll_since_ms),
            ("deliver", look.deliver, look.deliver_since_ms),
            ("enlist", look.enlist, look.enlist_since_ms),
            ("purge", look.purge, look.purge_since_ms),
        )
        text = "Entries of a due set whose time has come and that nothing holds back."
        yield gauges("due", text, ["kind"], [([kind], count) for kind, count, _ in kinds])
        text = "How long the oldest entry has been due, or the first callback has waited for a slot."
        lags = [([kind], max(0, look.now_ms - since_ms) / 1000) for kind, _, since_ms in kinds]
        yield gauges("due_lag_seconds", text, ["kind"], lags)
        count = sum(seen.due for seen in held)
        yield gauge("submits_held", "Submits that are due and wait because their upstream key is paused.", count)
        paused = [([why.value], sum(seen.paused_by is why for seen in held)) for why in _PAUSES]
        yield gauges("clients_paused", "Clients whose upstream key is paused, by why.", ["reason"], paused)
        states = [(["unresponsive"], look.unresponsive), (["paused"], look.paused)]
        yield gauges("destinations", "Destinations whose callbacks wait, by why.", ["state"], states)
