"""The gates before a submit: how many may go now, client by client. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from relay.core.model import ClientName
from relay.core.policy import Trouble
from relay.core.store.work import ClientLook


@dataclass(frozen=True, slots=True)
class Pause:
    """What holds back every submit under an upstream key."""

    until_ms: int
    why: Trouble


def with_pauses(
    clients: Mapping[ClientName, ClientLook], pauses: Mapping[ClientName, Pause]
) -> Mapping[ClientName, ClientLook]:
    """What was seen of each client, with the pauses that this worker knows of and that look did not see yet."""
    seen = dict(clients)
    for name, pause in pauses.items():
        if name in seen and pause.until_ms > seen[name].paused_until_ms:
            seen[name] = replace(seen[name], paused_until_ms=pause.until_ms, paused_by=pause.why)
    return seen


def may_submit(seen: ClientLook, now_ms: int) -> bool:
    """Whether a client has due submits that nothing holds back."""
    return seen.due > 0 and seen.paused_until_ms <= now_ms


def allowances(
    clients: Mapping[ClientName, ClientLook], *, now_ms: int, slots: int, first: int = 0
) -> dict[ClientName, int]:
    """How many submits of each client may be claimed, so that `slots` are shared evenly among those who have any due.

    A client whose upstream key is paused gets none. `first` says who is served first where the slots don't divide.
    """
    open_ = {name: seen.due for name, seen in clients.items() if may_submit(seen, now_ms)}
    names = list(open_)
    names = names[first % len(names) :] + names[: first % len(names)] if names else []
    shares = dict.fromkeys(names, 0)
    while slots > 0 and names:
        share = max(1, slots // len(names))
        for name in list(names):
            more = min(share, open_[name] - shares[name], slots)
            shares[name] += more
            slots -= more
            if shares[name] >= open_[name]:
                names.remove(name)
    return {name: share for name, share in shares.items() if share > 0}
