"""Which jobs are alike, as far as latencies go."""

from typing import Any

import pytest

from relay.core.model import Callback, JobSpec
from worker.learning import kind_of


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({}, "grok"),
        ({"mode": "MODEL_MODE_EXPERT"}, "grok/MODEL_MODE_EXPERT"),
        ({"depth": "deep"}, "grok"),
        ({"mode": "two words"}, "grok"),
        ({"mode": "x" * 41}, "grok"),
        ({"mode": ""}, "grok"),
        ({"mode": "a/b"}, "grok"),
        ({"mode": 3}, "grok"),
    ],
)
def test_scraper_and_mode(params: dict[str, Any], kind: str) -> None:
    """A mode counts where it is a plain word: the name of a kind is the name of a key and of a metric's label."""
    callback = Callback("https://example.com/", "example.com:443", ())
    spec = JobSpec("grok", "Why?", "US", 300, bypass_cache=False, deadline_s=60, callback=callback, params=params)
    assert kind_of(spec) == kind
