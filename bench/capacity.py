"""`python -m bench.capacity`: how much of what a rate of jobs takes, and what the limit is. A formula; nothing is run.

Alone knows the measured costs in this form; docs/performance.md and docs/reliability.md say how they were measured.
Costs are linear in the requests that a job takes. Slots in use follow Little's law: a rate times how long each is held.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

_DAY_S, _WEEK_S = 86_400, 604_800


@dataclass(frozen=True, slots=True)
class Costs:
    """What one of each takes, on the machine of docs/performance.md; where rounds differed, the dearer one."""

    #: Worker's CPU for a submit, a poll or an attempt: `bench cost`, 1.08 ms for six.
    worker_request_ms: float = 0.18
    #: Store's CPU for one of these, its claim and save, and for accepting: `bench cost`, 0.74 ms for six and one;
    #: `bench scale`, 0.093 to 0.147 ms for a poll.
    store_request_ms: float = 0.115
    store_accept_ms: float = 0.05
    #: Relay's CPU: `bench accept`; a batch's job, `bench cost`.
    relay_post_ms: float = 0.19
    relay_batched_ms: float = 0.09
    #: Store's memory beyond prompt and result, waiting and finished: `bench.memory`.
    waiting_bytes: int = 1_500
    finished_bytes: int = 2_100
    #: Heads of a request and its answer. Assumed, not measured.
    head_bytes: int = 1_000


@dataclass(frozen=True, slots=True)
class Load:
    """What comes, on average."""

    jobs_per_s: float
    polls: float = 4.0
    submits: float = 1.0
    #: Callbacks, with those that are tried again.
    attempts: float = 1.0
    #: Calls of the API beside the accepting one; each is taken to cost what that does.
    reads: float = 0.0
    #: The share of jobs that come in batches.
    batched: float = 0.0
    prompt_bytes: int = 200
    result_bytes: int = 2_000
    #: From acceptance to outcome.
    job_s: float = 12.0
    submit_s: float = 0.3
    poll_s: float = 0.1
    callback_s: float = 0.3
    #: The share of jobs whose callback does not get through; kept for `Setup.undelivered_ttl_s`.
    undelivered: float = 0.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What there is of it; the defaults are those of the settings."""

    submit_slots: int = 50
    poll_slots: int = 250
    deliver_slots: int = 250
    callback_concurrency: int = 50
    result_ttl_s: float = _DAY_S
    undelivered_ttl_s: float = _WEEK_S
    store_bytes: float = 64e9
    #: New jobs are refused above this share.
    store_full_share: float = 0.9
    #: How much of a core may be used, so that waiting for it stays short.
    busy: float = 0.7


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load takes. Counts are of whole processes; two of each are wise, whatever this says."""

    worker_cores: float
    relay_cores: float
    store_cores: float
    store_bytes: float
    slots: Mapping[str, float]
    unfinished_jobs: float
    network_bytes_per_s: float
    workers: int
    relays: int
    #: Systems side by side, with a store each.
    cells: int
    #: What would be at its limit first if all grew.
    limit: str


def per_job_ms(load: Load, costs: Costs) -> Mapping[str, float]:
    """CPU time for one job, of each kind of process."""
    requests = load.submits + load.polls + load.attempts
    accept_ms = load.batched * costs.relay_batched_ms + (1 - load.batched) * costs.relay_post_ms
    return {
        "worker": requests * costs.worker_request_ms,
        "relay": accept_ms + load.reads * costs.relay_post_ms,
        "store": requests * costs.store_request_ms + costs.store_accept_ms,
    }


def kept_bytes(load: Load, setup: Setup, costs: Costs) -> float:
    """The store's memory for each job a second: those that wait, and those that are kept."""
    waiting = load.job_s * (costs.waiting_bytes + max(0, load.prompt_bytes - 200))
    kept_s = (1 - load.undelivered) * setup.result_ttl_s + load.undelivered * setup.undelivered_ttl_s
    return waiting + kept_s * (costs.finished_bytes + load.result_bytes + max(0, load.prompt_bytes - 200))


def held(load: Load) -> Mapping[str, float]:
    """The slots of each kind that each job a second holds."""
    return {
        "submit slots": load.submits * load.submit_s,
        "poll slots": load.polls * load.poll_s,
        "deliver slots": load.attempts * load.callback_s,
    }


def limits(load: Load, setup: Setup, costs: Costs) -> Mapping[str, float]:
    """The jobs a second at which each is at its end: of one worker, one relay, one store, one receiver."""
    cpu = {f"{who}'s core": setup.busy * 1_000 / ms for who, ms in per_job_ms(load, costs).items()}
    slots = (setup.submit_slots, setup.poll_slots, setup.deliver_slots)
    places = {
        f"worker's {kind}": count / each for count, (kind, each) in zip(slots, held(load).items(), strict=True) if each
    }
    memory = setup.store_bytes * setup.store_full_share / kept_bytes(load, setup, costs)
    one_receiver = setup.callback_concurrency / (load.attempts * load.callback_s) if load.attempts else math.inf
    return {**cpu, **places, "store's memory": memory, "one receiver's permits": one_receiver}


def plan(load: Load, setup: Setup, costs: Costs) -> Plan:
    """What a load takes."""
    ends = limits(load, setup, costs)
    of_worker = min(rate for name, rate in ends.items() if name.startswith("worker's"))
    of_store = min(rate for name, rate in ends.items() if name.startswith("store's"))
    cores = {who: load.jobs_per_s * ms / 1_000 for who, ms in per_job_ms(load, costs).items()}
    exchanged = (load.submits + load.polls + load.attempts) * 2 * costs.head_bytes
    # A prompt comes, is stored, claimed and submitted; a result comes, is stored, claimed and called back.
    carried = 4 * (load.prompt_bytes + load.result_bytes)
    return Plan(
        worker_cores=cores["worker"],
        relay_cores=cores["relay"],
        store_cores=cores["store"],
        store_bytes=load.jobs_per_s * kept_bytes(load, setup, costs),
        slots={kind: load.jobs_per_s * each for kind, each in held(load).items()},
        unfinished_jobs=load.jobs_per_s * load.job_s,
        network_bytes_per_s=load.jobs_per_s * (exchanged + carried),
        workers=max(1, math.ceil(load.jobs_per_s / of_worker)),
        relays=max(1, math.ceil(load.jobs_per_s / ends["relay's core"])),
        cells=max(1, math.ceil(load.jobs_per_s / of_store)),
        limit=min((name for name in ends if name.startswith(("worker's", "store's"))), key=ends.__getitem__),
    )


def rows_of(loads: Sequence[Load], setup: Setup, costs: Costs) -> Mapping[str, Sequence[str]]:
    """What each load takes, in words; a row for each kind."""
    plans = [plan(load, setup, costs) for load in loads]
    return {
        "workers": [f"{one.workers} ({one.worker_cores:.2f} cores)" for one in plans],
        "relays": [f"{one.relays} ({one.relay_cores:.2f} cores)" for one in plans],
        "stores": [f"{one.cells} ({one.store_cores:.2f} cores)" for one in plans],
        "memory of all stores": [f"{one.store_bytes / 1e9:,.2f} GB" for one in plans],
        **{kind: [f"{one.slots[kind]:,.1f}" for one in plans] for kind in plans[0].slots},
        "unfinished jobs": [f"{one.unfinished_jobs:,.0f}" for one in plans],
        "network": [f"{one.network_bytes_per_s * 8 / 1e6:,.1f} Mbit/s" for one in plans],
    }


def table_of(loads: Sequence[Load], setup: Setup, costs: Costs) -> Table:
    """A column for each load."""
    table = Table("", *(f"{load.jobs_per_s:,g}/s" for load in loads), title="capacity", title_justify="left")
    for name, cells in rows_of(loads, setup, costs).items():
        table.add_row(name, *cells)
    ends = (f"{name}: {rate:,.0f} jobs/s" for name, rate in limits(loads[0], setup, costs).items())
    table.caption, table.caption_justify = "\n".join(("One of each is at its end at", *ends)), "left"
    return table


def main() -> None:
    """Print what the given load takes."""
    load, setup = Load(0), Setup()
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("rates", nargs="*", type=float, default=[1, 100, 1_000, 10_000], metavar="JOBS_PER_S")
    for name in ("polls", "submits", "attempts", "reads", "batched", "job_s", "submit_s", "poll_s", "callback_s"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(load, name), metavar="N")
    for name in ("prompt_bytes", "result_bytes"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(load, name), metavar="N")
    parser.add_argument("--undelivered", type=float, default=load.undelivered, metavar="SHARE")
    for name in ("result_ttl_s", "store_bytes", "busy"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(setup, name), metavar="N")
    given = vars(parser.parse_args())
    of_setup = {name: given.pop(name) for name in ("result_ttl_s", "store_bytes", "busy")}
    rates = given.pop("rates")
    Console(width=120).print(table_of([Load(rate, **given) for rate in rates], Setup(**of_setup), Costs()))


if __name__ == "__main__":
    main()
