"""docs/calls.md and docs/client.md: every snippet does what it says, against a running relay."""

import asyncio
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from relay.api.calls import CALLS
from relay.client import RelayClient, ask
from relay.core.signing import new_secret
from tests.dev_process import Running, clean_environment
from tests.integration.cli_harness import fixture_dev
from tests.integration.docs_harness import Snippet, command, run, snippets
from tests.integration.inbox_harness import signed

__all__ = ["fixture_dev"]

CALLS_PAGE = [snippet for snippet in snippets("calls.md") if snippet.heading.startswith(("GET ", "POST "))]
STREAM = "GET /v1/events"
JOB, BATCH = "job_01jgfj7p00e8a3c5x9z1v7m4kq", "batch_01jgfj7p00e8a3c5x9z1v7m4kq"
DESTINATION, HOOK = "hooks.example.com:443", "https://example.com/hook"


class World:
    """What the snippets speak of, made real on a `dev`."""

    def __init__(self, dev: Running) -> None:
        self.dev = dev
        said = dev.announced()
        self.url, self.key, self.hook = said["url"], said["api_key"], f"{said['inbox_url']}/hook"
        self.inbox_url = said["inbox_url"]
        self.job = self._delivered()
        # One for each snippet that redelivers one: nothing tells when a redelivery of a batch has ended.
        self.batch, *self.batches = (self._batch() for _ in range(4))
        dev.wait_for("batch.completed", times=4)
        thin = self._delivered(thin=True)
        self.result_url = next(body["data"]["result_url"] for body in self._callbacks() if body["data"]["id"] == thin)

    def real(self, snippet: Snippet) -> Snippet:
        """The snippet, about things that are there."""
        names = {
            JOB: self._unfinished() if "cancel" in snippet.heading else self.job,
            BATCH: self.batches.pop() if "batches/{id}/redeliver" in snippet.heading else self.batch,
            DESTINATION: self.inbox_url.removeprefix("http://"),
            HOOK: self.hook,
        }
        code = snippet.code
        for name, there in names.items():
            code = code.replace(name, there)
        return replace(snippet, code=code)

    @property
    def environment(self) -> Mapping[str, str]:
        """What the page asks to set."""
        return {"RELAY_URL": self.url, "RELAY_API_KEY": self.key, "RESULT_URL": self.result_url}

    def settled(self) -> None:
        """Wait until a redelivery of the job has ended again."""
        self._until(lambda: self._delivery(self.job) == "delivered")

    def submit(self, prompt: str = "x") -> str:
        """Another job."""
        return ask(
            lambda relay: relay.submit(scraper="grok", prompt=prompt, callback_url=self.hook), self.url, self.key
        ).id

    def _batch(self) -> str:
        return ask(
            lambda relay: relay.submit_batch(prompts=["x"], scrapers=["grok"], callback_url=self.hook),
            self.url,
            self.key,
        ).id

    def _unfinished(self) -> str:
        return self.submit("[never]")

    def _delivered(self, *, thin: bool = False) -> str:
        async def main(relay: RelayClient) -> str:
            payload = "thin" if thin else "full"
            job = await relay.submit(scraper="grok", prompt="x", callback_url=self.hook, callback_payload=payload)
            await relay.wait(job)
            return job.id

        job_id = ask(main, self.url, self.key)
        self._until(lambda: self._delivery(job_id) == "delivered")
        return job_id

    def _delivery(self, job_id: str) -> str:
        return ask(lambda relay: relay.job(job_id), self.url, self.key).delivery.status

    def _until(self, holds: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < give_up
            time.sleep(0.05)

    def _callbacks(self) -> list[dict[str, dict[str, str]]]:
        with urllib.request.urlopen(f"{self.inbox_url}/", timeout=10) as answer:  # noqa: S310 - our own inbox
            return [entry["body"] for entry in json.load(answer)["data"]]


@pytest.fixture(scope="module", name="world")
def fixture_world(dev: Running) -> World:
    """What the snippets speak of."""
    return World(dev)


def test_every_call_is_shown_three_ways() -> None:
    """Nothing is left out, and nothing is shown that is not there."""
    shown = [(snippet.heading, snippet.language) for snippet in CALLS_PAGE]
    calls = {f"{call.method} {call.path}" for call in CALLS if call.path.startswith("/v1/")}
    assert sorted(shown) == sorted((call, language) for call in calls for language in ("sh", "python", "js"))


@pytest.mark.parametrize(
    "snippet",
    [snippet for snippet in CALLS_PAGE if snippet.heading != STREAM],
    ids=lambda snippet: f"{snippet.heading} {snippet.language}",
)
def test_a_call(world: World, snippet: Snippet) -> None:
    """It succeeds, and prints something."""
    world.settled()
    assert run(world.real(snippet), world.dev.folder, world.environment).strip()


@pytest.mark.parametrize(
    "snippet", [snippet for snippet in CALLS_PAGE if snippet.heading == STREAM], ids=lambda snippet: snippet.language
)
def test_the_stream(world: World, snippet: Snippet) -> None:
    """It tells of a job that is submitted meanwhile."""
    with subprocess.Popen(  # noqa: S603 - our own documentation
        command(snippet), env=clean_environment(world.environment), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            # The first line says that it is open.
            assert process.stdout.readline()
            job_id = world.submit()
            assert any(job_id in line for line in process.stdout)
        finally:
            process.kill()


@pytest.fixture(name="client_page")
def fixture_client_page() -> Mapping[str, list[Snippet]]:
    """The snippets of docs/client.md by their headings."""
    found: dict[str, list[Snippet]] = {}
    for snippet in snippets("client.md"):
        found.setdefault(snippet.heading, []).append(snippet)
    return found


def test_three_lines(world: World, client_page: Mapping[str, list[Snippet]]) -> None:
    """A plain script gets a result."""
    [snippet] = client_page["Three lines"]
    assert len([line for line in snippet.code.splitlines() if line]) == 3
    assert "You asked chatgpt" in run(world.real(snippet), world.dev.folder, world.environment)


def test_the_other_snippets_of_the_client(world: World, client_page: Mapping[str, list[Snippet]]) -> None:
    """A batch that is followed, and a refusal with its places."""
    [batch] = client_page["With an event loop"]
    assert "4 of 4" in run(world.real(batch), world.dev.folder, world.environment)
    [refused] = client_page["Errors"]
    assert run(world.real(refused), world.dev.folder, world.environment).startswith("/prompt ")


def test_changes_of_the_client(world: World, client_page: Mapping[str, list[Snippet]]) -> None:
    """The loop over changes begins with what is unfinished."""
    [snippet] = client_page["Changes as they happen"]
    with subprocess.Popen(  # noqa: S603 - our own documentation
        command(snippet),
        env=clean_environment({**world.environment, "PYTHONUNBUFFERED": "1"}),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().endswith("unfinished\n")
        finally:
            process.kill()


async def test_the_receiver_of_the_client(client_page: Mapping[str, list[Snippet]]) -> None:
    """It takes a genuine callback, once or twice, and no other."""
    [snippet] = client_page["Receive callbacks"]
    secret = new_secret()
    names: dict[str, object] = {}
    exec(snippet.code.replace("whsec_…", secret), names)  # noqa: S102 - our own documentation
    app = names["app"]
    assert isinstance(app, web.Application)
    body = b'{"type": "batch.started", "timestamp": "2026-01-01T00:00:00.000Z", "data": {}}'
    async with TestClient(TestServer(app, host="127.0.0.1")) as receiver:
        for headers, status in (
            (signed(body, by=[secret]), 204),
            (signed(body, by=[secret]), 204),
            (signed(body), 401),
        ):
            async with asyncio.timeout(5), receiver.post("/hook", data=body, headers=headers) as answer:
                assert answer.status == status
