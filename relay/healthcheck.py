"""`python -m relay.healthcheck`: whether the service in this container answers; the image's HEALTHCHECK for both.

Alone knows how to tell which service that is. It runs every few seconds, so it imports nothing that takes time.
"""

import http.client
import os
import sys
from collections.abc import Mapping
from pathlib import Path

#: What process 1 was started with.
_COMMAND = Path("/proc/1/cmdline")
#: The addresses that mean every address, and where such a service is found.
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound to it here
#: Less than the HEALTHCHECK's own limit, so that a service that hangs is named.
_WITHIN_S = 2.0


def address(command: bytes, environment: Mapping[str, str]) -> tuple[str, int]:
    """Where the service listens that was started by `command`, as /proc has it: a worker if it says so, else the relay.

    Raises ValueError for a port that is none.
    """
    worker = b"worker" in command.split(b"\0")
    prefix, port = ("RELAY_WORKER_", "9090") if worker else ("RELAY_", "8080")
    host = environment.get(f"{prefix}HOST", "")
    return _EVERYWHERE.get(host, host), int(environment.get(f"{prefix}PORT", port))


def trouble(host: str, port: int) -> str | None:
    """What is wrong with the service there; None where its `/healthz` says 200."""
    # Straight to it: a proxy that the environment names is for other addresses.
    connection = http.client.HTTPConnection(host, port, timeout=_WITHIN_S)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{host} port {port}: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if status == http.HTTPStatus.OK else f"{host} port {port}: /healthz says {status}"


def main() -> int:
    """Ask the service; 0 where it is healthy, else 1 and a line that says why."""
    try:
        found = trouble(*address(_COMMAND.read_bytes(), os.environ))
    except ValueError as error:
        found = str(error)
    if found is not None:
        sys.stderr.write(f"unhealthy: {found}\n")
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main())
