"""The connection to Redis or Valkey: pool, scripts, clock, and the mapping of its errors.

Alone imports redis. Every wait is bounded, and what the store cannot do now surfaces as StoreUnavailable.
"""

import asyncio
import errno
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, TypeVar

import redis.asyncio as redis
import structlog
from redis import exceptions as redis_errors

from relay.core.errors import ConfigurationError, StoreUnavailable
from relay.core.limits import TimeLimits
from relay.core.settings import Settings
from relay.core.store.pool import close_pool, connection_pool
from relay.core.store.trips import Asked, SharedTrips

T = TypeVar("T")
log = structlog.get_logger("store")

#: What the store answers when it is there and still cannot do it.
_UNABLE = ("OOM", "READONLY", "MISCONF", "LOADING", "MASTERDOWN", "NOREPLICAS", "BUSY", "CLUSTERDOWN")
_RETRY_DELAYS_S = (0.05, 0.25)
_CONNECTIONS = 64
#: The oldest major version of Redis whose scripts have flags. Valkey calls itself Redis 7.2 here.
_OLDEST = 7

_LUA = files("relay.core.store") / "lua"
#: What scripts are built on besides lib.lua.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "accept": ("coalesce", "series"),
    "enlist": ("coalesce",),
    "commit_batch": ("series",),
    "cancel": ("coalesce", "series"),
    "begin_submit": ("begin",),
    "begin_poll": ("begin", "coalesce"),
    "begin_deliver": ("begin", "destination", "slots", "delivery", "series"),
    "save": ("destination", "slots", "delivery", "coalesce", "series"),
    "release": ("destination", "coalesce"),
    "renew": ("coalesce",),
    "purge": ("coalesce",),
    "resume": ("destination",),
    "read_series": ("series",),
}
#: Scripts that free memory, or that finish what was accepted, run in a full store too: it would stay full otherwise.
_ALLOW_OOM = frozenset(
    {
        *("begin_submit", "begin_poll", "begin_deliver", "save", "renew", "release", "look", "pause", "enlist"),
        *("cancel", "purge", "drop_staged", "resume", "learn"),
    }
)


def _source(name: str) -> str:
    parts = ("lib", *_PARTS.get(name, ()), name)
    head = "#!lua flags=allow-oom\n" if name in _ALLOW_OOM else ""
    return head + "".join((_LUA / f"{part}.lua").read_text() for part in parts)


def _names() -> set[str]:
    """The scripts that are run by name: all files but those that others are built on."""
    files_there = {file.name.removesuffix(".lua") for file in _LUA.iterdir()}
    return files_there.difference(("lib",), *_PARTS.values())


#: Every script, whole, by its name. Read at once: later there may be no descriptor left to open a file with.
SCRIPTS: Mapping[str, str] = {name: _source(name) for name in _names()}
_SHAS: Mapping[str, str] = {
    name: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest() for name, source in SCRIPTS.items()
}
#: Errors of the system that say nothing of the store.
_OUR_OWN = frozenset((errno.EMFILE, errno.ENFILE))


class Connection:
    """One process' access to the store."""

    def __init__(self, settings: Settings) -> None:
        self.prefix = settings.key_prefix
        self.timeout_s = settings.store_timeout_s
        self._limits = TimeLimits()
        self._strict = settings.durability == "strict"
        self._replicas = settings.durable_replicas
        # The driver's annotations give every answer as sync or async, so they are no help here.
        self._pool = connection_pool(settings, _CONNECTIONS, timed=False)
        self.redis: Any = redis.Redis(connection_pool=self._pool)
        self._sync = ("WAITAOF", 1, self._replicas, int(self.timeout_s * 900))
        self._shared = SharedTrips(self._run_together)
        #: What the store knows, unless it was started anew.
        self._ran: set[str] = set()
        self._clock_offset_ms = (time.time() - time.monotonic()) * 1000

    def key(self, name: str) -> str:
        """The full name of a key."""
        return self.prefix + name

    def now_ms(self) -> int:
        """The store's time, estimated from its last answer and this machine's monotonic clock."""
        return round(time.monotonic() * 1000 + self._clock_offset_ms)

    def saw_time(self, now_ms: int) -> None:
        """Set the estimate by a time that the store has just told."""
        self._clock_offset_ms = now_ms - time.monotonic() * 1000

    async def check(self) -> None:
        """Make sure that the store is one that jobs can be trusted to, and set the clock.

        Raises ConfigurationError where it refuses us, would evict or, under `strict`, cannot sync; StoreUnavailable.
        """
        try:
            server = await self.call(lambda: self.redis.info("server"))
            memory = await self.call(lambda: self.redis.info("memory"))
        except StoreUnavailable as error:
            if isinstance(error.__cause__, redis_errors.AuthenticationError):
                raise ConfigurationError("RELAY_REDIS_URL: the store refuses the user name or password") from error
            raise
        except redis_errors.ResponseError as error:
            raise ConfigurationError(f"RELAY_REDIS_URL: the store answered: {error}") from error
        version = str(server.get("redis_version", ""))
        if int(version.partition(".")[0] or 0) < _OLDEST:
            raise ConfigurationError(f"RELAY_REDIS_URL: Redis {version} is too old: it takes {_OLDEST}.0, or Valkey")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise ConfigurationError(
                f"RELAY_REDIS_URL: the store's maxmemory-policy is {policy}, which drops jobs: set it to noeviction"
            )
        if self._strict:
            persistence = await self.call(lambda: self.redis.info("persistence"))
            # In one word, or the driver takes the answer for that of COMMAND.
            known = await self.call(lambda: self.redis.execute_command("COMMAND INFO", "WAITAOF"))
            if not persistence.get("aof_enabled") or not any(known):
                raise ConfigurationError(
                    "RELAY_DURABILITY=strict needs a store with appendonly yes and WAITAOF (Valkey, or Redis 7.2)"
                )
            await self._warn_of_early_confirmation()
        seconds, micros = await self.call(self.redis.time)
        self.saw_time(seconds * 1000 + micros // 1000)

    async def _warn_of_early_confirmation(self) -> None:
        """Say so where WAITAOF may confirm what is not on the disk yet (docs/reliability.md, "Not promised")."""
        try:
            policy = (await self.call(lambda: self.redis.config_get("appendfsync"))).get("appendfsync")
        except redis_errors.ResponseError:  # not every store lets its settings be read
            policy = None
        if policy is None:
            log.warning("strict is certain with appendfsync always only, and that setting could not be read")
        elif policy != "always":
            log.warning("strict is certain with appendfsync always only", appendfsync=policy)

    async def close(self) -> None:
        """Close all connections."""
        await self.redis.aclose()
        await close_pool(self._pool)

    async def call(self, command: Callable[[], Awaitable[T]], *, repeat: bool = True) -> T:
        """Run `command`, with errors mapped and, where `repeat` says that it is harmless, asked again.

        One asking takes at most `RELAY_STORE_TIMEOUT_S`. Raises StoreUnavailable.
        """
        delays = iter(_RETRY_DELAYS_S if repeat else ())
        while True:
            try:
                async with self._limits.within(self.timeout_s):
                    return await command()
            except (TimeoutError, redis_errors.TimeoutError) as error:
                raise StoreUnavailable("the store does not answer") from error
            except (redis_errors.ConnectionError, OSError) as error:
                delay_s = next(delays, None)
                if delay_s is None:
                    raise StoreUnavailable(_why_unreachable(error)) from error
                await asyncio.sleep(delay_s)
            except redis_errors.ResponseError as error:
                if not _is_unable(error):
                    raise
                if _is_replica(error):
                    # The address may lead to another server by now, which connections that stay open never notice.
                    await self._pool.disconnect(inuse_connections=False)
                raise StoreUnavailable("the store cannot take writes now") from error
            except redis_errors.RedisError as error:
                # Not a protocol that the driver understands, and the like.
                raise StoreUnavailable("the store does not answer as it should") from error

    async def run(self, name: str, *args: bytes | str | float, repeat: bool = True) -> Any:
        """Run a script by the name of its file. Give `repeat=False` for one that is not idempotent.

        Raises StoreUnavailable.
        """
        return await self.call(lambda: self._evaluate(self.redis, name, args), repeat=repeat)

    async def run_durably(self, name: str, *args: bytes | str | float) -> Any:
        """Like `run`, and under `RELAY_DURABILITY=strict` wait until the append-only file is synced.

        What is asked for at the same moment shares a trip, and its sync. The script must be idempotent. Raises
        StoreUnavailable, also when the sync does not come in time: then it is not known whether it was done.
        """
        # The first one goes alone: the store may not know the script.
        return await (self._shared.run(name, args) if name in self._ran else self._run_alone(name, args))

    async def _run_together(self, asked: Sequence[Asked]) -> list[Any]:
        """Run scripts in one trip, and sync what they wrote where that is asked for.

        An exception among the answers is for who asked for that one. Raises StoreUnavailable for all.
        """

        async def trip() -> list[Any]:
            # WAITAOF speaks of what its own connection wrote, so it goes along.
            async with self.redis.pipeline(transaction=False) as pipe:
                for name, args in asked:
                    pipe.evalsha(_SHAS[name], 1, self.prefix, *args)
                if self._strict:
                    pipe.execute_command(*self._sync)
                answers: list[Any] = await pipe.execute(raise_on_error=False)
            if self._strict:
                self._check_synced(answers.pop())
            return answers

        answers = await self.call(trip)
        trouble: Exception | None = None
        for place, (one, answer) in enumerate(zip(asked, answers, strict=True)):
            if isinstance(answer, redis_errors.RedisError):
                # The store does not know this script any more, or cannot run it now: asked for alone, it runs, or that
                # is said, to who asked for it only. What went along was done.
                try:
                    answers[place] = trouble or await self._run_alone(*one)
                except StoreUnavailable as error:
                    trouble = answers[place] = error
                except redis_errors.RedisError as error:
                    answers[place] = error
        return answers

    async def _run_alone(self, name: str, args: tuple[bytes | str | float, ...]) -> Any:
        async def synced() -> Any:
            # WAITAOF speaks of what its own connection wrote.
            async with self.redis.client() as one:
                answer = await self._evaluate(one, name, args)
                try:
                    self._check_synced(await one.execute_command(*self._sync))
                except redis_errors.ResponseError as error:
                    self._check_synced(error)
                return answer

        answer = await (self.call(synced) if self._strict else self.run(name, *args))
        self._ran.add(name)
        return answer

    def _check_synced(self, answer: Any) -> None:
        if isinstance(answer, redis_errors.ResponseError):
            # The append-only file was turned off, or the store became a replica.
            raise StoreUnavailable("the store cannot sync") from answer
        local, replicas = answer
        if not local or replicas < self._replicas:
            raise StoreUnavailable("the store did not sync in time")

    async def _evaluate(self, client: Any, name: str, args: tuple[bytes | str | float, ...]) -> Any:
        try:
            return await client.evalsha(_SHAS[name], 1, self.prefix, *args)
        except redis_errors.NoScriptError:
            return await client.eval(SCRIPTS[name], 1, self.prefix, *args)


def _why_unreachable(error: Exception) -> str:
    # The driver's own error is raised while that of the system is handled.
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError) and cause.errno in _OUR_OWN:
        return "no file descriptor is left to reach the store with"
    return "the store is unreachable"


def _is_replica(error: Exception) -> bool:
    return isinstance(error, redis_errors.ReadOnlyError) or "READONLY" in str(error) or "MASTERDOWN" in str(error)


def _is_unable(error: Exception) -> bool:
    text = str(error)
    # A script's error carries the command's own one inside; the driver strips some codes and raises a class instead.
    if isinstance(error, (redis_errors.ReadOnlyError, redis_errors.OutOfMemoryError, redis_errors.MasterDownError)):
        return True
    return any(text.startswith(code) or f"{code} " in text for code in _UNABLE) or "maxmemory" in text
