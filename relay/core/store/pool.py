"""Pools of connections to the store, directly or through Sentinel. Alone knows what the store's URL may look like."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis
from redis.asyncio import BlockingConnectionPool, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from relay.core.errors import ConfigurationError
from relay.core.settings import Settings

_SENTINEL = "redis+sentinel"
_SENTINEL_PORT = 26379
_FORM = "is not a redis://, rediss:// or unix:// URL, nor redis+sentinel://HOST:PORT,HOST:PORT/NAME/DATABASE"


class _PacksFast:
    """Mixed into the driver's connections, which pack commands in Python, though they read answers with hiredis."""

    def pack_command(self, name: bytes | str, *args: bytes | str | float) -> list[bytes]:
        """A command as it is sent. As everywhere in the driver, a name may be of several words."""
        words = (name.encode() if isinstance(name, str) else name).split()
        return [hiredis.pack_command((*words, *args))]  # type: ignore[arg-type]  # it takes numbers too


def connection_pool(settings: Settings, max_connections: int, *, timed: bool) -> ConnectionPool:
    """A pool on the store of `settings`. Nothing is connected yet.

    With `timed` every wait is bounded, by a timer for each reading and writing; without it only connecting is, and the
    caller sees to the rest, for less. With Sentinel connections go to whatever server is the master when they are
    made. Raises ConfigurationError.
    """
    timeouts: dict[str, Any] = {
        "socket_timeout": settings.store_timeout_s if timed else None,
        "socket_connect_timeout": min(2.0, settings.store_timeout_s),
        "health_check_interval": 15,
        # Repeats are decided by the caller, not by the driver.
        "retry": Retry(NoBackoff(), 0),
    }
    try:
        _check_database(settings.redis_url)
        if not settings.redis_url.startswith("unix://"):
            timeouts["socket_keepalive"] = True
        if settings.redis_url.startswith(f"{_SENTINEL}://"):
            pool = _sentinel_pool(settings.redis_url, timeouts)
        else:
            wait_s = settings.store_timeout_s if timed else None
            pool = BlockingConnectionPool.from_url(
                settings.redis_url, max_connections=max_connections, timeout=wait_s, **timeouts
            )
            # The driver looks at what else the URL says when it makes a connection.
            pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError):
        # What the driver says of it quotes parts of the URL, and with them the password.
        raise ConfigurationError(f"RELAY_REDIS_URL: {_FORM}") from None
    pool.connection_class = type("Connection", (_PacksFast, pool.connection_class), {})
    return pool


def _check_database(url: str) -> None:
    """The driver takes what is no number for database 0. Raises ValueError."""
    parts = urlsplit(url)
    database = parts.path.removeprefix("/")
    if parts.scheme in ("redis", "rediss") and database and not database.isdecimal():
        raise ValueError("the database is no number")


def _sentinel_pool(url: str, options: Mapping[str, Any]) -> ConnectionPool:
    """The pool of the master that the Sentinels of `url` name. Raises ValueError.

    The password is the servers'; Sentinels have none.
    """
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    service, _, database = parts.path.removeprefix("/").partition("/")
    if not service or parts.query or parts.fragment or (database and not database.isdecimal()):
        raise ValueError("not the address of a service")
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # the driver's
        [_address(host) for host in hosts.split(",")],
        sentinel_kwargs={name: options[name] for name in ("socket_timeout", "socket_connect_timeout")},
        username=unquote(user) or None,
        password=unquote(password) or None,
        db=int(database or 0),
        **options,
    )
    pool: ConnectionPool = sentinel.master_for(unquote(service)).connection_pool
    return pool


async def close_pool(pool: ConnectionPool) -> None:
    """Close what is idle of a pool, and where it asks Sentinels, what goes to those."""
    await pool.disconnect()
    manager: Sentinel | None = getattr(pool, "sentinel_manager", None)
    for sentinel in manager.sentinels if manager is not None else ():
        await sentinel.aclose(close_connection_pool=True)


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or _SENTINEL_PORT
