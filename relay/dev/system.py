"""What `dev` and `demo` start: a store, the relay, a worker, an inbox and, in ScrapeLLM's place, the emulator.

Alone knows the order in which they come and go, and the settings that make them find each other.
"""

import asyncio
import contextlib
import errno
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from relay.core.errors import ConfigurationError
from relay.core.settings import hash_api_key
from relay.dev import emulator
from relay.dev.emulator import EmulatorSettings
from relay.dev.folder import Credentials, DataFolder
from relay.dev.inbox import Inbox, Received
from relay.dev.ports import free_port
from relay.dev.process import Child, Program, module_command, module_environment
from relay.dev.store import EmbeddedStore

HOST = "127.0.0.1"
_LOOK_WITHIN_S = 2.0
_EMULATED_KEY = "emulated"
_RELAY_GONE_WITHIN_S = 15.0
_WORKER_GONE_WITHIN_S = 40.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the parts listen; 0 is any free port."""

    relay: int
    inbox: int
    emulator: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start, and where its data is."""

    folder: DataFolder
    credentials: Credentials
    ports: Ports
    #: What stands in for ScrapeLLM; None: the real one.
    emulator: EmulatorSettings | None
    #: Names of settings that are as the environment has them, where it is `dev` that would otherwise choose.
    respected: Collection[str] = ()
    #: Settings of relay and worker that go before those of the environment.
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class System:
    """What runs."""

    url: str
    #: A link to the dashboard that logs in, as long as this runs.
    login_url: str = field(repr=False)
    inbox_url: str
    emulator_url: str | None
    inbox: Inbox
    #: The processes: relay, worker, store.
    children: Sequence[Child]
    _watched: Sequence[asyncio.Task[None]]

    async def failed(self) -> None:
        """Wait until a process cannot be kept running, and raise its ProgramFailed."""
        done, _ = await asyncio.wait(self._watched, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def kill(self) -> None:
        """Have the relay and the worker gone at once; the store still ends in peace, which is quick."""
        for child in self.children[:2]:
            child.kill()


@contextlib.asynccontextmanager
async def running(
    plan: Plan, *, lock: int, say: Callable[[str], None], on_callback: Callable[[Received], None]
) -> AsyncIterator[System]:
    """Start everything; leaving ends the relay, the worker, emulator and inbox, and the store last.

    `lock` is the folder's. Raises ConfigurationError (a port in use, a wrong setting) and ProgramFailed.
    """
    inbox = Inbox([plan.credentials.signing_secret], on_callback)
    # A port that is in use is told before anything else happens.
    chosen = [p for p in (plan.ports.relay, plan.ports.inbox, plan.ports.emulator if plan.emulator else 0) if p]
    if len(set(chosen)) < len(chosen):
        raise ConfigurationError("--port, --inbox-port and --emulator-port must differ")
    port = _checked(plan.ports.relay, "--port")
    inbox_port = _checked(plan.ports.inbox, "--inbox-port")
    emulator_port = None if plan.emulator is None else _checked(plan.ports.emulator, "--emulator-port")
    async with contextlib.AsyncExitStack() as stack:
        store = EmbeddedStore(plan.folder.store, plan.folder.log("store"), say=say, lock=lock)
        stack.push_async_callback(store.stop)
        await store.start()
        await stack.enter_async_context(receiving(inbox, HOST, inbox_port))
        emulator_url = None
        if plan.emulator is not None and emulator_port is not None:
            emulator_url = f"http://{HOST}:{emulator_port}"
            with port_told(emulator_port, "--emulator-port"):
                runner = await emulator.start(plan.emulator, HOST, emulator_port)
            stack.push_async_callback(runner.cleanup)

        url = f"http://{HOST}:{port}"
        inbox_url, login_token = f"http://{HOST}:{inbox_port}", secrets.token_urlsafe(24)
        environment = _environment(plan, store.url, port, emulator_url) | {
            "RELAY_DEV_INBOX_URL": inbox_url,
            "RELAY_DEV_LOGIN_SHA256": hash_api_key(login_token),
        }
        worker_port = free_port()
        environment["RELAY_WORKER_PORT"] = str(worker_port)
        http = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
        worker = _service(
            plan, "worker", environment=environment, http=http, ready_url=f"http://{HOST}:{worker_port}/readyz", say=say
        )
        relay = _service(plan, "relay", environment=environment, http=http, ready_url=f"{url}/readyz", say=say)
        # In this order, so that they are stopped in the other one.
        stack.push_async_callback(worker.stop)
        stack.push_async_callback(relay.stop)
        await worker.spawn()
        await relay.spawn()
        await worker.ready()
        await relay.ready()

        assert store.child is not None  # noqa: S101 - it has been started
        children = (relay, worker, store.child)
        watched = [asyncio.create_task(child.watch()) for child in children]
        stack.push_async_callback(_end, watched)
        login_url = f"{url}/dashboard/login?token={login_token}"
        yield System(url, login_url, inbox_url, emulator_url, inbox, children, watched)


@contextlib.asynccontextmanager
async def receiving(inbox: Inbox, host: str, port: int) -> AsyncIterator[int]:
    """Let `inbox` receive for as long as the context lasts; yields the port. Raises ConfigurationError."""
    runner = web.AppRunner(inbox.build_app(), access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    try:
        with port_told(port, "--port"):
            await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _service(
    plan: Plan,
    name: str,
    *,
    environment: Mapping[str, str],
    http: aiohttp.ClientSession,
    ready_url: str,
    say: Callable[[str], None],
) -> Child:
    async def is_ready() -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with http.get(ready_url, timeout=aiohttp.ClientTimeout(total=_LOOK_WITHIN_S)) as response:
                return response.ok
        return False

    return Child(
        Program(
            name=name,
            command=module_command(name),
            environment=module_environment(environment),
            log=plan.folder.log(name),
            is_ready=is_ready,
            gone_within_s=_WORKER_GONE_WITHIN_S if name == "worker" else _RELAY_GONE_WITHIN_S,
        ),
        say,
    )


def _environment(plan: Plan, store_url: str, port: int, emulator_url: str | None) -> dict[str, str]:
    """The settings of relay and worker: what the developer chose, and what makes it one system."""
    defaults = {
        "callback_allowed_networks": "127.0.0.0/8,::1/128",
        "public_url": f"http://{HOST}:{port}",
        "log_format": "console",
    }
    environment = dict(os.environ)
    if emulator_url is not None:
        # A key that was set is not given away, not even to the emulator.
        environment.pop("SCRAPELLM_API_KEY", None)
        known = plan.emulator.api_keys if plan.emulator is not None else ()
        environment |= {"RELAY_UPSTREAM_URL": emulator_url, "RELAY_UPSTREAM_API_KEY": (*known, _EMULATED_KEY)[0]}
    return {
        **environment,
        **{f"RELAY_{name.upper()}": value for name, value in defaults.items() if name not in plan.respected},
        **plan.extra,
        "RELAY_REDIS_URL": store_url,
        "RELAY_HOST": HOST,
        "RELAY_PORT": str(port),
        "RELAY_WORKER_HOST": HOST,
        "RELAY_API_KEY": plan.credentials.api_key,
        "RELAY_SIGNING_SECRET": plan.credentials.signing_secret,
    }


def _checked(port: int, option: str) -> int:
    """`port`, or a free one for 0, found to be free just now. Raises ConfigurationError."""
    if port == 0:
        return free_port()
    with socket.socket() as listener, port_told(port, option):
        # Connections of a `dev` that has just ended don't keep the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
    return port


@contextlib.contextmanager
def port_told(port: int, option: str) -> Iterator[None]:
    """Turn the failure to listen on `port` into a ConfigurationError that names it, and the option that cures it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise ConfigurationError("--host: is not an address of this machine") from error
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
        raise ConfigurationError(
            f"port {port} {reason}: stop what listens there, or choose another with {option}"
        ) from error


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            # Seen, or to be seen, by whoever waits for `failed`.
            task.exception()
