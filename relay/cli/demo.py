"""`demo`: relays a few prompts, shows each callback as it arrives, and checks that all came as they should.

Alone knows what is sent, and what must come of it.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import aiohttp
import typer
from rich.text import Text

from relay.cli.collected import Collected, DemoFailed, Expected
from relay.cli.dev import EmulatorOption, choose_credentials
from relay.cli.inputs import Document
from relay.cli.render import clean, excerpt, notes, output, print_callback, print_table
from relay.cli.services import until_told
from relay.client import RelayClient
from relay.core.settings import SCRAPERS, Settings
from relay.dev.emulator import EmulatorSettings
from relay.dev.folder import DataFolder
from relay.dev.inbox import Received
from relay.dev.system import Plan, Ports, System, running

#: An upstream that takes about a second, and fails where the prompt asks for it, and nowhere else.
_EMULATOR: Mapping[str, object] = {
    "latency_scale": 0.1,
    "failure_rate": 0,
    "faults": {},
    "markers": True,
    "rate_limit_per_s": 0,
    "credits": 1_000_000,
}
#: Retries that don't keep anybody waiting.
_SETTINGS = {
    "RELAY_POLL_INTERVAL_S": "1",
    "RELAY_POLL_MIN_INTERVAL_S": "1",
    "RELAY_CALLBACK_SCHEDULE": "0,1,2,5",
    "RELAY_CALLBACK_HTTPS_ONLY": "false",
    "RELAY_SCRAPERS": ",".join(SCRAPERS),
}
_EMULATED_WITHIN_S = 60.0
_REAL_WITHIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Send:
    """One job of the demo, and the callback that must come of it."""

    what: str
    scraper: str
    prompt: str
    event: str = "job.completed"
    path: str = "/hook"
    #: The attempt that gets through.
    attempt: int = 1
    fields: Document = field(default_factory=dict)

    def document(self, inbox_url: str) -> Document:
        """The body of its request."""
        return {
            "scraper": self.scraper,
            "prompt": self.prompt,
            "callback_url": f"{inbox_url}{self.path}",
            **self.fields,
        }


#: Where the inbox refuses the first attempt.
_FAILING = "/fail/503/1"

_EMULATED = (
    Send("a result", "chatgpt", "Why is the sky blue?"),
    Send("a link to a result", "perplexity", "Who invented the webhook?", fields={"callback_payload": "thin"}),
    Send(
        "a CloudEvent", "google_ai_mode", "What is at-least-once delivery?", fields={"callback_format": "cloudevents"}
    ),
    Send("a scrape that fails", "grok", "[fail] What happens when a scrape fails?", event="job.failed"),
    Send("a receiver that is down at first", "gemini", "Is it safe to retry?", path=_FAILING, attempt=2),
)
_EMULATED_BATCH: Document = {
    "prompts": ["Name a prime number.", "Name a composite number."],
    "scrapers": ["copilot", "amazon_rufus"],
}
_REAL = (
    Send("a result", "chatgpt", "Why is the sky blue? Answer in one sentence."),
    Send("a link to a result", "perplexity", "Who invented the webhook?", fields={"callback_payload": "thin"}),
)


MORE = """\b
Examples:
  scrapellm-relay demo
  scrapellm-relay demo --emulator --timeout 120

\b
Exit codes: 0 all callbacks arrived, signed, 1 some did not, 2 a setting is wrong, 130 stopped by Ctrl-C.
"""


def demo(
    *,
    emulate: EmulatorOption = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help=f"How long it may take: {_EMULATED_WITHIN_S:.0f}, with the real ScrapeLLM {_REAL_WITHIN_S:.0f}.",
        ),
    ] = None,
) -> None:
    """Start everything in a temporary folder, relay a few prompts, and verify every callback.

    Exit code 0 says that all of them arrived, signed. With a ScrapeLLM key in RELAY_UPSTREAM_API_KEY or
    SCRAPELLM_API_KEY (also in .env) two prompts go to the real one, and are paid for; not so with --emulator.
    """
    settings = Settings.load()
    real = settings.upstream_api_key is not None and not emulate
    within_s = timeout or (_REAL_WITHIN_S if real else _EMULATED_WITHIN_S)
    if asyncio.run(until_told(_demo(settings, within_s, real=real))):
        raise typer.Exit(130)


async def _demo(settings: Settings, within_s: float, *, real: bool) -> None:
    began_s = time.monotonic()
    if real:
        _say(f"a ScrapeLLM key is set: {len(_REAL)} prompts go to {settings.upstream_url}, and are paid for")
    else:
        _say("no ScrapeLLM key is used: its part is played by the emulator, and nothing is paid for")
    collected = Collected(_show)
    try:
        async with asyncio.timeout(within_s), _system(settings, collected, real=real) as (system, api_key):
            relaying = asyncio.ensure_future(_relay(system, api_key, collected, real=real))
            failing = asyncio.ensure_future(system.failed())
            try:
                await asyncio.wait((relaying, failing), return_when=asyncio.FIRST_COMPLETED)
                await (relaying if relaying.done() else failing)
            finally:
                relaying.cancel()
                failing.cancel()
                await asyncio.wait((relaying, failing))
    except TimeoutError:
        missing = ", ".join(f"{e.event} of {e.subject} ({e.what})" for e in collected.missing()) or "nothing was sent"
        raise DemoFailed(f"not within {within_s:.0f} s: {missing}") from None
    count = len(collected.expected)
    output().print(
        Text(f"\n✓ all {count} callbacks arrived, signed, in {time.monotonic() - began_s:.1f} s", style="bold green")
    )
    output().print(f"Next: {_own_command()} dev", markup=False)


@asynccontextmanager
async def _system(settings: Settings, collected: Collected, *, real: bool) -> AsyncIterator[tuple[System, str]]:
    with tempfile.TemporaryDirectory(prefix="scrapellm-relay-demo-") as path:
        folder = DataFolder(Path(path))
        own = settings.model_copy(update={"api_key": None, "signing_secret": None})
        credentials = choose_credentials(own, folder)
        plan = Plan(
            folder=folder,
            credentials=credentials,
            ports=Ports(0, 0, 0),
            emulator=None if real else EmulatorSettings.load(**_EMULATOR),
            extra=_SETTINGS,
        )
        with folder.locked() as lock:
            async with running(plan, lock=lock, say=_say, on_callback=collected.add) as system:
                _say(f"a store, the relay ({system.url}), a worker and an inbox ({system.inbox_url}) are up\n")
                yield system, credentials.api_key


async def _relay(system: System, api_key: str, collected: Collected, *, real: bool) -> None:
    """Send everything, and wait for what must come of it. Raises DemoFailed."""
    async with RelayClient(system.url, api_key) as client:
        for send in _REAL if real else _EMULATED:
            job = await client.submit(**send.document(system.inbox_url))
            _say(f"→ {send.scraper:<15} {excerpt(send.prompt)}  ({send.what})")
            collected.expect(Expected(job.id, send.what, send.event, send.attempt))
        if not real:
            batch = await client.submit_batch(**_EMULATED_BATCH, callback_url=f"{system.inbox_url}/hook")
            _say(f"→ {'batch':<15} {batch.count} jobs")
            for job_id in batch.job_ids:
                collected.expect(Expected(job_id, "a job of the batch", "job.completed"))
            collected.expect(Expected(batch.id, "the batch", "batch.completed"))
        _say("")
        await collected.complete()
        await _check_links(collected)
        jobs = [await client.job(expected.subject) for expected in collected.expected if expected.subject[:4] == "job_"]
    output().print()
    print_table(
        ("scraper", "status", "delivery", "attempts", "prompt"),
        [
            [
                job.scraper,
                job.status,
                job.delivery.status,
                str(job.delivery.attempts),
                excerpt(job.prompt, 40),
            ]
            for job in jobs
        ],
    )


async def _check_links(collected: Collected) -> None:
    """Read the results that thin callbacks link to, as a receiver would: without a key. Raises DemoFailed."""
    links = {
        r.body["data"]["result_url"] for r in collected.received if r.verified and r.body["data"].get("result_url")
    }
    async with aiohttp.ClientSession(trust_env=False) as http:
        for link in links:
            async with http.get(link) as response:
                if not response.ok or not isinstance(await response.json(), dict):
                    raise DemoFailed(f"the result_url of a thin callback answered {response.status}")


def _show(received: Received) -> None:
    print_callback(received)
    if received.path == _FAILING and received.attempt == 1:
        _say("         (answered 503 on purpose: the same callback comes again)")


def _own_command() -> str:
    """What was typed to get here: after `make` the command is not on the PATH."""
    typed = sys.argv[0]
    return typed if Path(typed).name == "scrapellm-relay" else "scrapellm-relay"


def _say(line: str) -> None:
    notes().print(clean(line), style="bright_black", markup=False)
