"""What each key has spent, and how fast it submits. Keys are known by their hash only."""

from collections import OrderedDict
from dataclasses import dataclass

#: Keys that are remembered; the one that was seen first is forgotten first.
_KEYS = 10_000


@dataclass(slots=True)
class _Account:
    spent: int = 0
    #: Submits that may come at once, at the time `counted_s`; None before the first.
    tokens: float | None = None
    counted_s: float = 0.0


class Accounts:
    """The accounts of all keys."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def spent(self, key: str) -> int:
        """Credits that the key has spent, less those that it got back."""
        return self._accounts[key].spent if key in self._accounts else 0

    def spent_by_all(self) -> int:
        """The same, of all keys."""
        return sum(account.spent for account in self._accounts.values())

    def charge(self, key: str, amount: int) -> None:
        """Take credits; a negative amount gives them back, unless the key is forgotten, and with it that it paid."""
        if amount < 0 and key not in self._accounts:
            return
        self._of(key).spent += amount

    def is_over_rate(self, key: str, per_s: float, now_s: float) -> bool:
        """Count a submit at `now_s` (Unix seconds); whether the key makes more than `per_s`, a second's worth at once.

        A submit that is over the rate does not count against the next one.
        """
        account = self._of(key)
        most = max(1.0, per_s)
        had = most if account.tokens is None else account.tokens
        tokens = min(most, had + max(0.0, now_s - account.counted_s) * per_s)
        is_over = tokens < 1
        account.tokens, account.counted_s = tokens if is_over else tokens - 1, now_s
        return is_over

    def _of(self, key: str) -> _Account:
        if key not in self._accounts:
            self._accounts[key] = _Account()
            if len(self._accounts) > _KEYS:
                self._accounts.popitem(last=False)
        return self._accounts[key]
