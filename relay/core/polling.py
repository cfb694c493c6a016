"""When to poll a job that is still pending: a schedule learned from how long the jobs before it took.

Alone knows what a poll is worth. A schedule is a table over ages: it is made every few seconds, and each poll looks up
the next one. Ages are seconds since the upstream took the job; lateness is the time from a job's outcome to the poll
that finds it.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from relay.core.latency import EDGES_S, END_S, LatencyHistogram, bin_of, pending_shares, pending_time_left_s

#: With fewer jobs than this, polls come at the fixed interval.
ENOUGH_JOBS = 100.0
#: A job could be done once this share of all jobs is.
_COULD_BE_DONE = 0.01
#: Until then hardly a poll is worth it, by what is known; one is made this often all the same: it may be wrong.
_LONGEST_WAIT_S = 30.0
#: Between these a poll's worth is looked for: the first in seconds of lateness, the second in intervals, for the longer
#: those are, the more a poll is worth. So many halvings find it to within 2 %. A poll that gains less than the first is
#: not made, even where as many as at the fixed interval may be.
_LEAST_WORTH_S = 0.05
_MOST_WORTH_INTERVALS = 40.0
_HALVINGS = 10

_LAST = len(EDGES_S) - 1


class Match(StrEnum):
    """What a learned schedule has in common with polling at the fixed interval; the rest it does better."""

    #: As many polls at most, and outcomes found sooner.
    POLLS = "polls"
    #: Outcomes found as soon at least, with fewer polls.
    LATENESS = "lateness"


#: What is aimed at: one of those, or how many seconds of lateness one poll is worth (lambda), above 0.
Aim = Match | float


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for every schedule, in seconds."""

    #: No two polls of a job are closer (`RELAY_POLL_MIN_INTERVAL_S`).
    floor_s: float
    #: The fixed interval, until enough jobs were seen (`RELAY_POLL_INTERVAL_S`).
    interval_s: float
    #: No two polls are further apart from when a job could be done.
    cap_s: float

    def __post_init__(self) -> None:
        if not 0 < self.floor_s <= self.interval_s <= self.cap_s < math.inf:
            raise ValueError("the limits must be 0 < floor_s <= interval_s <= cap_s")

    @classmethod
    def of(cls, *, floor_s: float, interval_s: float, cap_s: float = 5.0) -> "Limits":
        """Limits from settings made apart from one another: the floor is kept, and an operator's longer interval."""
        interval_s = max(interval_s, floor_s)
        return cls(floor_s, interval_s, max(cap_s, interval_s))


@dataclass(frozen=True, slots=True)
class Expected:
    """What a schedule comes to, by the histogram that it was made from; polls beyond the histogram not counted."""

    polls: float
    lateness_s: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """For a job of any age, the time until its next poll."""

    limits: Limits
    #: For each of `EDGES_S` the age to poll at next; empty where polls come at the fixed interval.
    next_at_s: tuple[float, ...] = ()
    #: From this age on a job could be done.
    could_be_done_s: float = 0.0
    #: The seconds of lateness that one poll was taken to be worth; 0 at the fixed interval.
    poll_worth_s: float = 0.0
    expected: Expected | None = None

    @property
    def is_learned(self) -> bool:
        """Whether enough jobs were seen."""
        return bool(self.next_at_s)

    def next_poll(self, age_s: float) -> float:
        """The seconds until the next poll of a job that is pending at `age_s`: `floor_s` or more.

        And `cap_s` or less for a job that could be done; else no later than `cap_s` after it could, or 30 s.
        """
        if not self.next_at_s:
            return self.limits.interval_s
        # Of a job that takes so long nothing is known but the cap.
        if age_s >= END_S:
            return self.limits.cap_s
        # The table's answer for the last age that it has: what is a little older is polled at the same time.
        age_s = max(age_s, 0.0)
        delay_s = self.next_at_s[bin_of(age_s)] - age_s
        latest_s = latest_poll_s(age_s, self.could_be_done_s, self.limits.cap_s)
        return max(self.limits.floor_s, min(delay_s, latest_s - age_s))


def latest_poll_s(age_s: float, could_be_done_s: float, cap_s: float) -> float:
    """The age at which a job that is pending at `age_s` is polled at the latest."""
    in_time_s = max(age_s, could_be_done_s) + cap_s
    return min(in_time_s, age_s + max(_LONGEST_WAIT_S, cap_s))


def learn_schedule(histogram: LatencyHistogram, limits: Limits, aim: Aim = Match.POLLS) -> Schedule:
    """The schedule with the least expected lateness + worth x polls, at a worth that reaches what is aimed at.

    At the fixed interval, where the histogram knows too few jobs. Takes about 5 ms, and 2 for a given worth.
    """
    if not isinstance(aim, Match) and not 0 < aim < math.inf:
        raise ValueError("what a poll is worth must be a number of seconds above 0")
    if histogram.jobs < ENOUGH_JOBS:
        return Schedule(limits)
    planner = _Planner(pending_shares(histogram), limits)
    worth_s = planner.worth_for(aim) if isinstance(aim, Match) else aim
    table = planner.table(worth_s)
    return Schedule(limits, tuple(table), planner.could_be_done_s, worth_s, planner.expected(table))


class _Planner:
    """The dynamic programme over the ages, and what all worths of a poll have in common."""

    def __init__(self, pending: Sequence[float], limits: Limits) -> None:
        self.limits = limits
        self.pending = pending
        self.left_s = pending_time_left_s(pending)
        passed = next((i for i, share in enumerate(pending) if share <= 1 - _COULD_BE_DONE), _LAST)
        self.could_be_done_s = EDGES_S[max(passed - 1, 0)]
        # From each age the ages that the next poll may have.
        self.windows: list[tuple[int, int]] = []
        for age_s in EDGES_S:
            first = bisect_left(EDGES_S, age_s + limits.floor_s)
            stop = bisect_right(EDGES_S, latest_poll_s(age_s, self.could_be_done_s, limits.cap_s))
            self.windows.append((first, max(stop, first + 1)))

    def fixed(self) -> Expected:
        """What the fixed interval comes to."""
        interval_s = self.limits.interval_s
        ages_s = [n * interval_s for n in range(math.ceil(END_S / interval_s))]
        polls = math.fsum(map(self._pending_at, ages_s))
        return Expected(polls, polls * interval_s - self.left_s[0])

    def worth_for(self, match: Match) -> float:
        """The worth of a poll, in seconds of lateness, at which the best schedule keeps to what is to be matched."""
        fixed = self.fixed()
        # More worth, fewer polls, more lateness. Wanted is the least worth that saves enough polls, or the largest that
        # costs no lateness; where none does, the end of the range that comes closest.
        low_s, high_s = _LEAST_WORTH_S, _MOST_WORTH_INTERVALS * max(self.limits.interval_s, 1.0)
        for _ in range(_HALVINGS):
            worth_s = math.sqrt(low_s * high_s)
            expected = self.expected(self.table(worth_s))
            few_polls = match is Match.POLLS and expected.polls <= fixed.polls
            too_late = match is Match.LATENESS and expected.lateness_s > fixed.lateness_s
            if few_polls or too_late:
                high_s = worth_s
            else:
                low_s = worth_s
        return high_s if match is Match.POLLS else low_s

    def table(self, worth_s: float) -> list[float]:
        """For each of `EDGES_S` the age to poll at next, with the least cost from there on, by this worth of a poll.

        With S(t) the share of jobs pending at t, and R(t) its integral from t on, the gap from t to u costs all jobs
        together S(t) * worth for the poll, and (u - t) S(t) - (R(t) - R(u)) in lateness; what follows u costs W(u).
        """
        edges, left_s = EDGES_S, self.left_s
        # R(u) + W(u), and what is chosen: from the oldest age, where nothing follows, to the youngest.
        after = [0.0] * len(edges)
        next_at_s = [END_S + self.limits.cap_s] * len(edges)
        for i in range(_LAST, -1, -1):
            share, (first, stop) = self.pending[i], self.windows[i]
            ahead = edges[first:stop]
            if not ahead:
                next_at_s[i] = edges[i] + self.limits.cap_s
                after[i] = left_s[i] + worth_s * share
                continue
            costs = [u * share + rest for u, rest in zip(ahead, after[first:stop], strict=True)]
            least = min(costs)
            next_at_s[i] = ahead[costs.index(least)]
            after[i] = least + (worth_s - edges[i]) * share
        return next_at_s

    def expected(self, next_at_s: Sequence[float]) -> Expected:
        """What a table comes to for a job from its start."""
        polls = waits_s = age_s = 0.0
        while age_s < END_S:
            share = self._pending_at(age_s)
            next_s = next_at_s[bin_of(age_s)]
            polls += share
            waits_s += share * (min(next_s, END_S) - age_s)
            age_s = next_s
        # What is waited beyond the time that jobs are pending is lateness.
        return Expected(polls, waits_s - self.left_s[0])

    def _pending_at(self, age_s: float) -> float:
        i = bin_of(age_s)
        (low_s, high_s), (before, after) = EDGES_S[i : i + 2], self.pending[i : i + 2]
        return before + (after - before) * (age_s - low_s) / (high_s - low_s)
