"""How many submits may go: shared evenly, none while a key is paused."""

import pytest

from relay.core.model import ClientName
from relay.core.policy import Trouble
from relay.core.store.work import ClientLook
from worker.gates import allowances


def look(due: int, paused_until_ms: int = 0) -> ClientLook:
    """What the pump saw of one client."""
    return ClientLook(due, 0, paused_until_ms, Trouble.RATE_LIMITED if paused_until_ms else None)


@pytest.mark.parametrize(
    ("clients", "slots", "first", "expected"),
    [
        ({}, 10, 0, {}),
        ({"a": look(5)}, 10, 0, {"a": 5}),
        ({"a": look(5)}, 0, 0, {}),
        ({"a": look(100), "b": look(100)}, 10, 0, {"a": 5, "b": 5}),
        ({"a": look(10_000), "b": look(1)}, 10, 0, {"a": 9, "b": 1}),
        ({"a": look(9), "b": look(9), "c": look(9)}, 2, 0, {"a": 1, "b": 1}),
        ({"a": look(9), "b": look(9), "c": look(9)}, 2, 2, {"c": 1, "a": 1}),
        ({"a": look(9, paused_until_ms=1_001), "b": look(9)}, 4, 0, {"b": 4}),
        ({"a": look(9, paused_until_ms=1_000)}, 4, 0, {"a": 4}),
    ],
)
def test_allowances(clients: dict[str, ClientLook], slots: int, first: int, expected: dict[str, int]) -> None:
    """Slots are shared among clients with due submits; a paused key gets none, and turns rotate."""
    given = {ClientName(name): seen for name, seen in clients.items()}
    assert allowances(given, now_ms=1_000, slots=slots, first=first) == expected
