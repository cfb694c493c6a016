"""The commands that run one part: the relay, a worker, the emulator; and the maker of keys."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, NoReturn

import typer

from relay.cli.options import JsonOption
from relay.cli.render import notes, print_json
from relay.core.settings import hash_api_key
from relay.core.signing import new_secret
from relay.dev import emulator as emulated
from relay.dev.folder import new_api_key
from relay.dev.process import module_command, module_environment
from relay.dev.system import port_told

MORE_SERVE = """\b
Examples:
  RELAY_REDIS_URL=redis://localhost RELAY_UPSTREAM_API_KEY=… scrapellm-relay serve

\b
Exit codes: 0 told to stop, 2 a setting is missing or wrong.
"""
MORE_WORKER = """\b
Examples:
  RELAY_REDIS_URL=redis://localhost RELAY_UPSTREAM_API_KEY=… scrapellm-relay worker

\b
Exit codes: 0 told to stop, 2 a setting is missing or wrong.
"""
MORE_EMULATOR = """\b
Examples:
  scrapellm-relay emulator --port 8082 --latency-scale 0.1
  EMULATOR_FAILURE_RATE=0.2 scrapellm-relay emulator
"""
MORE_KEYGEN = """\b
Examples:
  scrapellm-relay keygen >> .env
  scrapellm-relay keygen --json | jq -r .api_key_sha256
"""

PortOption = Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Where it listens; 0: any free port.")]
HostOption = Annotated[str, typer.Option(metavar="ADDRESS", help="The address that it listens on.")]


def serve() -> None:
    """Run the relay's HTTP service, as `python -m relay` does. Settings come from the environment (RELAY_…)."""
    _become("relay")


def worker() -> None:
    """Run a worker, as `python -m worker` does. Settings come from the environment (RELAY_…)."""
    _become("worker")


def emulator(
    *,
    port: PortOption = 8082,
    host: HostOption = "127.0.0.1",
    latency_scale: Annotated[
        float | None, typer.Option(metavar="FACTOR", help="What every latency is multiplied by.")
    ] = None,
) -> None:
    """Run the emulator of ScrapeLLM's API. Everything else about it is set in the environment (EMULATOR_…).

    Prompts steer it: [fail], [never], [latency=2], [status=503], [reject].
    """
    overrides = {} if latency_scale is None else {"latency_scale": latency_scale}
    settings = emulated.EmulatorSettings.load(**overrides)

    async def run() -> None:
        with port_told(port, "--port"):
            runner = await emulated.start(settings, host, port)
        try:
            notes().print(f"emulator of ScrapeLLM at http://{host}:{runner.addresses[0][1]}")
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    asyncio.run(until_told(run()))


def keygen(
    *,
    operator: Annotated[
        bool, typer.Option("--operator", help="Make the operator's key for the dashboard instead.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make an API key and a signing secret, as settings."""
    key, secret = new_api_key(), new_secret()
    if operator:
        if as_json:
            print_json({"operator_key": key, "operator_key_sha256": hash_api_key(key)})
            return
        typer.echo(
            "# The operator's key, for the log-in of the dashboard; keep it elsewhere:\n"
            f"# {key}\n"
            "# What the relay knows it by:\n"
            f"RELAY_OPERATOR_KEY_SHA256={hash_api_key(key)}"
        )
        return
    if as_json:
        print_json({"api_key": key, "api_key_sha256": hash_api_key(key), "signing_secret": secret})
        return
    typer.echo(
        "# The client's key, for `Authorization: Bearer …`:\n"
        f"RELAY_API_KEY={key}\n"
        "# What a clients file has in its place, as api_key_sha256:\n"
        f"# {hash_api_key(key)}\n"
        "# What signs the client's callbacks, and what it verifies them with:\n"
        f"RELAY_SIGNING_SECRET={secret}"
    )


async def until_told(body: Coroutine[Any, Any, None], second: Callable[[], None] | None = None) -> bool:
    """Run `body` until it ends, or until SIGINT, SIGTERM or SIGHUP cancels it; returns whether one did.

    Later ones call `second`, so that an impatient person need not wait for the peaceful end.
    """
    task = asyncio.ensure_future(body)
    told = 0

    def tell() -> None:
        nonlocal told
        told += 1
        if told == 1:
            task.cancel()
        elif second is not None:
            second()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, tell)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return told > 0


def _become(module: str) -> NoReturn:
    """Become `python -m module`: the same process, so that signals and exit codes are its own."""
    command = module_command(module)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, module_environment(os.environ))  # noqa: S606 - our own command, without a shell
