"""The folder that `dev` keeps its data in. Alone knows what lies there and who may use it.

`credentials.json` is made once; `running.json` says where a running `dev` is reached; `lock` belongs to one `dev` at a
time. Everything in it is for its owner only.
"""

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from relay.core.errors import ConfigurationError
from relay.core.signing import check_secret, new_secret

#: Where `dev` keeps its data, and where other commands look for its key.
DEFAULT_FOLDER = Path(".scrapellm-relay")
_KEY_PREFIX = "srk_"
#: A `dev` that was killed leaves its store a moment to write its last bytes.
_LOCK_WAIT_S = 2.0
_LOCK_RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the one client of a `dev` proves itself by, and what signs its callbacks."""

    api_key: str = field(repr=False)
    signing_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Running:
    """Where a running `dev` is reached, and as whom."""

    pid: int
    url: str
    inbox_url: str
    api_key: str = field(repr=False)
    signing_secret: str = field(repr=False)


def new_api_key() -> str:
    """A fresh API key: 256 random bits, with a prefix that secret scanners can look for."""
    return _KEY_PREFIX + secrets.token_urlsafe(32)


class DataFolder:
    """A folder of data, made if it is not there. Raises ConfigurationError where it cannot be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            # The folder holds keys: it must not end up in a repository.
            ignore = path / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            (path / "store").mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(f"--data {path}: {error.strerror}") from error

    @property
    def store(self) -> Path:
        """Where the store keeps its append-only file."""
        return self.path / "store"

    def log(self, name: str) -> Path:
        """Where the process `name` logs to."""
        return self.path / f"{name}.log"

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the folder's lock; yields its descriptor, so that the store can hold it too.

        The lock is the kernel's: it goes with the last process that has it, whichever way that ends. Raises
        ConfigurationError where another `dev` has it.
        """
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"--data {self.path}: {error.strerror}") from error
        try:
            self._acquire(descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    def _acquire(self, descriptor: int) -> None:
        give_up = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= give_up:
                    running = running_in(self.path)
                    who = "" if running is None else f" (process {running.pid}, {running.url})"
                    raise ConfigurationError(
                        f"{self.path} is in use by another `dev`{who}: stop it, or give --data another folder"
                    ) from None
                time.sleep(_LOCK_RETRY_S)
            else:
                return

    def credentials(self) -> Credentials:
        """The folder's own key and secret, made at the first call. Raises ConfigurationError."""
        path = self.path / "credentials.json"
        if not path.exists():
            _write_private(path, asdict(Credentials(new_api_key(), new_secret())))
        found = _credentials_in(self.path)
        if found is None:
            raise ConfigurationError(f"{path} cannot be read: restore it, or remove it to get a new key and secret")
        return found

    @contextlib.contextmanager
    def announced(self, running: Running) -> Iterator[None]:
        """Let other commands find what runs here, for as long as the context lasts."""
        path = self.path / "running.json"
        _write_private(path, asdict(running))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def running_in(folder: Path) -> Running | None:
    """What `dev` says of itself in `folder`; None where it is stopped. It may have been killed since."""
    document = _read(folder / "running.json")
    try:
        return Running(**document)
    except TypeError:
        return None


def credentials_in(folder: Path) -> Credentials | None:
    """The key and secret by which the `dev` of `folder` is reached, running or not; None where there are none."""
    running = running_in(folder)
    if running is not None:
        return Credentials(running.api_key, running.signing_secret)
    return _credentials_in(folder)


def _credentials_in(folder: Path) -> Credentials | None:
    document = _read(folder / "credentials.json")
    try:
        found = Credentials(**document)
        check_secret(found.signing_secret)
    except (TypeError, ValueError, AttributeError):
        return None
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _write_private(path: Path, document: dict[str, Any]) -> None:
    """Write a file that only its owner can read, whole or not at all. Raises ConfigurationError."""
    draft = path.with_suffix(".new")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(document, file)
        draft.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
