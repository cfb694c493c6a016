"""Prints docs/errors.md: every code that the code knows, with its text from `.ci/errors.toml`."""

import sys
import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path

from relay.api.problems import CODES
from relay.core.model import AttemptOutcome, ErrorCode

TEXTS = Path(__file__).with_name("errors.toml")

HEAD = """# Errors

Every code, why it comes, and what to do. Made from the code and `.ci/errors.toml` by `.ci/errors_page.py`; a test holds
them together.

There are three kinds, and they come at different times: [a request is refused](#refused-requests), [a job ends without
a result](#jobs-without-a-result), [a callback does not get through](#attempts-at-a-callback).

## Refused requests

The answer is `application/problem+json` (RFC 9457), as [api.md](api.md#errors) describes it. `code` is what to decide
by; `detail` is for people. In short: repeat what is 408, 429 or 5xx, under the same `Idempotency-Key`, no sooner than
`Retry-After` says. Mend everything else first.
"""

JOBS = """
## Jobs without a result

`error.code` of a job that is `failed` or `timed_out`, and of its callback. `error.message` has ScrapeLLM's own words
where it said something. An outcome is final: to try again is a new job, under a new `Idempotency-Key`.
"""

ATTEMPTS = """
## Attempts at a callback

`outcome` in the log of a job's attempts (`GET /v1/jobs/{id}/attempts`, or `scrapellm-relay jobs ID`). All but
`delivered` and `gone` are tried again by the schedule. Once a delivery is `exhausted` and the receiver is mended,
[have it sent again](receivers.md#have-it-sent-again).
"""


def page() -> str:
    """The page as it should be. Raises KeyError where a code has no text."""
    texts = tomllib.loads(TEXTS.read_text())
    parts = [HEAD]
    for code, (status, title) in CODES.items():
        parts.append(_entry(code, texts["problems"][code], first=f"**{status}: {title}.** "))
    parts += [JOBS, *(_entry(code, texts["failures"][code]) for code in ErrorCode)]
    parts += [ATTEMPTS, *(_entry(outcome, texts["outcomes"][outcome]) for outcome in AttemptOutcome)]
    return "\n".join(parts)


def _entry(code: str, text: Mapping[str, str], first: str = "") -> str:
    lines = [f"### `{code}`", first + text["why"], f"*What to do:* {text['cure']}"]
    return (
        "\n\n".join(textwrap.fill(line, 120, break_long_words=False, break_on_hyphens=False) for line in lines) + "\n"
    )


if __name__ == "__main__":
    sys.stdout.write(page())
