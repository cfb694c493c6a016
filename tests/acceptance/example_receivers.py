"""The examples as processes that take callbacks, and what they print of their work. Alone knows how each is run."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance import npm
from tests.processes import Service, free_port, until

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLES = ROOT / "examples"


@dataclass(frozen=True, slots=True)
class Example:
    """How one example is run: with Python, or with Node. `PORT` stands for the port."""

    folder: str
    command: tuple[str, ...]
    node: bool = False
    npm: bool = False
    #: Works before it answers, so that what fails comes again.
    answers_last: bool = False
    callback_format: str = "standard"

    def __str__(self) -> str:
        """Its name in the report of the tests."""
        return self.folder

    def service(self, folder: Path, port: int, secret: str | None) -> Service:
        """Its process, not started."""
        if self.npm:
            npm.install(EXAMPLES / self.folder)
        elif self.node:
            npm.need("node")
        environment = {k: v for k, v in os.environ.items() if k != "SIGNING_SECRET"} | {
            "PORT": str(port),
            "HOST": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        return Service(
            self.folder,
            [str(port) if word == "PORT" else word.replace(":PORT", f":{port}") for word in self.command],
            environment | ({"SIGNING_SECRET": secret} if secret else {}),
            folder / f"{self.folder}.log",
            f"http://127.0.0.1:{port}/hook",
            program=shutil.which("node") or "node" if self.node else sys.executable,
        )


def path(name: str) -> str:
    """Where a file or folder of the examples is."""
    return str(EXAMPLES / name)


_GUNICORN = (
    "-m",
    "gunicorn",
    "--preload",
    "--bind",
    "127.0.0.1:PORT",
    "--threads",
    "8",
    "--chdir",
    path("cloudevents"),
)
_FUNCTION = ("--target", "hook", "--source", path("google-function/main.py"), "--host", "127.0.0.1", "--port", "PORT")

RECEIVERS = [
    Example("aiohttp", (path("aiohttp/receiver.py"),)),
    Example("aws-lambda", (str(HERE / "function_url.py"), path("aws-lambda/handler.py"), "PORT"), answers_last=True),
    Example("cloudevents", (*_GUNICORN, "consumer:app"), callback_format="cloudevents"),
    Example(
        "cloudflare-worker",
        (str(HERE / "node" / "worker.mjs"), path("cloudflare-worker/worker.mjs"), "PORT"),
        node=True,
    ),
    Example("express", (path("express/app.mjs"),), node=True, npm=True),
    Example("fastapi", ("-m", "uvicorn", "--app-dir", path("fastapi"), "--port", "PORT", "main:app")),
    Example("flask", ("-m", "flask", "--app", path("flask/app.py"), "run", "--port", "PORT")),
    Example(
        "google-function", (str(Path(sys.executable).parent / "functions-framework"), *_FUNCTION), answers_last=True
    ),
]


@dataclass(frozen=True, slots=True)
class Running:
    """An example that runs, and what it did."""

    example: Example
    service: Service

    @property
    def url(self) -> str:
        """Where it takes callbacks."""
        return self.service.ready_url

    def worked_on(self, subject_id: str) -> list[tuple[str, Any]]:
        """The events of one job or batch that it worked on, with what came of them."""
        *lines, _unfinished = self.service.log.read_text().split("\n")
        found = [line.split(" ", 2) for line in lines if f" {subject_id} " in line]
        return [(event, json.loads(outcome)) for event, _, outcome in found]

    async def works_on(self, subject_id: str) -> tuple[str, Any]:
        """Wait for the first such event."""
        await until(
            lambda: bool(self.worked_on(subject_id)),
            20,
            lambda: f"{subject_id}: {self.service.log.read_text()[-3000:]}",
        )
        return self.worked_on(subject_id)[0]


@asynccontextmanager
async def running(example: Example, folder: Path, secret: str) -> AsyncIterator[Running]:
    """The example as a process of its own."""
    service = await asyncio.to_thread(example.service, folder, free_port(), secret)
    try:
        await service.start()
        yield Running(example, service)
    finally:
        if service.is_running():
            try:
                await service.terminate(10)
            except subprocess.TimeoutExpired:
                await service.kill()
