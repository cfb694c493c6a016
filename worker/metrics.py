"""The worker's metrics. Names follow the conventions of Prometheus; labels never hold anything of a client's data."""

from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from relay.core.observability import NAMESPACE, new_registry
from relay.core.polling import Schedule

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)
_LATENESS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 3600)


class WorkerMetrics:
    """What a worker counts and measures."""

    def __init__(self) -> None:
        self.registry: CollectorRegistry = new_registry("worker")
        self.submits = self._counters("submits", "Submits to the upstream, by how they ended.", "outcome")
        self.polls = self._counters("polls", "Polls of the upstream, by what they found.", "outcome")
        self.attempts = self._counters("callback_attempts", "Attempts at callbacks, by how they ended.", "outcome")
        self.outcomes = self._counters("job_outcomes", "Jobs that ended, by status and error code.", "status", "code")
        self.ambiguous = self._counter("ambiguous_submits", "Submits whose answer was lost.")
        self.orphans = self._counter("orphaned_submits", "Upstream jobs that were paid for and belong to no job.")
        self.refused = self._counters("refused_saves", "Saves of steps whose lease was lost.", "kind")
        self.credits = self._counters("upstream_credits", "Credits that finished jobs used.", "client")
        self.unauthorized = self._counter("upstream_unauthorized", "Submits that the upstream refused the key of.")
        self.due = self._gauge("due", "Entries that are due now.", "kind")
        self.destinations = self._gauge("destinations", "Destinations whose callbacks wait, by why.", "state")
        self.destination_changes = self._counter(
            "destination_changes", "Destinations that became unresponsive or paused, or recovered.", "change"
        )
        self._learned = self._gauge("poll_schedule_learned", "1 where enough jobs were seen to learn from.", "jobs")
        self._expected_polls = self._gauge(
            "poll_schedule_expected_polls", "Polls that a job takes by the learned schedule.", "jobs"
        )
        self._expected_lateness = self._gauge(
            "poll_schedule_expected_lateness_seconds", "Time from outcome to poll by the learned schedule.", "jobs"
        )
        self.running = self._gauge("steps_running", "Steps under way.")
        self.slots_free = self._gauge("slots_free", "Steps of a kind that may start now.", "kind")
        self.attempt_seconds = self._histogram(
            "callback_attempt_duration_seconds", "Time that one attempt took.", _SECONDS
        )
        self.lateness_seconds = self._histogram(
            "callback_lateness_seconds", "Time from the outcome to the first attempt.", _LATENESS
        )

    def poll_schedule(self, kind: str, schedule: Schedule) -> None:
        """Take note of a schedule that is in use from now on."""
        self._learned.labels(kind).set(schedule.is_learned)
        if schedule.expected is not None:
            self._expected_polls.labels(kind).set(schedule.expected.polls)
            self._expected_lateness.labels(kind).set(schedule.expected.lateness_s)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _counters(self, name: str, text: str, *labels: str) -> Callable[..., Counter]:
        """The counter of given labels. To find it takes longer than to count, and every step counts: found once."""
        return cache(self._counter(name, text, *labels).labels)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, namespace=NAMESPACE, registry=self.registry, buckets=buckets)
