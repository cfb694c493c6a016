"""What each key of the emulated upstream has spent, and how fast it submits."""

import pytest

from relay.dev.emulator import accounts
from relay.dev.emulator.accounts import Accounts


def test_each_key_has_an_account() -> None:
    """What one key spends and gets back is its own; a key that was never seen has spent nothing."""
    known = Accounts()
    known.charge("a", 3)
    known.charge("b", 5)
    known.charge("a", 3)
    known.charge("a", -3)
    assert [known.spent(key) for key in ("a", "b", "c")] == [3, 5, 0]
    assert known.spent_by_all() == 8


@pytest.mark.parametrize(
    ("per_s", "submits"),
    [
        # A second's worth at once, then one each time a whole one has come together.
        (1, [(0, False), (0, True), (0.9, True), (1.0, False), (1.0, True)]),
        (2, [(0, False), (0, False), (0, True), (0.5, False), (0.5, True), (1.0, False)]),
        # Never more than a second's worth, however long nothing came.
        (2, [(0, False), (100, False), (100, False), (100, True)]),
        # Less than one in a second: the first goes at once, the next after its time.
        (0.5, [(0, False), (1, True), (1.9, True), (2, False), (2, True), (4, False)]),
        # A clock that is set back gives nothing, and takes nothing.
        (1, [(100, False), (50, True), (51, False)]),
        # A part of one is kept.
        (1.5, [(0, False), (0, True), (0.5, False), (0.5, True)]),
    ],
)
def test_the_rate(per_s: float, submits: list[tuple[float, bool]]) -> None:
    """A key may make so many submits in a second, and one that was over the rate does not count."""
    known = Accounts()
    assert [(now_s, known.is_over_rate("a", per_s, now_s)) for now_s, _ in submits] == submits
    assert not known.is_over_rate("b", per_s, submits[-1][0]), "another key has a rate of its own"


def test_the_key_seen_first_is_forgotten_first() -> None:
    """The number of keys is bounded; a forgotten one starts anew, and gets nothing back for what was forgotten."""
    known = Accounts()
    known.charge("first", 3)
    for number in range(accounts._KEYS):
        known.charge(str(number), 1)
    assert (known.spent("first"), known.spent("0")) == (0, 1)
    known.charge("first", -3)
    assert known.spent("first") == 0
    assert known.spent_by_all() == accounts._KEYS
