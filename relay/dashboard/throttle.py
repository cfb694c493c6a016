"""How often one address may try a wrong key."""

from collections import OrderedDict


class Throttle:
    """Counts failures by address, in windows of a minute. Bounded: the addresses that failed longest ago go first."""

    def __init__(self, failures: int = 10, window_s: float = 60.0, addresses: int = 10_000) -> None:
        self._failures = failures
        self._window_s = window_s
        self._addresses = addresses
        #: When an address' window began, and its failures since.
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait_s(self, address: str, now_s: float) -> float:
        """How long this address has to wait before it may try; 0 where it need not."""
        began_s, count = self._seen.get(address, (now_s, 0))
        return max(0.0, began_s + self._window_s - now_s) if count >= self._failures else 0.0

    def failed(self, address: str, now_s: float) -> None:
        """Note a wrong key."""
        began_s, count = self._seen.pop(address, (now_s, 0))
        if now_s - began_s >= self._window_s:
            began_s, count = now_s, 0
        self._seen[address] = began_s, count + 1
        if len(self._seen) > self._addresses:
            self._seen.popitem(last=False)
