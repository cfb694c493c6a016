"""The site's reference of the HTTP interface, made from the OpenAPI document."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from relay.api.openapi import build
from relay.core.settings import Settings

SCRIPT = Path(__file__).parents[2] / ".ci" / "api_pages.py"


@pytest.fixture(name="document", scope="module")
def fixture_document() -> dict[str, Any]:
    """The document of a relay with default settings."""
    return build(Settings.model_construct())


@pytest.fixture(name="pages", scope="module")
def fixture_pages(document: dict[str, Any]) -> dict[str, str]:
    """The pages by name."""
    pages: dict[str, str] = runpy.run_path(str(SCRIPT))["pages"](document)
    return pages


def test_every_call_and_callback_is_on_one_page(document: dict[str, Any], pages: dict[str, str]) -> None:
    """Each call has a section that names its method and path; each event has one among the callbacks."""
    everything = "\n".join(pages.values())
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            text = f"## {call['summary']}\n\n```http\n{method.upper()} {path}\n```\n"
            assert everything.count(text) == 1
    for event in document["webhooks"]:
        assert f"## {event}\n" in pages["callbacks"]


def test_every_field_parameter_and_answer_is_there(document: dict[str, Any], pages: dict[str, str]) -> None:
    """Nothing of the document that a client sends or gets is left out."""
    everything = "\n".join(pages.values())
    for name, schema in document["components"]["schemas"].items():
        for field in schema.get("properties", {}):
            assert f"| `{field}` |" in everything, f"{name}.{field}"
    for methods in document["paths"].values():
        for call in methods.values():
            (page,) = (text for text in pages.values() if f"## {call['summary']}\n" in text)
            section = page.partition(f"## {call['summary']}\n")[2].partition("\n## ")[0]
            assert all(f"| `{parameter['name']}` |" in section for parameter in call.get("parameters", []))
            assert all(f"| {status} |" in section for status in call["responses"] if status != "default")


def test_a_page_says_what_a_value_may_be(pages: dict[str, str]) -> None:
    """Bounds, defaults, what is required, and links to objects are told in words."""
    jobs = pages["jobs"]
    assert (
        "| `timeout` | number, 10 to 600 | The upstream's limit for one scrape, in seconds. By default `300`. |" in jobs
    )
    assert "| `prompt` | string, 1 to 4,000 characters | **required** " in jobs
    assert "| 202 | The job is in the store. | [Job](objects.md#job) | `Location`, `Idempotency-Replayed` |" in jobs
    assert "[`too_large`](../errors.md#too_large)" in jobs
    assert "| `completed_at` | time or null |" in pages["objects"]
