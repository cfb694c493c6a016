"""Poll schedules on trial: jobs whose latencies are known are polled in simulated time, and polls and lateness counted.

Knows nothing of the network: a poll takes no time, but comes a little after it is due, as a worker's do.
"""

import heapq
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.latencies import Job
from relay.core.latency import MEMORY_JOBS, LatencyHistogram
from relay.core.polling import Aim, Limits, Schedule, learn_schedule

#: How long after it is due a poll reaches the upstream: the worker looks for due jobs, and has others before it.
_BEHIND_S = 0.05
#: In a worker every few seconds; a simulation of an hour does not need more.
_RELEARN_S = 10.0


@dataclass(frozen=True, slots=True)
class Replayed:
    """What polling some jobs came to."""

    polls_per_job: float
    mean_late_s: float
    p50_late_s: float
    p99_late_s: float


def summary(polls: int, late_s: Sequence[float]) -> Replayed:
    """The figures of a number of jobs, one lateness each."""
    ranked = sorted(late_s)
    p50_s, p99_s = (ranked[min(len(ranked) - 1, math.floor(share * len(ranked)))] for share in (0.5, 0.99))
    return Replayed(polls / len(ranked), statistics.fmean(ranked), p50_s, p99_s)


def learn(latencies_s: Iterable[float], memory_jobs: float = MEMORY_JOBS) -> LatencyHistogram:
    """What is known after these jobs, in their order."""
    histogram = LatencyHistogram()
    for latency_s in latencies_s:
        one = LatencyHistogram()
        one.add_ended(0.0, latency_s)
        histogram.absorb(one, memory_jobs)
    return histogram


def replay(latencies_s: Sequence[float], schedule: Schedule, behind_s: float = _BEHIND_S) -> Replayed:
    """Poll each job by one schedule."""
    polls, late_s = 0, []
    for latency_s in latencies_s:
        age_s = 0.0
        while age_s < latency_s or age_s == 0.0:
            age_s += schedule.next_poll(age_s) + behind_s
            polls += 1
        late_s.append(age_s - latency_s)
    return summary(polls, late_s)


@dataclass(slots=True)
class _Life:
    """A job under way."""

    polls: int = 0
    seen_s: float = 0.0
    late_s: float = 0.0


def replay_online(
    jobs: Sequence[Job],
    limits: Limits,
    aim: Aim,
    *,
    count_from: int = 0,
    exact: bool = True,
    relearn_s: float = _RELEARN_S,
    behind_s: float = _BEHIND_S,
) -> Replayed:
    """Poll jobs side by side, each at its time, and learn from each poll; only jobs from the `count_from`-th count.

    `exact`: whether the upstream tells when a job was done. Else only the two polls around that are known.
    """
    known, fresh, schedule = LatencyHistogram(), LatencyHistogram(), Schedule(limits)
    lives = [_Life() for _ in jobs]
    # A job's first entry is its submit.
    due = [(job.start_s, n) for n, job in enumerate(jobs)]
    heapq.heapify(due)
    learned_at_s = -math.inf
    while due:
        now_s, n = heapq.heappop(due)
        if now_s >= learned_at_s + relearn_s:
            known.absorb(fresh)
            fresh, schedule, learned_at_s = LatencyHistogram(), learn_schedule(known, limits, aim), now_s
        job, life = jobs[n], lives[n]
        age_s = now_s - job.start_s
        if age_s > 0:
            life.polls += 1
            if job.latency_s <= age_s:
                life.late_s = age_s - job.latency_s
                if exact:
                    fresh.add_ended(life.seen_s, job.latency_s)
                else:
                    fresh.add_ended_between(life.seen_s, age_s)
                continue
            fresh.add_pending(life.seen_s, age_s)
            life.seen_s = age_s
        heapq.heappush(due, (now_s + schedule.next_poll(age_s) + behind_s, n))
    counted = lives[count_from:]
    return summary(sum(life.polls for life in counted), [life.late_s for life in counted])
