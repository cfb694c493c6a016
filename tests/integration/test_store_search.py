"""Finding jobs by what a person knows of them, and batches by their age."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.core.model import BatchId, DeliveryStatus, JobId, JobStatus
from relay.core.store import Page
from tests.integration.store_harness import ACME, UMBRELLA, Bench, make_admission, make_spec

pytestmark = pytest.mark.store


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store."""
    async with Bench.open(store_url) as bench:
        yield bench


async def found(bench: Bench, text: str, **changes: Any) -> list[str]:
    """The ids on the first page of what a client looks for."""
    return [job.id for job in (await bench.store.search(ACME, text, **changes)).jobs]


async def all_pages(bench: Bench, text: str, **changes: Any) -> list[Page]:
    """Every page of what a client looks for."""
    pages, before = [], None
    while True:
        pages.append(await bench.store.search(ACME, text, before=before, **changes))
        before = pages[-1].next_before
        if before is None:
            return pages


async def accept_batch(bench: Bench, prompts: list[str]) -> tuple[BatchId, list[JobId]]:
    """A batch of jobs that ask this."""
    specs = [make_spec(prompt=prompt) for prompt in prompts]
    accepted = await bench.store.accept_batch(make_admission(max_unfinished_jobs=10_000), specs, None)
    return accepted.batch_id, accepted.job_ids


class TestById:
    """Ids and parts of them."""

    async def test_a_whole_id(self, bench: Bench) -> None:
        """The id of a job finds it, however it was pasted; another client's finds nothing."""
        job, other = await bench.accept(), await bench.accept(UMBRELLA)
        assert await found(bench, f"  {job.id.upper()}\n") == [job.id]
        assert await found(bench, other.id) == []
        assert await found(bench, "job_" + "0" * 26) == []

    async def test_a_job_that_is_not_enlisted_yet(self, bench: Bench) -> None:
        """The id of a job of a batch is found as soon as it is accepted."""
        _, ids = await accept_batch(bench, ["Why?"])
        assert await found(bench, ids[0]) == [ids[0]]

    async def test_the_beginning_of_an_id(self, bench: Bench) -> None:
        """Eight characters are enough, and find all that begin so, page by page."""
        _, ids = await accept_batch(bench, ["Why?"] * 5)
        assert await found(bench, ids[0][:12]) == ids[::-1]
        assert await found(bench, "job_00000000") == []
        pages = await all_pages(bench, ids[0][:12], limit=2)
        assert [job.id for page in pages for job in page.jobs] == ids[::-1]
        assert [len(page.jobs) for page in pages] == [2, 2, 1]

    async def test_fewer_characters_are_text(self, bench: Bench) -> None:
        """Seven characters of an id are looked for as text, and so is what cannot be one."""
        job = await bench.accept(prompt="What is job_0123456 about, and what job_uuuuuuuu?")
        assert await found(bench, "job_0123456") == [job.id]
        assert await found(bench, "JOB_UUUUUUUU") == [job.id]
        assert await found(bench, job.id[:11]) == []

    async def test_a_batch(self, bench: Bench) -> None:
        """The id of a batch, or its beginning, finds its jobs; those of several that begin so come newest first."""
        await bench.accept()
        for _ in range(5):
            one, ids = await accept_batch(bench, ["Why?"] * 3)
            two, others = await accept_batch(bench, ["How?"] * 3)
            if one[:15] == two[:15]:
                break
        assert one[:15] == two[:15], "no two of them were accepted within 32 ms"
        assert await found(bench, one) == ids[::-1]
        assert await found(bench, two) == others[::-1]
        both = await found(bench, one[:15])
        assert set(both) >= {*ids, *others}
        assert both == sorted(both, reverse=True)
        pages = await all_pages(bench, one, limit=2)
        assert [[job.id for job in page.jobs] for page in pages] == [[ids[2], ids[1]], [ids[0]]]
        assert (await bench.store.search(UMBRELLA, one)).jobs == []

    async def test_filters_hold_for_ids_too(self, bench: Bench) -> None:
        """A job that is found by its id is shown only where the filters have it."""
        _, ids = await accept_batch(bench, ["Why?"] * 2)
        await bench.store.cancel(ACME, ids[0])
        for text in (ids[0], ids[0][:14]):
            assert await found(bench, text, statuses=frozenset({JobStatus.CANCELLED})) == [ids[0]]
            assert await found(bench, text, deliveries=frozenset({DeliveryStatus.SKIPPED})) == [ids[0]]
        assert await found(bench, ids[0], statuses=frozenset({JobStatus.QUEUED})) == []
        assert await found(bench, ids[0], deliveries=frozenset({DeliveryStatus.WAITING})) == []
        assert await found(bench, ids[0], before=ids[0]) == []
        assert await found(bench, ids[0], before=ids[1]) == [ids[0]]


class TestByText:
    """Prompts and metadata."""

    @pytest.mark.parametrize(
        ("text", "hits"),
        [
            ("CAPITAL of france", [0]),
            ('say "hello"', [1]),
            ("ÜBER", [2]),
            ("strasse", [2]),
            ("order-42", [3]),
            ("Campaign", [3]),
            ("10.5", [3]),
            ("nested", [3]),
            ("no such thing", []),
            ("chatgpt", []),
            ("hooks.example", []),
            ("", [3, 2, 1, 0]),
        ],
    )
    async def test_what_is_found(self, bench: Bench, text: str, hits: list[int]) -> None:
        """Prompts, and keys and values of metadata, whatever the case; nothing else of a job."""
        jobs = [
            await bench.accept(prompt="What is the capital of France?"),
            await bench.accept(prompt='Who was the first to say "hello"?'),
            await bench.accept(prompt="Wo liegt die Straße überhaupt?"),
            await bench.accept(prompt="?", metadata={"campaign": ["Order-42", {"n": 10.5, "is": [True, "Nested"]}]}),
        ]
        await bench.accept(UMBRELLA, prompt="What is the capital of France?")
        assert await found(bench, text) == sorted((jobs[i].id for i in hits), reverse=True)

    async def test_filters_and_pages(self, bench: Bench) -> None:
        """Pages have as many as asked for, newest first, of those that the filters have, each once."""
        jobs = [await bench.accept(prompt=f"number {i} {'odd' if i % 2 else 'even'}") for i in range(20)]
        for job in jobs[:10]:
            await bench.store.cancel(ACME, job.id)
        expected = sorted((job.id for job in jobs if "odd" in job.spec.prompt), reverse=True)
        cancelled = {job.id for job in jobs[:10]}
        pages = await all_pages(bench, "ODD", limit=3)
        assert [job.id for page in pages for job in page.jobs] == expected
        assert [len(page.jobs) for page in pages[:3]] == [3, 3, 3]
        assert await found(bench, "odd", statuses=frozenset({JobStatus.CANCELLED})) == [
            job_id for job_id in expected if job_id in cancelled
        ]

    async def test_a_call_reads_so_many_and_no_more(self, bench: Bench) -> None:
        """What lies deep is found by going on where an empty page stopped."""
        _, ids = await accept_batch(bench, ["the needle", *["hay"] * 2_500, "another NEEDLE"])
        pages = await all_pages(bench, "needle")
        assert [[job.id for job in page.jobs] for page in pages] == [[ids[-1]], [ids[0]]]
        assert [len(page.jobs) for page in await all_pages(bench, "no such thing")] == [0, 0]


class TestBatches:
    """A client's batches."""

    async def test_newest_first_page_by_page(self, bench: Bench) -> None:
        """Each batch is listed once, with its numbers, to its client only."""
        ids = sorted([(await accept_batch(bench, ["Why?"] * n))[0] for n in range(1, 6)], reverse=True)
        seen: list[BatchId] = []
        before = None
        for size in (2, 2, 1):
            page = await bench.store.batches(ACME, 2, before)
            assert len(page.batches) == size
            seen += [batch.id for batch in page.batches]
            before = page.next_before
        assert before is None
        assert seen == ids
        batch = (await bench.store.batches(ACME, 50)).batches[0]
        assert batch == await bench.store.batch(ACME, batch.id)
        assert (await bench.store.batches(UMBRELLA, 50)).batches == []

    async def test_purged_ones_are_gone(self, bench: Bench) -> None:
        """A batch leaves the list when it is purged, with the last of its jobs."""
        await accept_batch(bench, ["Why?"])
        kept, ids = await accept_batch(bench, ["Why?"])
        await bench.submit_all()
        await bench.finish_all(announce=False)
        await bench.store.redeliver(ACME, ids[0])
        await bench.let_pass(86_401)
        # The jobs first, then the batches, which wait for them.
        for _ in range(3):
            await bench.work.purge(100)
            await bench.let_pass(61)
        assert [batch.id for batch in (await bench.store.batches(ACME)).batches] == [kept]
