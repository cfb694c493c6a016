"""When to poll next: what every schedule keeps to, and what a learned one is better at than the fixed interval."""

import math
import random
import statistics
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.latencies import cached, doubling, draw_jobs, heavy_tail
from bench.polling import Replayed, learn, replay, replay_online
from relay.core.latency import EDGES_S, END_S, LatencyHistogram, bin_of, pending_shares, pending_time_left_s
from relay.core.polling import Aim, Limits, Match, Schedule, latest_poll_s, learn_schedule

LIMITS = Limits.of(floor_s=1, interval_s=3)
FIXED = Schedule(LIMITS)


@st.composite
def histograms(draw: st.DrawFn) -> LatencyHistogram:
    """Enough jobs, some around a few latencies, some anywhere, and some watched without an end."""
    places = st.integers(0, len(EDGES_S) - 1)
    ended = draw(st.dictionaries(places.map(lambda i: f"e{i}"), st.floats(0.01, 500), min_size=1, max_size=12))
    watched = draw(st.dictionaries(places.map(lambda i: f"w{i}"), st.floats(0.01, 500), max_size=12))
    histogram = LatencyHistogram.from_fields(ended | watched)
    for latency_s in draw(st.lists(st.floats(0, 350), min_size=1, max_size=4)):
        for _ in range(100):
            histogram.add_ended(0, latency_s)
    return histogram


LIMITS_OF_ALL_KINDS = st.builds(
    lambda floor_s, interval_s, cap_s: Limits.of(floor_s=floor_s, interval_s=interval_s, cap_s=cap_s),
    st.floats(0.1, 10),
    st.floats(0.1, 20),
    st.floats(0.1, 20),
)
AIMS: st.SearchStrategy[Aim] = st.one_of(st.sampled_from(Match), st.floats(0.01, 50))


def lognormal(median_s: float, sigma: float, count: int, seed: str) -> list[float]:
    """Latencies of the usual shape."""
    rng = random.Random(seed)
    return [rng.lognormvariate(math.log(median_s), sigma) for _ in range(count)]


def poll_ages_s(schedule: Schedule, until_s: float) -> list[float]:
    """When a job is polled that is still pending at `until_s`."""
    ages_s = [schedule.next_poll(0)]
    while ages_s[-1] < until_s:
        ages_s.append(ages_s[-1] + schedule.next_poll(ages_s[-1]))
    return ages_s


@settings(max_examples=25)
@given(histogram=histograms(), limits=LIMITS_OF_ALL_KINDS, aim=AIMS, ages_s=st.lists(st.floats(0, 1e6), max_size=20))
def test_every_age_has_an_answer_within_the_limits(
    histogram: LatencyHistogram, limits: Limits, aim: Aim, ages_s: list[float]
) -> None:
    """No gap is under the floor, and none over the cap from when the job could be done; before that it ends in time."""
    schedule = learn_schedule(histogram, limits, aim)
    assert schedule.is_learned
    could_be_done_s = schedule.could_be_done_s
    for age_s in [*ages_s, *EDGES_S]:
        delay_s = schedule.next_poll(age_s)
        assert delay_s >= limits.floor_s
        if age_s >= could_be_done_s:
            assert delay_s <= limits.cap_s + 1e-9
        assert age_s + delay_s <= max(age_s, could_be_done_s) + limits.cap_s + 1e-9
        assert delay_s <= max(30, limits.cap_s)


@settings(max_examples=25)
@given(histogram=histograms(), limits=LIMITS_OF_ALL_KINDS, aim=AIMS)
def test_a_job_that_stays_pending_is_polled_for_ever(histogram: LatencyHistogram, limits: Limits, aim: Aim) -> None:
    """Polls get past the end of what is known, in a bounded number, and go on at the cap from there."""
    schedule = learn_schedule(histogram, limits, aim)
    ages_s = poll_ages_s(schedule, END_S)
    assert len(ages_s) <= END_S / limits.floor_s + 2
    assert schedule.next_poll(ages_s[-1]) == limits.cap_s


@settings(max_examples=25)
@given(histogram=histograms(), worths_s=st.tuples(st.floats(0.01, 50), st.floats(0.01, 50)).map(sorted))
def test_dearer_polls_are_fewer(histogram: LatencyHistogram, worths_s: Sequence[float]) -> None:
    """The more lateness a poll is worth, the fewer are expected, and the later outcomes are found."""
    less, more = (learn_schedule(histogram, LIMITS, worth_s).expected for worth_s in worths_s)
    assert less is not None
    assert more is not None
    assert more.polls <= less.polls * (1 + 1e-9) + 1e-9
    assert more.lateness_s >= less.lateness_s * (1 - 1e-9) - 1e-6


@settings(max_examples=25)
@given(histogram=histograms(), worth_s=st.floats(0.01, 20), rng=st.randoms(use_true_random=False))
def test_no_schedule_drawn_at_random_is_better(histogram: LatencyHistogram, worth_s: float, rng: random.Random) -> None:
    """The schedule has the least expected cost of all that keep to the limits."""
    schedule = learn_schedule(histogram, LIMITS, worth_s)
    shares = pending_shares(histogram)
    polls = waits_s = 0.0
    age_s = 0.0
    while age_s < END_S:
        latest_s = latest_poll_s(age_s, schedule.could_be_done_s, LIMITS.cap_s)
        # Half of the draws are the schedule's own step, so that each differs from it here and there.
        own_s = schedule.next_at_s[bin_of(age_s)]
        choices = [edge_s for edge_s in EDGES_S if age_s + LIMITS.floor_s <= edge_s <= latest_s] or [own_s]
        next_s = rng.choice([rng.choice(choices), own_s])
        share = shares[bin_of(age_s)]
        polls += share
        waits_s += share * (min(next_s, END_S) - age_s)
        age_s = next_s
    assert schedule.expected is not None
    least = schedule.expected.lateness_s + worth_s * schedule.expected.polls
    assert least <= waits_s - pending_time_left_s(shares)[0] + worth_s * polls + 1e-6


def test_too_few_jobs_are_polled_at_the_fixed_interval() -> None:
    """Until enough jobs were seen to end, nothing is learned."""
    few = learn([12.0] * 99)
    schedule = learn_schedule(few, LIMITS)
    assert not schedule.is_learned
    assert [schedule.next_poll(age_s) for age_s in (0, 1.7, 1e5)] == [3, 3, 3]
    assert learn_schedule(learn([12.0] * 200), LIMITS).is_learned


@pytest.mark.parametrize("worth_s", [0.0, -1.0, math.nan, math.inf])
def test_a_poll_is_worth_something(worth_s: float) -> None:
    """What is no number above 0 is refused."""
    with pytest.raises(ValueError, match="above 0"):
        learn_schedule(learn([12.0] * 200), LIMITS, worth_s)


@pytest.mark.parametrize("limits_s", [(0, 3, 5), (4, 3, 5), (1, 6, 5), (1, 3, math.inf), (math.nan, 3, 5)])
def test_limits_that_contradict_one_another_are_refused(limits_s: tuple[float, float, float]) -> None:
    """The floor is at most the interval, and that at most the cap."""
    with pytest.raises(ValueError, match="limits"):
        Limits(*limits_s)


@pytest.mark.parametrize(
    ("floor_s", "interval_s", "expected"), [(1, 3, (1, 3, 5)), (1, 10, (1, 10, 10)), (7, 3, (7, 7, 7))]
)
def test_limits_from_settings_made_apart(
    floor_s: float, interval_s: float, expected: tuple[float, float, float]
) -> None:
    """A floor over the interval lifts it, and an interval over the cap lifts that."""
    assert Limits.of(floor_s=floor_s, interval_s=interval_s) == Limits(*expected)


SHAPES = [(median_s, sigma) for median_s in (7, 12, 35) for sigma in (0.35, 0.4, 0.45)]


@pytest.fixture(scope="module")
def compared() -> dict[Match, list[tuple[Replayed, Replayed]]]:
    """For each match and shape: the fixed interval, and what was learned from 500 jobs, on 1,500 others."""
    found: dict[Match, list[tuple[Replayed, Replayed]]] = {match: [] for match in Match}
    for median_s, sigma in SHAPES:
        for seed in range(2):
            histogram = learn(lognormal(median_s, sigma, 500, f"before {seed}"))
            others = lognormal(median_s, sigma, 1_500, f"after {seed}")
            fixed = replay(others, FIXED)
            for match, pairs in found.items():
                pairs.append((fixed, replay(others, learn_schedule(histogram, LIMITS, match))))
    return found


def test_as_many_polls_find_outcomes_sooner(compared: dict[Match, list[tuple[Replayed, Replayed]]]) -> None:
    """With no more polls than every 3 s, outcomes are found in less than 0.72 of the time, and none much later."""
    pairs = compared[Match.POLLS]
    assert statistics.median(learned.polls_per_job / fixed.polls_per_job for fixed, learned in pairs) <= 1
    assert max(learned.polls_per_job / fixed.polls_per_job for fixed, learned in pairs) <= 1.03
    assert statistics.median(learned.mean_late_s / fixed.mean_late_s for fixed, learned in pairs) <= 0.65
    assert max(learned.mean_late_s / fixed.mean_late_s for fixed, learned in pairs) <= 0.72
    assert max(learned.p99_late_s for _, learned in pairs) <= 5.5


def test_outcomes_found_as_soon_need_fewer_polls(compared: dict[Match, list[tuple[Replayed, Replayed]]]) -> None:
    """With no more lateness than every 3 s, fewer than 0.72 of the polls do."""
    pairs = compared[Match.LATENESS]
    assert statistics.median(learned.mean_late_s / fixed.mean_late_s for fixed, learned in pairs) <= 1
    assert max(learned.mean_late_s / fixed.mean_late_s for fixed, learned in pairs) <= 1.05
    assert statistics.median(learned.polls_per_job / fixed.polls_per_job for fixed, learned in pairs) <= 0.68
    assert statistics.median(learned.p99_late_s for _, learned in pairs) <= 5.5


def test_two_humps_are_polled_where_they_are() -> None:
    """Cached answers come after a second and the rest after 15: there is a poll for each, and a pause between."""
    jobs = [job.latency_s for job in draw_jobs(cached, 2_000, seed=1, spacing_s=1)]
    schedule = learn_schedule(learn(jobs[:500]), LIMITS)
    first, *later = poll_ages_s(schedule, 20)
    assert 1 <= first <= 1.5
    # No gap over the cap once a job could be done, but none much shorter where none is.
    assert all(age_s - before >= 3 for before, age_s in pairwise([first, *later]) if age_s < 8)
    fixed, learned = replay(jobs[500:], FIXED), replay(jobs[500:], schedule)
    assert learned.polls_per_job <= fixed.polls_per_job
    assert learned.mean_late_s <= 0.65 * fixed.mean_late_s


def test_a_heavy_tail_is_polled_at_the_cap_at_most() -> None:
    """Where one job in a hundred takes minutes, none of them is found more than a cap late."""
    jobs = [job.latency_s for job in draw_jobs(heavy_tail, 2_000, seed=1, spacing_s=1)]
    schedule = learn_schedule(learn(jobs[:500]), LIMITS)
    fixed, learned = replay(jobs[500:], FIXED), replay(jobs[500:], schedule)
    assert learned.polls_per_job <= 1.03 * fixed.polls_per_job
    assert learned.mean_late_s <= 0.72 * fixed.mean_late_s
    assert replay([299.9, 400.0, 2_000.0], schedule, behind_s=0).p99_late_s <= 5


def test_a_doubling_is_followed_within_some_hundreds() -> None:
    """After 400 jobs that take twice as long, the schedule keeps to the budget of those."""
    before, after = lognormal(12, 0.4, 1_000, "before"), lognormal(24, 0.4, 1_400, "after")
    histogram = learn(before)
    stale = learn_schedule(histogram, LIMITS)
    histogram.absorb(learn(after[:400], memory_jobs=math.inf))
    fixed = replay(after[400:], FIXED)
    assert replay(after[400:], stale).polls_per_job > 1.2 * fixed.polls_per_job
    assert replay(after[400:], learn_schedule(histogram, LIMITS)).polls_per_job <= 1.1 * fixed.polls_per_job


def test_jobs_that_become_quicker_are_noticed_at_once() -> None:
    """A few jobs that are done much sooner than any before move the first poll, and so the rest are found in time."""
    histogram = learn(lognormal(40, 0.2, 1_000, "slow"))
    assert learn_schedule(histogram, LIMITS, Match.LATENESS).next_poll(0) > 20
    for _ in range(10):
        histogram.add_ended(0, 8)
    assert learn_schedule(histogram, LIMITS, Match.LATENESS).next_poll(0) <= 13


def test_learning_as_it_goes_is_as_good_as_having_learned() -> None:
    """Jobs that run side by side, counted poll by poll, teach what jobs counted as a whole do."""
    jobs = draw_jobs(lambda rng, _: rng.lognormvariate(math.log(12), 0.4), 1_000, seed=3, spacing_s=0.5)
    fixed = replay([job.latency_s for job in jobs[500:]], FIXED)
    for exact, at_most in ((True, 0.68), (False, 0.75)):
        online = replay_online(jobs, LIMITS, Match.POLLS, count_from=500, exact=exact)
        assert online.polls_per_job <= 1.03 * fixed.polls_per_job
        assert online.mean_late_s <= at_most * fixed.mean_late_s


def test_learning_goes_on_through_a_doubling() -> None:
    """Over a doubling half way, what is learned as it goes stays better than the interval at few more polls."""
    jobs = draw_jobs(doubling, 1_600, seed=5, spacing_s=0.5)
    fixed = replay([job.latency_s for job in jobs[400:]], FIXED)
    online = replay_online(jobs, LIMITS, Match.POLLS, count_from=400)
    assert online.polls_per_job <= 1.15 * fixed.polls_per_job
    assert online.mean_late_s <= 0.72 * fixed.mean_late_s
