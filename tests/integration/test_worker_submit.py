"""Submits that end at once: what reaches the upstream, under which key, and what a refusal leads to."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from relay.core.model import ClientName, DeliveryStatus, ErrorCode, JobStatus
from tests.integration.store_harness import ACME, UMBRELLA
from tests.integration.worker_harness import DEFAULT, UPSTREAM_KEY, Rig, failure, write_clients
from tests.integration.worker_peers import Asked, Upstream, emulated, refusing, taking
from tests.processes import until


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"country": "US", "timeout": "300", "bypass_cache": "false", "params": {}}),
        (
            {"country": "DE", "timeout_s": 12.5, "bypass_cache": True, "params": {"mode": "MODEL_MODE_FAST", "n": 3}},
            {
                "country": "DE",
                "timeout": "12.5",
                "bypass_cache": "true",
                "params": {"mode": "MODEL_MODE_FAST", "n": "3"},
            },
        ),
        ({"prompt": "\U0001f600" * 4_000}, {"prompt": "\U0001f600" * 4_000}),
    ],
    ids=["defaults", "everything", "longest"],
)
async def test_a_job_reaches_the_upstream_as_it_was_asked_for(
    store_url: str, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    """It is submitted once, with everything that was asked for, and ends delivered."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig, rig.working():
        job = await rig.settled(await rig.accept(**fields))
        seen = await upstream.received(job.upstream_job_id)
        assert (await upstream.stats())["submits"] == 1
        account = await rig.account()
    assert (job.status, job.delivery.status) == (JobStatus.DONE, DeliveryStatus.DELIVERED)
    assert seen["scraper"] == "chatgpt"
    assert expected.items() <= seen.items()
    assert job.submitted_ms is not None
    assert job.completed_ms is not None
    assert job.created_ms <= job.submitted_ms <= job.completed_ms
    assert account == {"submitted": 1, "credits": 3}


async def test_what_the_upstream_refuses_fails(store_url: str) -> None:
    """A refused job fails at once with the upstream's own words, and is not submitted again."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"prompt": "[reject]"}, "As the prompt asked."),
        ({"prompt": "[status=404]"}, "As the prompt asked."),
        ({"prompt": "[status=422]"}, "As the prompt asked."),
        ({"scraper": "unheard_of"}, "Unknown scraper 'unheard_of'."),
        ({"scraper": "gemini", "country": "JP"}, "country: 'JP' is not available for gemini."),
        ({"prompt": "long " * 700}, "URI too long."),
    ]
    async with emulated(max_url_bytes=3_000) as upstream, Rig.open(store_url, upstream.url) as rig:
        async with rig.working(measured=True) as worker:
            jobs = [(await rig.accept(**fields), detail) for fields, detail in cases]
            for job, detail in jobs:
                failed = await rig.settled(job)
                assert failure(failed) == (ErrorCode.UPSTREAM_REJECTED, detail)
                assert failed.upstream_job_id is None
                [received] = rig.received(job)
                assert (received.event, received.verified) == ("job.failed", True)
                assert received.body["data"]["error"] == {"code": "upstream_rejected", "message": detail}
            assert await worker.metric("submits_total", outcome="rejected") == len(cases)
            assert await worker.metric("job_outcomes_total", code="upstream_rejected") == len(cases)
        assert await rig.account() == {}


async def test_a_refused_key_fails_the_job_loudly(store_url: str) -> None:
    """A key that the upstream does not know fails the job, and the operator's metrics say so."""
    async with emulated(api_keys=("another-key",)) as upstream, Rig.open(store_url, upstream.url) as rig:
        async with rig.working(measured=True) as worker:
            failed = await rig.settled(await rig.accept())
            assert await worker.metric("submits_total", outcome="unauthorized") == 1
        assert failure(failed) == (ErrorCode.UPSTREAM_UNAUTHORIZED, "Invalid or revoked API key.")
        assert (await upstream.stats())["submits"] == 0


async def test_clients_pay_with_their_own_keys(store_url: str, tmp_path: Path) -> None:
    """A client with a key of its own submits under it, the others under the operator's."""
    clients = write_clients(tmp_path / "clients.toml", acme="key-of-acme-itself", umbrella=None)
    async with (
        Upstream().serving() as upstream,
        Rig.open(store_url, upstream.url, clients_file=clients) as rig,
        rig.working(),
    ):
        for client in (ACME, UMBRELLA):
            await rig.ended(await rig.accept(f"of {client}", client=client))
    assert {asked.prompt: asked.key for asked in upstream.submits} == {
        "of acme": "key-of-acme-itself",
        "of umbrella": UPSTREAM_KEY,
    }
    assert all("api_key" not in asked.query for asked in upstream.submits)


async def test_clients_take_turns(store_url: str, tmp_path: Path) -> None:
    """Who comes later, with less, is not made to wait for another client's backlog."""

    async def slowly(asked: Asked) -> web.Response:
        await asyncio.sleep(0.02)
        return await taking(asked)

    clients = write_clients(tmp_path / "clients.toml", acme=None, umbrella=None)
    async with (
        Upstream(submit=slowly).serving() as upstream,
        Rig.open(store_url, upstream.url, clients_file=clients, submit_slots=2) as rig,
    ):
        backlog = [await rig.accept(f"acme {n}", client=ACME) for n in range(30)]
        few = [await rig.accept(f"umbrella {n}", client=UMBRELLA) for n in range(4)]
        async with rig.working():
            for job in [*few, *backlog]:
                await rig.ended(job)
    order = [asked.prompt.partition(" ")[0] for asked in upstream.submits]
    assert len(order) == 34
    # One each, round by round; a round or two of slack for slots that were not free together.
    assert order[:12].count("umbrella") == 4, order


async def test_a_cancelled_submit_is_an_orphan(store_url: str) -> None:
    """A job that is cancelled while the upstream takes it stays cancelled, and what it costs is accounted for."""
    go_on = asyncio.Event()

    async def holding(asked: Asked) -> web.Response:
        await go_on.wait()
        return await taking(asked)

    async with Upstream(submit=holding).serving() as upstream, Rig.open(store_url, upstream.url) as rig:
        async with rig.working(measured=True) as worker:
            job = await rig.accept("to be cancelled")
            await until(lambda: len(upstream.submits) == 1, 10, lambda: "nothing was submitted")
            await rig.store.cancel(DEFAULT, job.id)
            go_on.set()
            cancelled = await rig.until(job, lambda seen: seen.upstream_job_id is not None)
            assert await worker.metric("orphaned_submits_total") == 1
            assert await worker.metric("refused_saves_total", kind="submit") == 1
        assert cancelled.status is JobStatus.CANCELLED
        assert await rig.account() == {"submitted": 1, "orphans": 1}
        assert (upstream.polls, rig.received(job)) == ([], [])


async def test_jobs_of_unknown_clients_are_not_submitted(store_url: str) -> None:
    """Nobody would pay for the jobs of a client that is not configured (any more): they end by their deadlines."""
    async with Upstream().serving() as upstream, Rig.open(store_url, upstream.url) as rig:
        unknown = await rig.accept("of somebody", client=ClientName("somebody"), deadline_s=1)
        async with rig.working():
            assert (await rig.ended(await rig.accept("of a client"))).status is JobStatus.DONE
            assert (await rig.ended(unknown)).status is JobStatus.TIMED_OUT
    assert [asked.prompt for asked in upstream.submits] == ["of a client"]


async def test_detail_never_repeats_the_key(store_url: str) -> None:
    """An upstream that quotes the key in its refusal does not get it through to the client."""

    async def quoting(asked: Asked) -> web.Response:
        return refusing(401, f"{asked.key} is not known")()

    async with Upstream(submit=quoting).serving() as upstream, Rig.open(store_url, upstream.url) as rig, rig.working():
        failed = await rig.settled(await rig.accept())
    assert failure(failed) == (ErrorCode.UPSTREAM_UNAUTHORIZED, "… is not known")
