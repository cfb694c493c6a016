"""What is said of fields together, as JSON Schema for the OpenAPI document. `relay.api.intake` checks the same."""

from collections.abc import Iterable

from pydantic.config import JsonDict

from relay.core.upstream_rules import REFUSED_COUNTRIES


def _given(*names: str) -> JsonDict:
    """A schema for objects that have these fields, and not as null."""
    return {"required": [*names], "properties": {name: {"not": {"type": "null"}} for name in names}}


def _absent(*names: str) -> JsonDict:
    """A schema for objects in which these fields are missing or null."""
    return {"properties": {name: {"type": "null"} for name in names}}


def _in_each_job(schema: JsonDict) -> JsonDict:
    return {"properties": {"jobs": {"items": schema}}}


def _given_somewhere(name: str) -> JsonDict:
    return {"anyOf": [_given(name), _in_each_job(_given(name))]}


def _not_for(name: str, scraper: JsonDict, countries: Iterable[str]) -> JsonDict:
    pair: JsonDict = {name: scraper, "country": {"enum": [*sorted(countries)]}}
    return {"not": {"required": [name, "country"], "properties": pair}}


_REQUIRED = ("scraper", "prompt", "callback_url")

#: Which scrapers are not for which countries.
COUNTRY_CONDITION: JsonDict = {"allOf": [_not_for("scraper", {"const": s}, c) for s, c in REFUSED_COUNTRIES.items()]}
#: A batch is either `jobs`, each with all that the batch itself does not give, or prompts and scrapers.
FORM_CONDITION: JsonDict = {
    "oneOf": [
        {
            "allOf": [
                _given("jobs"),
                _absent("prompts", "scrapers"),
                *map(_given_somewhere, _REQUIRED),
            ]
        },
        {
            "allOf": [
                _given("prompts", "scrapers", "callback_url"),
                _absent("jobs", "prompt", "scraper"),
                *[_not_for("scrapers", {"contains": {"const": s}}, c) for s, c in REFUSED_COUNTRIES.items()],
            ]
        },
    ]
}
