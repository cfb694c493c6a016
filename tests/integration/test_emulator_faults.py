"""What goes wrong in the emulated upstream on request: each fault, the line they stand in, and their shares."""

import time

import aiohttp
import pytest

from relay.dev.emulator import Fault
from relay.dev.emulator.answers import CREDITS_USED_UP, RATE_LIMITED
from tests.integration.emulator_harness import Answer, Emulated, emulated

HANG_S = 0.2
ANSWERED = [fault for fault in Fault if fault.kind.isdigit()]
CUT = [fault for fault in Fault if fault.kind in ("reset", "lost", "hang", "stall")]


async def meet(upstream: Emulated, fault: Fault, job_id: str) -> Answer:
    """Make the request that the fault is for."""
    return await (upstream.submit() if fault.call == "submit" else upstream.poll(job_id))


async def test_every_fault_is_tried_here() -> None:
    """A new fault needs a test of what it does."""
    others = {"ok", "credits", "garbage"}
    assert set(Fault) - set(ANSWERED) - set(CUT) == {fault for fault in Fault if fault.kind in others}


@pytest.mark.parametrize("fault", ANSWERED)
async def test_a_status_is_answered_and_the_next_request_goes_well(fault: Fault) -> None:
    """The status comes in the documented shape, takes no job, is counted, and happens once."""
    async with emulated(retry_after_s=9) as upstream:
        job_id = await upstream.take()
        await upstream.change(fault_sequence=[fault])
        answer = await meet(upstream, fault, job_id)
        assert answer.status == int(fault.kind)
        assert answer.detail
        if answer.status == 429:
            assert (answer.detail, answer.headers["Retry-After"]) == (RATE_LIMITED, "9")
        stats = await upstream.stats()
        assert (stats["submits"], stats["credits_used"], stats["faults"]) == (1, 3, {fault: 1})
        assert (await meet(upstream, fault, job_id)).status in (200, 202)


async def test_credits_can_seem_used_up() -> None:
    """The other 429 has its own text and no `Retry-After`."""
    async with emulated(fault_sequence="submit_credits") as upstream:
        answer = await upstream.submit()
        assert (answer.status, answer.detail) == (429, CREDITS_USED_UP)
        assert "Retry-After" not in answer.headers
        assert (await upstream.stats())["submits"] == 0


@pytest.mark.parametrize(("fault", "status"), [(Fault.SUBMIT_GARBAGE, 202), (Fault.POLL_GARBAGE, 200)])
async def test_garbage_looks_like_success(fault: Fault, status: int) -> None:
    """The status is that of success, and the body is no JSON."""
    async with emulated() as upstream:
        job_id = await upstream.take()
        await upstream.change(fault_sequence=[fault])
        with pytest.raises(aiohttp.ContentTypeError) as caught:
            await meet(upstream, fault, job_id)
        assert caught.value.status == status
        assert (await upstream.stats())["submits"] == 1


@pytest.mark.parametrize("fault", CUT)
async def test_a_connection_is_cut(fault: Fault) -> None:
    """Nothing is answered, at once or after `hang_s`; only `lost` and `stall` have taken and charged the job."""
    async with emulated(hang_s=HANG_S) as upstream:
        job_id = await upstream.take()
        await upstream.change(fault_sequence=[fault])
        began = time.monotonic()
        with pytest.raises(aiohttp.ClientConnectionError):
            await meet(upstream, fault, job_id)
        if fault.kind in ("hang", "stall"):
            assert time.monotonic() - began >= HANG_S
        stats = await upstream.stats()
        submits = 2 if fault.kind in ("lost", "stall") else 1
        assert (stats["submits"], stats["credits_used"], stats["faults"]) == (submits, 3 * submits, {fault: 1})
        assert (await meet(upstream, fault, job_id)).status in (200, 202)


async def test_a_job_whose_answer_was_lost_goes_on() -> None:
    """It can be found by its prompt, and stands beside the one that is submitted again."""
    async with emulated(fault_sequence="submit_lost") as upstream:
        with pytest.raises(aiohttp.ClientConnectionError):
            await upstream.submit("[latency=0] lost?")
        await upstream.take("[latency=0] lost?")
        stats = await upstream.stats()
    assert (stats["jobs"], stats["repeated_submits"], stats["credits_used"]) == ({"done": 2}, 1, 6)


async def test_faults_come_in_their_order() -> None:
    """Submits and polls each meet their own faults of a sequence, in its order, and chance decides after it."""
    sequence = "submit_503, poll_500, submit_ok, poll_ok, submit_400, poll_404"
    async with emulated(fault_sequence=sequence, faults={Fault.SUBMIT_504: 1.0}) as upstream:
        submits = [await upstream.submit() for _ in range(5)]
        assert [answer.status for answer in submits] == [503, 202, 400, 504, 504]
        job_id = submits[1].body["job_id"]
        assert [(await upstream.poll(job_id)).status for _ in range(4)] == [500, 200, 404, 200]
        faults = (await upstream.stats())["faults"]
    assert faults == {"submit_503": 1, "submit_400": 1, "submit_504": 2, "poll_500": 1, "poll_404": 1}


async def test_a_new_sequence_replaces_the_one_in_line() -> None:
    """What was in line is dropped by a new sequence, also by an empty one, and by no other change."""
    async with emulated(fault_sequence=["submit_500"] * 3) as upstream:
        await upstream.change(retry_after_s=1)
        assert (await upstream.submit()).status == 500
        await upstream.change(fault_sequence=["submit_503", "submit_504"])
        assert (await upstream.submit()).status == 503
        await upstream.change(fault_sequence=[])
        assert (await upstream.submit()).status == 202


@pytest.mark.parametrize(
    ("settings", "request_", "status"),
    [
        ({"credits": 0}, {}, 429),
        ({"api_keys": "another"}, {}, 401),
        ({}, {"timeout": "1"}, 422),
        ({}, {"scraper": "altavista"}, 404),
    ],
)
async def test_what_is_refused_cannot_be_lost(
    settings: dict[str, object], request_: dict[str, str], status: int
) -> None:
    """A fault that takes the job first takes none that breaks a rule; it was not met, and is not counted."""
    async with emulated(faults={Fault.SUBMIT_LOST: 1.0}, **settings) as upstream:
        assert (await upstream.submit(**request_)).status == status
        stats = await upstream.stats()
    assert (stats["submits"], stats["faults"]) == (0, {})


async def test_answers_can_be_late() -> None:
    """The delay follows what is answered: a job whose submit was given up exists; control is not delayed."""
    async with emulated(answer_delay_s=3_600) as upstream:
        await upstream.taken_without_answer()
        assert (await upstream.change(answer_delay_s=0)).status == 200
        await upstream.take()
