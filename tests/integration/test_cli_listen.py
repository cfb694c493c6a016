"""`listen`: callbacks on a developer's desk, printed and passed on."""

import contextlib
import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from relay.core.signing import new_secret
from tests.dev_process import Running, run
from tests.integration.inbox_harness import SECRET, signed
from tests.processes import free_port

JOB_ID = "job_01jgfj7p00e8a3c5x9z1v7m4kq"
BODY = json.dumps({"type": "job.completed", "data": {"id": JOB_ID, "prompt": "  kept  as it is"}}).encode()

Listen = Callable[..., str]


@dataclass
class Program:
    """What a developer runs: notes each request, and answers as told."""

    answer: web.Response = field(default_factory=lambda: web.Response(status=204))
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        """Note it."""
        self.requests.append((request.path_qs, dict(request.headers), await request.read()))
        return self.answer


@contextlib.asynccontextmanager
async def program(answer: web.Response | None = None) -> AsyncIterator[Program]:
    """A running program."""
    made = Program() if answer is None else Program(answer)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    async with TestServer(app, host="127.0.0.1") as server:
        made.url = f"http://127.0.0.1:{server.port}"
        yield made


@pytest.fixture(name="listener")
def fixture_listener(tmp_path: Path) -> Iterator[Running]:
    """`listen`, not started."""
    listener = Running(["listen", "--port", "0"], tmp_path, {"RELAY_SIGNING_SECRET": SECRET})
    yield listener
    listener.bury()


def start(listener: Running, *options: str) -> str:
    """Start it with options; returns where it listens."""
    listener.arguments = [*listener.arguments, *options]
    return listener.start().wait_for("listening").split("callbacks at ")[1].split()[0]


async def post(url: str, headers: dict[str, str], body: bytes = BODY) -> tuple[int, dict[str, str], str]:
    """Post a callback: the answer's status, headers and text."""
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status, dict(answer.headers), await answer.text()


async def test_a_line_has_the_event_the_id_and_the_answer(listener: Running) -> None:
    """When, genuine or not, what, which, and what was answered in what time; the secret is hinted at only."""
    url = start(listener)
    assert (await post(url, signed(BODY, by=[SECRET])))[0] == 204
    assert (await post(f"{url}fail/503/9", signed(BODY, by=[SECRET], relay_attempt="2")))[0] == 503
    assert (await post(url, signed(BODY, by=[new_secret()])))[0] == 401
    lines = listener.wait_for(JOB_ID, times=3).splitlines()
    assert lines[0] == f"verifying with the signing secret of RELAY_SIGNING_SECRET (whsec_…{SECRET[-4:]})"
    good, repeated, bad = lines[2:]
    assert re.fullmatch(rf"\d\d:\d\d:\d\d ✓ verified  job\.completed +{JOB_ID}  → 204 in \d+ ms", good)
    assert re.search(r"✓ verified .* → 503 in \d+ ms  attempt 2  \(came before\)$", repeated)
    assert re.search(r"✗ UNVERIFIED .* → 401 in \d+ ms .*No matching signature found$", bad)
    assert SECRET not in listener.output.read_text()
    assert listener.stop(signal.SIGINT) == 0


async def test_a_callback_is_passed_on_as_it_came(listener: Running) -> None:
    """Body and headers reach the program byte for byte, at exactly the address; its answer goes back."""
    answer = web.Response(status=429, text="slowly", headers={"Retry-After": "7", "X-Own": "stays"})
    async with program(answer) as mine:
        url = start(listener, "--forward-to", f"{mine.url}/webhooks?token=the-token")
        sent = signed(BODY, by=[SECRET]) | {"X-Mine": "the client's own", "User-Agent": "scrapellm-relay/9"}
        status, headers, text = await post(f"{url}any/path", sent)
    assert (status, text, headers["Retry-After"]) == (429, "slowly", "7")
    assert "X-Own" not in headers
    [(path, came, body)] = mine.requests
    assert (path, body) == ("/webhooks?token=the-token", BODY)
    assert came["Host"] == mine.url.removeprefix("http://")
    assert {name.lower(): value for name, value in came.items()}.items() >= {
        name.lower(): value for name, value in sent.items()
    }.items()
    said = listener.wait_for("→ 429")
    assert f"passing on to {mine.url}/webhooks\n" in said
    assert "the-token" not in said


async def test_a_redirect_is_the_answer(listener: Running) -> None:
    """As the relay would see it: it follows none either."""
    async with program(web.Response(status=307, headers={"Location": "/elsewhere"})) as mine:
        url = start(listener, "--forward-to", mine.url)
        assert (await post(url, signed(BODY, by=[SECRET])))[0] == 307
    assert len(mine.requests) == 1


async def test_a_program_that_does_not_run_is_told(listener: Running) -> None:
    """502, so that the relay tries again; the line says what to do."""
    url = start(listener, "--forward-to", f"http://127.0.0.1:{free_port()}/x")
    status, _, text = await post(url, signed(BODY, by=[SECRET]))
    assert status == 502
    assert "connection refused; is your program running?" in text
    assert "is your program running?" in listener.wait_for("→ 502")


async def test_bodies_can_be_shown(listener: Running) -> None:
    """With --print-json below each line; with --json one object a line, which has the answer too."""
    url = start(listener, "--print-json")
    await post(url, signed(BODY, by=[SECRET]))
    assert json.loads(listener.wait_for('"type"').splitlines()[-1]) == json.loads(BODY)


async def test_json_has_the_answer(listener: Running) -> None:
    """A script can tell what was answered."""
    url = start(listener, "--json")
    await post(url, signed(BODY, by=[SECRET]))
    line = json.loads(listener.wait_for('"type"').splitlines()[-1])
    assert (line["verified"], line["answer"]["status"], line["body"]) == (True, 204, json.loads(BODY))
    assert line["answer"]["duration_ms"] >= 0


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    """Before anything listens."""
    done = run("listen", "--secret", SECRET, "--forward-to", "localhost:3000", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "scrapellm-relay: --forward-to: must be an address, such as http://localhost:3000/hook\n"
