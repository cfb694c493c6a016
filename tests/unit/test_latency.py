"""What is known of how long jobs take: how polls count, and what share is pending at each age."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.latency import EDGES_S, END_S, LatencyHistogram, bin_of, pending_shares, pending_time_left_s

AGES_S = st.floats(0, 400)
WEIGHTS = st.dictionaries(
    st.tuples(st.sampled_from("ew"), st.integers(0, len(EDGES_S) - 1)).map(lambda f: f"{f[0]}{f[1]}"),
    st.floats(0.001, 10_000),
    max_size=40,
)


def median_s(histogram: LatencyHistogram) -> float:
    """The age at which half of all jobs are done, by what is known."""
    shares = pending_shares(histogram)
    return next(age_s for age_s, share in zip(EDGES_S, shares, strict=True) if share <= 0.5)


@given(age_s=AGES_S)
def test_every_age_has_its_bin(age_s: float) -> None:
    """An age is in the bin whose edges are around it, and in the one after the last where it is beyond all."""
    found = bin_of(age_s)
    if age_s >= END_S:
        assert found == len(EDGES_S) - 1
    else:
        assert EDGES_S[found] <= age_s < EDGES_S[found + 1]


@given(weights=WEIGHTS)
def test_shares_pending_fall_from_one_and_never_reach_nought(weights: dict[str, float]) -> None:
    """Whatever was counted, the shares are those of a distribution, so that a schedule can be made from them."""
    shares = pending_shares(LatencyHistogram.from_fields(weights))
    assert shares[0] == 1
    assert all(before >= after > 0 for before, after in pairwise(shares))
    left_s = pending_time_left_s(shares)
    assert left_s[-1] == 0
    assert all(before > after for before, after in pairwise(left_s))


@given(weights=WEIGHTS)
def test_fields_are_read_as_they_were_written(weights: dict[str, float]) -> None:
    """What the store keeps is all that there is to know."""
    assert LatencyHistogram.from_fields(weights).to_fields() == weights


def test_what_is_no_weight_of_a_bin_is_left_out() -> None:
    """Fields of another version, or broken ones, do no harm."""
    fields = {"e3": 2.0, "x1": 1.0, "e": 1.0, "": 1.0, "w-1": 1.0, "e²": 1.0, "e99999": 1.0, "w4": math.nan, "e5": -1.0}
    assert LatencyHistogram.from_fields(fields).to_fields() == {"e3": 2.0}


@given(polls_s=st.lists(st.floats(0, 350), max_size=8).map(sorted), latency_s=AGES_S)
def test_a_job_counts_once_however_often_it_is_polled(polls_s: list[float], latency_s: float) -> None:
    """The parts of a job's life between its polls add up to the whole of it."""
    whole, parts = LatencyHistogram(), LatencyHistogram()
    whole.add_ended(0, latency_s)
    seen_s = 0.0
    for age_s in (p for p in polls_s if p < latency_s):
        parts.add_pending(seen_s, age_s)
        seen_s = age_s
    parts.add_ended(seen_s, latency_s)
    assert parts.ended == pytest.approx(whole.ended, abs=1e-9)
    assert parts.watched == pytest.approx(whole.watched, abs=1e-9)


@given(seen_s=AGES_S, wait_s=st.floats(0, 30))
def test_an_outcome_between_two_polls_is_one_job_spread_over_them(seen_s: float, wait_s: float) -> None:
    """Where nobody says when it was done, one job in all ended in the bins between, and none elsewhere."""
    histogram = LatencyHistogram()
    histogram.add_ended_between(seen_s, seen_s + wait_s)
    assert histogram.jobs == pytest.approx(1)
    assert min(histogram.ended) > -1e-9
    first, last = bin_of(seen_s), bin_of(seen_s + wait_s)
    assert math.fsum(histogram.ended[first : last + 1]) == pytest.approx(1)


def test_an_outcome_between_two_polls_is_spread_evenly() -> None:
    """Every bin between has its share, by its width."""
    histogram = LatencyHistogram()
    histogram.add_ended_between(3.0, 5.0)
    assert histogram.ended[12:20] == pytest.approx([1 / 8] * 8)
    assert histogram.watched[12:20] == pytest.approx([1 - n / 8 for n in range(8)])


def test_clocks_that_disagree_are_no_harm() -> None:
    """A job that was done before it was last seen pending, by another clock, was done just after."""
    histogram = LatencyHistogram()
    histogram.add_ended(6.1, 5.9)
    histogram.add_ended(0.0, -0.2)
    assert histogram.ended[bin_of(6.1)] == 1
    assert histogram.ended[0] == 1


def test_jobs_that_ran_out_of_time_count_as_long_as_they_were_watched() -> None:
    """With a deadline at the median, half of the jobs are never seen to end: the others alone would look quick."""
    rng = random.Random(1)
    censored, ended_only = LatencyHistogram(), LatencyHistogram()
    for latency_s in (rng.lognormvariate(math.log(12), 0.4) for _ in range(2_000)):
        deadline_s = rng.uniform(6, 24)
        if latency_s <= deadline_s:
            censored.add_ended(0, latency_s)
            ended_only.add_ended(0, latency_s)
        else:
            censored.add_pending(0, deadline_s)
    assert median_s(censored) == pytest.approx(12, rel=0.05)
    assert median_s(ended_only) < 11


def test_jobs_still_pending_count_from_their_first_poll_on() -> None:
    """Ten seconds after a burst only the quick ones are done: what is known of the rest is that they are not."""
    rng = random.Random(2)
    burst, ended_only = LatencyHistogram(), LatencyHistogram()
    for latency_s in (rng.lognormvariate(math.log(12), 0.4) for _ in range(2_000)):
        if latency_s <= 10:
            burst.add_ended(0, latency_s)
            ended_only.add_ended(0, latency_s)
        else:
            burst.add_pending(0, 10)
    shares, biased = pending_shares(burst), pending_shares(ended_only)
    # 68 % take longer than 10 s.
    assert shares[bin_of(10)] == pytest.approx(0.68, abs=0.03)
    assert biased[bin_of(10)] < 0.1


def test_the_old_fades_as_the_new_comes() -> None:
    """What was known counts for a third after as many jobs as the memory holds."""
    old, new = LatencyHistogram(), LatencyHistogram()
    old.add_ended(0, 10)
    for _ in range(100):
        new.add_ended(0, 20)
    old.absorb(new, memory_jobs=100)
    assert old.ended[bin_of(10)] == pytest.approx(math.exp(-1))
    assert old.ended[bin_of(20)] == 100
    assert old.watched[0] == pytest.approx(100 + math.exp(-1))
