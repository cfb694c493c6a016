"""`python -m bench.upstream PORT`: an upstream that costs next to nothing, so that it does not become the bottleneck.

It answers as docs/upstream.md says, but for faults and accounts: those are the emulator's. A job ends after the
`[latency=2.5]` in its prompt. An id that begins with `wait-` is known and never ends. Beside it keeps the account that
the benchmarks need: when each job ended, which poll found that, and what was submitted twice.
"""

import re
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec

from bench.lean import Request, answer, json_answer, serve

_LATENCY = re.compile(r"\[latency=([0-9.]+)\]")
_RESULT_BYTES = 2_000
_TEXT = ("Three points stand out, and the sources agree on two of them. " * 40)[:_RESULT_BYTES]


@dataclass(slots=True)
class _Job:
    prompt: str
    ends_s: float
    pending: bytes
    done: bytes
    #: When the poll that found the outcome came, or 0.
    found_s: float = 0.0


class Upstream:
    """What it remembers."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._prompts: set[str] = set()
        self._waited: dict[str, float] = {}
        self._submits = self._polls = self._repeated = 0

    def __call__(self, request: Request) -> bytes:
        """Answer one request."""
        path, _, query = request.target.decode().partition("?")
        if path.startswith("/jobs/"):
            return self._poll(path.removeprefix("/jobs/"), request.first_byte_s)
        match path:
            case "/_bench/ready":
                return json_answer({})
            case "/_bench/counts":
                return json_answer({"submits": self._submits, "polls": self._polls, "repeated": self._repeated})
            case "/_bench/ends":
                return json_answer({job.prompt: [job.ends_s, job.found_s] for job in self._jobs.values()})
            case "/_bench/waited":
                waited, self._waited = self._waited, {}
                return json_answer(waited)
            case _:
                return self._submit(path.split("/")[2], query)

    def _submit(self, scraper: str, query: str) -> bytes:
        fields = parse_qs(query)
        prompt = fields["prompt"][0]
        latency = _LATENCY.search(prompt)
        latency_s = float(latency[1]) if latency else 10.0
        job_id, now = str(uuid.uuid4()), time.time()
        document = {
            "job_id": job_id,
            "status": "pending",
            "scraper": scraper,
            "prompt": prompt,
            "country": fields["country"][0],
            "created_at": _iso(now),
            "completed_at": None,
        }
        result: dict[str, Any] = {
            **{name: document[name] for name in ("scraper", "job_id", "prompt", "country")},
            "status": "done",
            "result": _TEXT,
            "result_markdown": "",
            "credits_used": 3,
            "cached": False,
            "elapsed_ms": round(latency_s * 1000),
            "markdown_url": None,
            "links": [],
        }
        ended = document | {"status": "done", "completed_at": _iso(now + latency_s), "result": result}
        self._jobs[job_id] = _Job(
            prompt,
            time.monotonic() + latency_s,
            answer(200, msgspec.json.encode(document)),
            answer(200, msgspec.json.encode(ended)),
        )
        self._submits += 1
        self._repeated += prompt in self._prompts
        self._prompts.add(prompt)
        return answer(202, msgspec.json.encode({"job_id": job_id, "status": "pending"}))

    def _poll(self, job_id: str, now_s: float) -> bytes:
        self._polls += 1
        if job_id.startswith("wait-"):
            self._waited.setdefault(job_id, time.time())
            return _WAITING
        job = self._jobs.get(job_id)
        if job is None:
            return answer(404, b'{"detail":"Job not found or expired."}')
        if now_s < job.ends_s:
            return job.pending
        job.found_s = job.found_s or now_s
        return job.done


def _iso(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat()


_WAITING = answer(
    200,
    msgspec.json.encode(
        {
            "job_id": str(uuid.uuid4()),
            "status": "pending",
            "scraper": "chatgpt",
            "prompt": "x" * 200,
            "country": "US",
            "created_at": _iso(time.time()),
            "completed_at": None,
        }
    ),
)

if __name__ == "__main__":
    serve(Upstream(), int(sys.argv[1]))
