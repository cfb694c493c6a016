"""The soak in short, and that it can fail."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.account import Submits
from tests.faults.soak import Account, soak

pytestmark = pytest.mark.faults


@pytest.mark.slow
async def test_a_short_soak(tmp_path: Path) -> None:
    """After a few random kills of workers, relay and store the account adds up."""
    account = await soak(tmp_path, seed=113, seconds=6, most_jobs=1_000, tell=print)
    assert account.problems == [], str(account)
    assert account.lines["jobs accepted"] > 50
    assert account.lines["dead letters"] > 0
    assert set(account.kills) == {"worker", "relay", "store"}, "another seed is needed"


GOOD = Account(
    seed=1,
    kills=Counter(worker=1),
    accepted=frozenset({"job_1", "job_2"}),
    found={"job_1": ("done", "delivered"), "job_2": ("failed", "exhausted")},
    arrived=Counter(msg_job_1=2, msg_job_2=1),
    variants=2,
    unverified=0,
    changed=0,
    submits=Submits(taken=3, repeated=1, ambiguous=1, orphans=0, credits=6.0),
)


def test_an_account_that_adds_up() -> None:
    """Duplicates and ambiguous submits are no fault as long as they are counted."""
    assert GOOD.problems == []
    assert GOOD.lines["duplicate callbacks"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"accepted": frozenset({"job_1", "job_2", "job_3"})},
        {"accepted": frozenset({"job_1"})},
        {"found": GOOD.found | {"job_1": ("pending", "waiting")}},
        {"found": GOOD.found | {"job_1": ("done", "retrying")}},
        {"arrived": Counter(msg_job_2=1), "variants": 1},
        {"arrived": GOOD.arrived + Counter(msg_job_3=1), "variants": 3},
        {"variants": 3},
        {"unverified": 1},
        {"changed": 1},
        {"submits": replace(GOOD.submits, taken=2)},
        {"submits": replace(GOOD.submits, ambiguous=0)},
    ],
    ids=range(11),
)
def test_an_account_that_does_not(change: dict[str, object]) -> None:
    """Whatever is missing, too much or unexplained is named."""
    account = replace(GOOD, **change, problems=[])  # type: ignore[arg-type]  # a table of parts
    assert len(account.problems) >= 1
    assert "WRONG" in str(account)
