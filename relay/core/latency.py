"""How long the upstream takes: a histogram of what polls saw, and the share of jobs still pending at each age.

Alone knows the bins, and how what was seen of a job counts: jobs that ended and jobs that were seen pending, so that
one that is cancelled, runs out of time or is not done yet counts for as long as it was watched. (To count the ended
ones only would take the quick jobs for all jobs: they are the first to end, and the last to be given up.)

Ages are seconds since the upstream took the job.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, pairwise
from operator import mul

_NARROWEST_S = 0.25
#: Bins get wider with age, beyond 15 s: where jobs take a minute, a second earlier or later is all the same.
_WIDTH_SHARE = 1 / 60
#: Longer ages than this are not told apart. Most jobs take 5 to 60 s (docs/upstream.md).
_LONGEST_S = 300.0

#: After so many more jobs an old one counts for a third: few enough to follow a change within some hundreds, enough
#: to know the rare long ones. Between 200 and 800 nothing changes where the upstream does not (`bench.replay`).
MEMORY_JOBS = 300.0

#: How far a job seen to end tells of ages beside its own, as a share of its age (the kernel's standard deviation).
#: Some hundred jobs in as many bins are noise otherwise, and a schedule would be fitted to it. From 0.05 to 0.12 the
#: schedules are equally good; a wider one blurs what is to be known.
_KERNEL_SHARE = 0.1
#: What is assumed before anything was seen counts like this many jobs: where none was watched it is all there is.
_PRIOR_JOBS = 0.5
#: It is that a job which took so long will take about as long again, and not less than this.
_PRIOR_SHORTEST_S = 5.0
#: No share is smaller: it would weigh nothing, and one of 0 cannot be divided any further.
_LEAST_SHARE = 1e-9


def _edges() -> tuple[float, ...]:
    edges = [0.0]
    while edges[-1] < _LONGEST_S:
        edges.append(edges[-1] + max(_NARROWEST_S, edges[-1] * _WIDTH_SHARE))
    return tuple(edges)


#: Bin `i` holds the ages from `EDGES_S[i]` up to, and without, `EDGES_S[i + 1]`.
EDGES_S = _edges()
#: The first age that has no bin.
END_S = EDGES_S[-1]
_BINS = len(EDGES_S) - 1
_ENDED, _WATCHED = "e", "w"


def bin_of(age_s: float) -> int:
    """The bin that an age of 0 or more falls in; the number of bins for those beyond the last."""
    return bisect_right(EDGES_S, age_s) - 1 if age_s < END_S else _BINS


def _zeros() -> list[float]:
    # One more than there are bins, for what is beyond them.
    return [0.0] * (_BINS + 1)


@dataclass(slots=True)
class LatencyHistogram:
    """How many jobs were watched in each bin, and how many of them ended there; old ones count less.

    Is changed in place, because each poll adds to some thirty bins. A part of a job's life is added once it is known:
    from the last poll that found the job pending (or 0) to this one, so that nothing is lost with a job that is never
    seen to end, and nothing has to be taken back.
    """

    ended: list[float] = field(default_factory=_zeros)
    watched: list[float] = field(default_factory=_zeros)

    @property
    def jobs(self) -> float:
        """How many ended jobs this knows of, old ones counted in part."""
        return math.fsum(self.ended)

    def add_pending(self, seen_s: float, age_s: float) -> None:
        """A job known to be pending at `seen_s` was still pending at `age_s`."""
        self._watch(seen_s, age_s, 1.0)

    def add_ended(self, seen_s: float, latency_s: float) -> None:
        """A job known to be pending at `seen_s` had its outcome at `latency_s`, by the upstream's own account."""
        # The two are told by different clocks, and may disagree by a little.
        latency_s = max(latency_s, seen_s, 0.0)
        last = bin_of(latency_s)
        self._watch(seen_s, EDGES_S[min(last + 1, _BINS)], 1.0)
        self.ended[last] += 1.0

    def add_ended_between(self, seen_s: float, age_s: float) -> None:
        """A job known to be pending at `seen_s` had its outcome by `age_s`, and nobody says when: anywhere between."""
        start_s, end_s = max(seen_s, 0.0), max(age_s, seen_s, 0.0)
        first, last = bin_of(start_s), bin_of(end_s)
        if first == last:
            self.add_ended(start_s, end_s)
            return
        left = 1.0
        for i in range(first, last + 1):
            from_s = max(start_s, EDGES_S[i])
            to_s = min(end_s, EDGES_S[i + 1]) if i < _BINS else end_s
            if i < _BINS:
                self._watch(from_s, EDGES_S[i + 1], left)
            share = (to_s - from_s) / (end_s - start_s)
            self.ended[i] += share
            left -= share

    def absorb(self, newer: "LatencyHistogram", memory_jobs: float = MEMORY_JOBS) -> None:
        """Let what is here fade by as many jobs as ended in `newer`, and add that."""
        keep = math.exp(-newer.jobs / memory_jobs)
        self.ended = [old * keep + new for old, new in zip(self.ended, newer.ended, strict=True)]
        self.watched = [old * keep + new for old, new in zip(self.watched, newer.watched, strict=True)]

    def to_fields(self) -> dict[str, float]:
        """What is not zero, by short names: `e12` and `w12` are the ended and the watched of bin 12."""
        named = ((_ENDED, self.ended), (_WATCHED, self.watched))
        return {f"{name}{i}": weight for name, weights in named for i, weight in enumerate(weights) if weight}

    @classmethod
    def from_fields(cls, fields: Mapping[str, float]) -> "LatencyHistogram":
        """The reverse. What is no weight of a bin is left out: a wrong histogram makes polls dear, not wrong."""
        found = cls()
        for name, weight in fields.items():
            weights = {_ENDED: found.ended, _WATCHED: found.watched}.get(name[:1])
            place = name[1:]
            if weights is None or not place.isascii() or not place.isdecimal() or int(place) > _BINS:
                continue
            if math.isfinite(weight) and weight > 0:
                weights[int(place)] = weight
        return found

    def _watch(self, from_s: float, to_s: float, weight: float) -> None:
        """Count a job in the bins between two ages, by the part of each that it was there for."""
        from_s, to_s = max(from_s, 0.0), min(to_s, END_S)
        if from_s >= to_s:
            return
        i = bin_of(from_s)
        while i < _BINS and EDGES_S[i] < to_s:
            low, high = EDGES_S[i], EDGES_S[i + 1]
            self.watched[i] += weight * (min(high, to_s) - max(low, from_s)) / (high - low)
            i += 1


def pending_shares(histogram: LatencyHistogram) -> tuple[float, ...]:
    """The share of all jobs that are still pending at each of `EDGES_S`: 1 at first, never rising, never quite 0.

    The Kaplan-Meier estimate, smoothed: of those that reach a bin, as many end in it as did of those watched there.
    """
    ended, watched = _smooth(histogram.ended), _smooth(histogram.watched)
    shares = [1.0]
    for (low_s, high_s), ends, at_risk in zip(pairwise(EDGES_S), ended, watched, strict=True):
        assumed = (high_s - low_s) / (high_s + _PRIOR_SHORTEST_S)
        ending = (ends + _PRIOR_JOBS * assumed) / (max(at_risk, ends) + _PRIOR_JOBS)
        shares.append(max(shares[-1] * (1.0 - ending), _LEAST_SHARE))
    return tuple(shares)


def _smooth(weights: Sequence[float]) -> list[float]:
    return [math.fsum(map(mul, kernel, weights[start : start + len(kernel)])) for start, kernel in _kernels()]


@cache
def _kernels() -> tuple[tuple[int, tuple[float, ...]], ...]:
    """For each bin the first of the bins that it is averaged over, and their shares."""
    middles = [(low + high) / 2 for low, high in pairwise(EDGES_S)]
    kernels = []
    for middle in middles:
        deviation_s = max(_KERNEL_SHARE * middle, 1e-9)
        near = [i for i, other in enumerate(middles) if abs(other - middle) <= 2.5 * deviation_s]
        bells = [
            math.exp(-(((middles[i] - middle) / deviation_s) ** 2) / 2) * (EDGES_S[i + 1] - EDGES_S[i]) for i in near
        ]
        total = math.fsum(bells)
        kernels.append((near[0], tuple(bell / total for bell in bells)))
    return tuple(kernels)


def pending_time_left_s(shares: Sequence[float]) -> tuple[float, ...]:
    """For each of `EDGES_S`, the seconds beyond it, up to the end of the bins, that an average job is pending."""
    spans = [(e1 - e0) * (s0 + s1) / 2 for (e0, e1), (s0, s1) in zip(pairwise(EDGES_S), pairwise(shares), strict=True)]
    # From the end: what is left after a late age is a small number, and no difference of large ones.
    return tuple(accumulate(reversed(spans), initial=0.0))[::-1]
