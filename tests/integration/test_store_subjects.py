"""What a callback tells, as the service can show it: to the byte what workers send."""

from collections.abc import AsyncIterator

import pytest

from relay.core.callback import headers_of, message_of, own_headers_of
from relay.core.errors import NotFound
from relay.core.model import (
    Batch,
    BatchId,
    CallbackFormat,
    DeliveryStatus,
    ErrorCode,
    EventType,
    JobError,
    JobId,
    JobStatus,
    PayloadKind,
)
from relay.core.signing import new_secret
from relay.core.store.records import pack_result
from relay.core.store.work import DeliverClaim, saved_outcome
from tests.integration.store_harness import (
    ACME,
    RESULT,
    UMBRELLA,
    Bench,
    delivered,
    failed,
    make_admission,
    make_callback,
    make_spec,
)

pytestmark = pytest.mark.store

OWN = make_callback("batches.example:443", events=[EventType.BATCH_COMPLETED], format=CallbackFormat.CLOUDEVENTS)


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store."""
    async with Bench.open(store_url) as bench:
        yield bench


async def shown(bench: Bench, claim: DeliverClaim) -> bytes:
    """The body that the service can show of what a worker is about to send."""
    return message_of(await bench.store.subject(ACME, JobId(claim.lease.id))).body


@pytest.mark.parametrize("format_", list(CallbackFormat))
@pytest.mark.parametrize("payload", list(PayloadKind))
@pytest.mark.parametrize("compressed", [False, True])
async def test_a_job_that_is_done(
    bench: Bench, format_: CallbackFormat, payload: PayloadKind, compressed: bool
) -> None:
    """The body is the worker's, in every format, before, between and after the attempts."""
    callback = make_callback(format=format_, payload=payload)
    job = await bench.accept(prompt="Wie heißt das?", callback=callback, params={"n": 1.5}, metadata={"ä": [None]})
    await bench.submit_all()
    [poll] = await bench.work.begin_poll(1)
    url = "https://relay.example/v1/results/token" if payload is PayloadKind.THIN else None
    stored = pack_result(RESULT, 0 if compressed else 1_000)
    await bench.work.save(
        [saved_outcome(poll.lease, JobStatus.DONE, None, announce_after_ms=0, result=stored, result_url=url)]
    )
    before = message_of(await bench.store.subject(ACME, job.id)).body
    [claim] = await bench.work.begin_deliver(1)
    sent = message_of(claim.subject).body
    assert before == sent == await shown(bench, claim)
    assert (RESULT in sent) == (payload is PayloadKind.FULL)
    await bench.work.save([failed(claim, 0)])
    [claim] = await bench.work.begin_deliver(1)
    await bench.work.save([delivered(claim)])
    assert await shown(bench, claim) == sent


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.TIMED_OUT])
async def test_a_job_without_a_result(bench: Bench, status: JobStatus) -> None:
    """Failures are told with their error, the same on both sides."""
    await bench.accept()
    await bench.submit_all()
    [poll] = await bench.work.begin_poll(1)
    error = JobError(ErrorCode.UPSTREAM_JOB_LOST, "verschütt gegangen")
    await bench.work.save([saved_outcome(poll.lease, status, error, announce_after_ms=0)])
    [claim] = await bench.work.begin_deliver(1)
    assert await shown(bench, claim) == message_of(claim.subject).body


async def test_a_job_that_shares_a_result(bench: Bench) -> None:
    """A follower's body has its leader's result."""
    await bench.accept(coalesce=True)
    follower = await bench.accept(coalesce=True)
    await bench.submit_all()
    await bench.finish_all()
    [poll] = await bench.work.begin_poll(1)
    assert poll.lease.id == follower.id
    assert poll.shared is not None
    await bench.work.save(
        [saved_outcome(poll.lease, JobStatus.DONE, None, announce_after_ms=0, result_of=poll.shared.of)]
    )
    claims = await bench.work.begin_deliver(2)
    assert len(claims) == 2
    for claim in claims:
        assert RESULT in await shown(bench, claim)
        assert await shown(bench, claim) == message_of(claim.subject).body


async def test_a_batch(bench: Bench) -> None:
    """A batch is told with the numbers that it had when it was completed, whatever became of its callbacks."""
    batch_id = (await bench.store.accept_batch(make_admission(), [make_spec() for _ in range(2)], OWN)).batch_id
    open_ = await bench.store.subject(ACME, batch_id)
    assert isinstance(open_, Batch)
    assert (open_.statuses[JobStatus.QUEUED], open_.completed_ms) == (2, None)
    await bench.submit_all()
    await bench.finish_all()
    claims = await bench.work.begin_deliver(3)
    await bench.work.save([delivered(claim) for claim in claims if claim.lease.id != batch_id])
    [own] = [claim for claim in claims if claim.lease.id == batch_id]
    assert await shown(bench, own) == message_of(own.subject).body
    told = await bench.store.subject(ACME, batch_id)
    assert isinstance(told, Batch)
    assert told.deliveries[DeliveryStatus.PENDING] == 2
    assert (await bench.store.batch(ACME, batch_id)).deliveries[DeliveryStatus.DELIVERED] == 2


async def test_nobody_elses(bench: Bench) -> None:
    """Another client's job or batch is not found, nor one that is not there."""
    job = await bench.accept()
    batch_id = (await bench.store.accept_batch(make_admission(), [make_spec()], None)).batch_id
    for client, thing_id in ((UMBRELLA, job.id), (UMBRELLA, batch_id), (ACME, BatchId("batch_" + "0" * 26))):
        with pytest.raises(NotFound):
            await bench.store.subject(client, thing_id)


async def test_the_headers_that_can_be_shown(bench: Bench) -> None:
    """They are those that are sent, but for the client's own, which are secret."""
    await bench.accept(callback=make_callback(headers={"Authorization": "Bearer hidden", "X-Env": "prod"}))
    await bench.submit_all()
    await bench.finish_all()
    [claim] = await bench.work.begin_deliver(1)
    message, secrets = message_of(claim.subject), [new_secret()]
    sent = headers_of(message, secrets, attempt=1, now_s=1_700_000_000)
    own = own_headers_of(message, secrets, attempt=1, now_s=1_700_000_000)
    assert set(sent) - set(own) == {"Authorization", "X-Env"}
    assert {name: sent[name] for name in own} == own
