"""Keeps the emulated upstream's jobs over a restart, as the real one would. Alone knows the journal's format.

One JSON line for each job, written when it is taken: what becomes of it follows from that and the time.
"""

from pathlib import Path

import msgspec

from relay.core.errors import ConfigurationError
from relay.dev.emulator.state import EmulatedJob

_decoder = msgspec.json.Decoder(EmulatedJob)


class Journal:
    """A file of jobs; with None for its path it keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self, since_s: float) -> list[EmulatedJob]:
        """The jobs that were taken after `since_s` (Unix seconds), in order; the file keeps no others.

        A line that was cut off by a crash is passed over. Raises ConfigurationError where there can be no such file.
        """
        if self._path is None:
            return []
        try:
            known = self._path.read_bytes() if self._path.exists() else b""
            jobs = [job for job in map(_job, known.splitlines()) if job is not None and job.created_s > since_s]
            fresh = self._path.with_name(self._path.name + ".new")
            fresh.write_bytes(b"".join(map(_line, jobs)))
            fresh.replace(self._path)
        except OSError as error:
            raise ConfigurationError(f"EMULATOR_JOURNAL {self._path}: {error.strerror}") from error
        return jobs

    def append(self, job: EmulatedJob) -> None:
        """Keep one more job. Raises OSError."""
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(_line(job))


def _job(line: bytes) -> EmulatedJob | None:
    try:
        return _decoder.decode(line)
    except ValueError:  # not JSON, not UTF-8, or not a job
        return None


def _line(job: EmulatedJob) -> bytes:
    return msgspec.json.encode(job) + b"\n"
