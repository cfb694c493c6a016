"""Which fault a request meets in the emulated upstream, and how its settings are read."""

import random
from collections import Counter

import pytest

from relay.core.errors import ConfigurationError
from relay.dev.emulator import EmulatorSettings, Fault
from relay.dev.emulator.faults import Faults
from relay.dev.emulator.scrapers import Ask, draw_latency_s

DRAWS = 10_000


@pytest.mark.parametrize(
    ("shares", "submits", "polls"),
    [
        ({}, {}, {}),
        ({Fault.SUBMIT_500: 1.0}, {Fault.SUBMIT_500: 1.0}, {}),
        ({Fault.POLL_500: 0.0}, {}, {}),
        ({Fault.SUBMIT_LOST: 0.1, Fault.POLL_RESET: 0.3}, {Fault.SUBMIT_LOST: 0.1}, {Fault.POLL_RESET: 0.3}),
        # Each gets its own share of all requests, not of those that the ones before it have left.
        (
            {Fault.SUBMIT_500: 0.5, Fault.SUBMIT_503: 0.3, Fault.SUBMIT_408: 0.2},
            {Fault.SUBMIT_500: 0.5, Fault.SUBMIT_503: 0.3, Fault.SUBMIT_408: 0.2},
            {},
        ),
    ],
)
def test_each_fault_has_its_share(
    shares: dict[Fault, float], submits: dict[Fault, float], polls: dict[Fault, float]
) -> None:
    """Of many requests each fault meets the share that was set, and only those of its call."""
    faults = Faults(random.Random(1), [])
    for call, expected in (("submit", submits), ("poll", polls)):
        met = Counter(faults.next(call, shares) for _ in range(DRAWS))
        assert met[None] / DRAWS == pytest.approx(1 - sum(expected.values()), abs=0.02)
        del met[None]
        assert {fault: count / DRAWS for fault, count in met.items()} == pytest.approx(expected, abs=0.02)


def test_polls_without_faults_draw_nothing() -> None:
    """What is drawn for a job does not depend on how often others were polled."""
    rng = random.Random(1)
    faults = Faults(rng, [])
    assert faults.next("poll", {Fault.SUBMIT_500: 0.5}) is None
    assert rng.random() == random.Random(1).random()


@pytest.mark.parametrize(
    ("scraper", "params", "at_least_s", "at_most_s"),
    [
        *((scraper, {}, 5, 30) for scraper in ("chatgpt", "perplexity", "copilot", "gemini", "google_ai_mode")),
        ("amazon_rufus", {}, 5, 30),
        ("a new one", {}, 5, 30),
        ("grok", {}, 5, 30),
        ("grok", {"mode": "MODEL_MODE_FAST"}, 5, 30),
        ("grok", {"mode": "MODEL_MODE_EXPERT"}, 20, 60),
        ("gemini", {"mode": "MODEL_MODE_EXPERT"}, 5, 30),
    ],
)
def test_latencies_are_as_documented(scraper: str, params: dict[str, str], at_least_s: float, at_most_s: float) -> None:
    """Most jobs take 5 to 30 seconds, and grok in expert mode up to a minute."""
    rng = random.Random(1)
    drawn = [draw_latency_s(rng, Ask(scraper, "Why?", "US", params)) for _ in range(1_000)]
    assert sum(at_least_s <= latency_s <= at_most_s for latency_s in drawn) > 750


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CREDITS", "-1", "EMULATOR_CREDITS: "),
        ("FAILURE_RATE", "nan", "EMULATOR_FAILURE_RATE: "),
        ("LATENCY_SCALE", "0", "EMULATOR_LATENCY_SCALE: "),
        ("FAULTS", "submit_lost=0.1", 'EMULATOR_FAULTS: must be JSON such as {"submit_lost": 0.1}'),
        ("FAULTS", '{"submit_lost": 1.5}', "EMULATOR_FAULTS: "),
        ("FAULTS", '{"submit_lost": 0.6, "submit_500": 0.5}', "EMULATOR_FAULTS: "),
        ("FAULTS", '{"poll_500": 0.6, "poll_503": 0.5}', "EMULATOR_FAULTS: "),
        ("FAULT_SEQUENCE", "submit_ouch", "EMULATOR_FAULT_SEQUENCE: "),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    """A setting of the environment that cannot be is one line that begins with its name."""
    monkeypatch.setenv(f"EMULATOR_{name}", value)
    with pytest.raises(ConfigurationError) as caught:
        EmulatorSettings.load(_env_file=None)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SCRAPERS", " grok ,, gemini,", ("grok", "gemini")),
        ("API_KEYS", "a,b", ("a", "b")),
        ("FAULT_SEQUENCE", "submit_503,submit_ok", (Fault.SUBMIT_503, Fault.SUBMIT_OK)),
        ("FAULTS", '{"submit_lost": 0.1, "poll_500": 1}', {Fault.SUBMIT_LOST: 0.1, Fault.POLL_500: 1.0}),
        # Decimals that add up to a little more than 1.
        (
            "FAULTS",
            '{"submit_400": 0.1, "submit_500": 0.2, "submit_503": 0.7}',
            {Fault.SUBMIT_400: 0.1, Fault.SUBMIT_500: 0.2, Fault.SUBMIT_503: 0.7},
        ),
    ],
)
def test_lists_and_shares_are_read(monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: object) -> None:
    """Lists are separated by commas, shares are JSON."""
    monkeypatch.setenv(f"EMULATOR_{name}", value)
    assert getattr(EmulatorSettings.load(_env_file=None), name.lower()) == expected


def test_keys_are_not_in_the_repr() -> None:
    """What is logged by mistake shows no key."""
    assert "the-key" not in repr(EmulatorSettings.load(_env_file=None, api_keys="the-key"))
