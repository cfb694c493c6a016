"""How long the emulated scrapers take, and what they answer."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Median and sigma of each scraper's lognormal latency, in seconds. Most jobs take 5 to 30 s (docs/upstream.md).
_LATENCIES = {
    "chatgpt": (12.0, 0.4),
    "perplexity": (9.0, 0.35),
    "grok": (14.0, 0.45),
    "copilot": (10.0, 0.35),
    "gemini": (11.0, 0.4),
    "google_ai_mode": (7.0, 0.35),
    "amazon_rufus": (8.0, 0.35),
}
_OTHER = (12.0, 0.4)
#: grok in expert mode thinks for up to a minute.
_EXPERT = (35.0, 0.45)

_SENTENCES = (
    "Here is what the sources agree on.",
    "Three points stand out.",
    "The short answer is yes, with two conditions.",
    "Opinions differ, and the difference matters.",
    "Recent documentation settles most of it.",
)


@dataclass(frozen=True, slots=True)
class Ask:
    """What was asked of a scraper."""

    scraper: str
    prompt: str = field(repr=False)
    country: str
    #: What was given beside the documented parameters, such as grok's `mode`.
    params: Mapping[str, str] = field(default_factory=dict, repr=False)


def draw_latency_s(rng: random.Random, ask: Ask) -> float:
    """A latency of this scraper, unscaled."""
    expert = ask.scraper == "grok" and ask.params.get("mode") == "MODEL_MODE_EXPERT"
    median_s, sigma = _EXPERT if expert else _LATENCIES.get(ask.scraper, _OTHER)
    return rng.lognormvariate(math.log(median_s), sigma)


def answer(
    ask: Ask, *, job_id: str, credits_used: int, elapsed_ms: int, cached: bool, at_least_bytes: int
) -> dict[str, object]:
    """The `result` object of a finished job, shaped as the synchronous endpoint's answer."""
    # From the question, so that the same question has the same answer.
    rng = random.Random(f"{ask.scraper} {ask.prompt} {ask.country}")
    opening = rng.choice(_SENTENCES)
    question = ask.prompt.strip()[:200]
    text = f"{opening} You asked {ask.scraper}: {question}"
    if len(text) < at_least_bytes:
        text += " " + "More of the same. " * ((at_least_bytes - len(text)) // 18 + 1)
    links = [
        {"url": f"https://example.com/{ask.scraper}/{rng.randrange(1000)}", "title": f"Source {n}", "position": n}
        for n in range(1, rng.randint(2, 4))
    ]
    result: dict[str, object] = {
        "scraper": ask.scraper,
        "status": "done",
        "job_id": job_id,
        "prompt": ask.prompt,
        "country": ask.country,
        "result": text,
        "result_markdown": f"## {opening}\n\n{text}\n",
        "credits_used": credits_used,
        "elapsed_ms": elapsed_ms,
        "cached": cached,
        "markdown_url": f"https://example.com/markdown/{job_id}",
        "links": links,
    }
    if ask.scraper in ("chatgpt", "perplexity", "google_ai_mode"):
        result["search_queries"] = [question[:60]]
    if ask.scraper == "amazon_rufus":
        result["products"] = [{"title": "A thing", "price": 19.9, "asin": "B000000000"}]
    return result
