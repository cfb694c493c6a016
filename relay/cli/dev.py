"""`dev`: everything on this machine, in one command."""

import asyncio
import json
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr
from rich.text import Text

from relay import __version__
from relay.cli.render import notes, output, print_callback
from relay.cli.services import until_told
from relay.core.errors import ConfigurationError
from relay.core.settings import Settings
from relay.dev.emulator import EmulatorSettings
from relay.dev.folder import DEFAULT_FOLDER, Credentials, DataFolder, Running
from relay.dev.system import Plan, Ports, System, running

_FAST = 0.1

LatencyOption = Annotated[
    float | None, typer.Option(metavar="FACTOR", help="What the emulator's latencies are multiplied by.")
]
EmulatorOption = Annotated[bool, typer.Option("--emulator", help="Use the emulator also where a ScrapeLLM key is set.")]


MORE = """\b
Examples:
  scrapellm-relay dev
  scrapellm-relay dev --fast                        the emulated ScrapeLLM answers in seconds
  scrapellm-relay dev --port 9080 --inbox-port 9081 --emulator-port 9082

\b
Exit codes: 0 stopped by Ctrl-C, 1 a part does not stay up, 2 a setting is wrong, or a port is in use.
"""


def dev(
    *,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Where its data and its key are kept.")] = DEFAULT_FOLDER,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, metavar="PORT", help="The relay's. [env: RELAY_PORT; default: 8080]")
    ] = None,
    inbox_port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="The inbox'.")] = 8081,
    emulator_port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="The emulator's.")] = 8082,
    fast: Annotated[bool, typer.Option("--fast", help=f"The same as --latency-scale {_FAST}.")] = False,
    latency_scale: LatencyOption = None,
    emulate: EmulatorOption = False,
) -> None:
    """Run everything on this machine: a store, the relay, a worker, a callback inbox, and an emulated ScrapeLLM.

    With a ScrapeLLM key in RELAY_UPSTREAM_API_KEY or SCRAPELLM_API_KEY (also in .env) the real one is used, and paid.
    Only this machine can connect. What it was doing when it is stopped it goes on with at the next start.
    """
    settings = Settings.load()
    real = settings.upstream_api_key is not None and not emulate
    scale = latency_scale if latency_scale is not None else (_FAST if fast else None)
    if real and scale is not None:
        raise ConfigurationError("--fast, --latency-scale: a ScrapeLLM key is set; add --emulator to not use it")
    folder = DataFolder(data)
    asyncio.run(
        _dev(settings, folder, (settings.port if port is None else port, inbox_port, emulator_port), scale, real=real)
    )


async def _dev(
    settings: Settings, folder: DataFolder, ports: tuple[int, int, int], scale: float | None, *, real: bool
) -> None:
    system: System | None = None

    async def run() -> None:
        nonlocal system
        with folder.locked() as lock:
            credentials = choose_credentials(settings, folder)
            plan = Plan(
                folder=folder,
                credentials=credentials,
                ports=Ports(*ports),
                emulator=None if real else EmulatorSettings.load(**_emulator_overrides(folder, scale)),
                respected=settings.model_fields_set,
            )
            _say(f"scrapellm-relay {__version__} is starting")
            async with running(plan, lock=lock, say=_say, on_callback=print_callback) as system:
                announcement = Running(
                    os.getpid(), system.url, system.inbox_url, credentials.api_key, credentials.signing_secret
                )
                with folder.announced(announcement):
                    _print_banner(announcement, system, folder, settings)
                    try:
                        await system.failed()
                    finally:
                        _say("stopping: what runs is finished first (Ctrl-C again ends it at once)")

    def hurry() -> None:
        if system is not None:
            system.kill()

    if await until_told(run(), hurry):
        _say("stopped; the next `dev` goes on from here")


def _emulator_overrides(folder: DataFolder, scale: float | None) -> dict[str, object]:
    # The upstream's jobs outlive a restart, or those that were under way would be lost.
    overrides: dict[str, object] = {"journal": folder.path / "emulator.jsonl"}
    return overrides if scale is None else overrides | {"latency_scale": scale}


def choose_credentials(settings: Settings, folder: DataFolder) -> Credentials:
    """The key and secret of a `dev`: what the environment says, or the folder's own. Raises ConfigurationError."""
    if settings.clients_file is not None:
        raise ConfigurationError(
            "RELAY_CLIENTS_FILE is set, but `dev` and `demo` have one client of their own: unset it for them"
        )
    own = folder.credentials()
    chosen = Credentials(
        own.api_key if settings.api_key is None else settings.api_key.get_secret_value(),
        own.signing_secret if settings.signing_secret is None else settings.signing_secret.get_secret_value(),
    )
    # What is wrong with them is better said here than in the log of a child.
    settings.model_copy(
        update={"api_key": SecretStr(chosen.api_key), "signing_secret": SecretStr(chosen.signing_secret)}
    ).clients()
    return chosen


def _print_banner(running: Running, system: System, folder: DataFolder, settings: Settings) -> None:
    upstream = (
        f"ScrapeLLM at {settings.upstream_url}: every job is paid for"
        if system.emulator_url is None
        else f"emulated at {system.emulator_url}: nothing is paid for"
    )
    rows = {
        "dashboard": system.login_url,
        "API": f"{running.url}/v1/jobs   documentation: {running.url}/docs",
        "API key": running.api_key,
        "secret": f"{running.signing_secret}   signs callbacks: a receiver of your own verifies with it",
        "inbox": f"{running.inbox_url}/   takes callbacks on any path, and verifies them",
        "upstream": upstream,
        "data": f"{folder.path}/   logs: relay.log, worker.log, store.log",
    }
    console = output()
    console.print(Text(f"\nscrapellm-relay {__version__} is ready\n", style="bold green"))
    for name, value in rows.items():
        console.print(Text(f"  {name:<11}", style="bold"), value, sep="", markup=False)
    console.print("\nTry it from another terminal:\n")
    console.print(curl_example(running, settings.scrapers[0]), markup=False)
    console.print("\nCallbacks are shown below as they arrive; Ctrl-C stops.\n")


def curl_example(running: Running, scraper: str) -> str:
    """A command that submits a job whose callback goes to the inbox, to be pasted into a shell."""
    job = {"scraper": scraper, "prompt": "Why is the sky blue?", "callback_url": f"{running.inbox_url}/hook"}
    return " \\\n  ".join(
        (
            f"curl -sS {running.url}/v1/jobs",
            f"-H {shlex.quote(f'Authorization: Bearer {running.api_key}')}",
            "-H 'Content-Type: application/json'",
            f"-d {shlex.quote(json.dumps(job))}",
        )
    )


def _say(line: str) -> None:
    notes().print(line, style="bright_black", markup=False)
