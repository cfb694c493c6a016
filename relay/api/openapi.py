"""The OpenAPI 3.1 document, made of the models that validate requests and of the table of calls."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from pydantic.json_schema import models_json_schema

from relay import __version__
from relay.api import documents as d
from relay.api import schemas as s
from relay.api.calls import CALLS, Call, Success
from relay.api.fields import SCRAPER_MARK
from relay.api.problems import CODES, CONTENT_TYPE
from relay.core.settings import Settings

_REF = "#/components/schemas/{model}"
_REQUESTS = (s.JobRequest, s.BatchRequest, s.RedeliverRequest)
_CHALLENGED, _LATER = (401,), (429, 503)

_ABOUT = """\
Push notifications for ScrapeLLM: submit a prompt with a callback URL, and get the signed result delivered.

Errors are problem details (RFC 9457) with a `code`. Requests are checked
in the order 401, 415, 413, 408, 400, 422, 429.
After a 202 the job is in the store; without one it is not.
"""


def build(settings: Settings) -> dict[str, Any]:
    """The document of a service with these settings."""
    schemas = _schemas(settings.scrapers)
    paths: dict[str, dict[str, Any]] = {}
    for call in CALLS:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "scrapellm-relay",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(call.tag for call in CALLS)],
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "webhooks": _webhooks(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The client's API key."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
            },
        },
    }


def _schemas(scrapers: Sequence[str]) -> dict[str, Any]:
    _, requests = models_json_schema([(model, "validation") for model in _REQUESTS], ref_template=_REF)
    _, answers = models_json_schema([(model, "serialization") for model in d.DOCUMENTS], ref_template=_REF)
    schemas: dict[str, Any] = dict(sorted((answers["$defs"] | requests["$defs"]).items()))
    _name_scrapers(schemas, scrapers)
    # What may be left out of a fault and a problem is left out, not sent with a default.
    for model in ("FaultDocument", "ProblemDocument", "JobInCallback"):
        optional = {"pointer", "parameter", "header", "errors", "result_url"}
        schemas[model]["required"] = [name for name in schemas[model]["properties"] if name not in optional]
        for name in optional & schemas[model]["properties"].keys():
            schemas[model]["properties"][name].pop("default", None)
    return schemas


def _name_scrapers(schema: Any, scrapers: Sequence[str]) -> None:
    if isinstance(schema, list):
        for item in schema:
            _name_scrapers(item, scrapers)
    elif isinstance(schema, dict):
        if schema.pop(SCRAPER_MARK, False):
            schema |= {"enum": list(scrapers), "examples": [scrapers[0]]}
        for item in schema.values():
            _name_scrapers(item, scrapers)


def _operation(call: Call) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": call.operation, "summary": call.summary, "tags": [call.tag]}
    if call.description:
        operation["description"] = call.description
    if call.public:
        operation["security"] = []
    if call.parameters:
        operation["parameters"] = list(call.parameters)
    if call.body is not None:
        operation["requestBody"] = {
            "required": call.body_required,
            "content": {"application/json": {"schema": _ref(call.body.__name__)}},
        }
    answers = {str(status): _success(success) for status, success in call.success.items()}
    operation["responses"] = answers | _problems(call.problems) | {"default": _problem("Any other error.")}
    return operation


def _success(success: Success) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": success.description}
    if success.headers:
        answer["headers"] = dict(success.headers)
    if success.model is not None:
        answer["content"] = {"application/json": {"schema": _ref(success.model.__name__)}}
    elif success.content is not None:
        answer["content"] = dict(success.content)
    return answer


def _problems(codes: Iterable[str]) -> dict[str, Any]:
    ordered = sorted(dict.fromkeys(codes), key=lambda code: CODES[code][0])
    answers: dict[str, Any] = {}
    for status, group in groupby(ordered, key=lambda code: CODES[code][0]):
        named = list(group)
        answer = _problem(" · ".join(f"`{code}`: {CODES[code][1]}" for code in named))
        if status in _CHALLENGED:
            answer["headers"] = {"WWW-Authenticate": _required_header("The scheme that is wanted.")}
        if status in _LATER:
            answer["headers"] = {"Retry-After": _required_header("Seconds after which to try again.")}
        answer["content"][CONTENT_TYPE]["example"] = _example(named[0])
        answers[str(status)] = answer
    return answers


def _required_header(description: str) -> dict[str, Any]:
    return {"required": True, "description": description, "schema": {"type": "string"}}


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {CONTENT_TYPE: {"schema": _ref("ProblemDocument")}}}


def _example(code: str) -> dict[str, Any]:
    status, title = CODES[code]
    example: dict[str, Any] = {
        "type": f"urn:scrapellm-relay:problem:{code}",
        "title": title,
        "status": status,
        "detail": title + ".",
        "code": code,
    }
    if status == 422:
        example |= {
            "detail": "/country must be an assigned ISO 3166-1 alpha-2 code, in upper case",
            "errors": [{"pointer": "/country", "detail": "must be an assigned ISO 3166-1 alpha-2 code, in upper case"}],
        }
    return example


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=name)}


def _webhooks() -> dict[str, Any]:
    job = {"application/json": d.JobEvent, "application/cloudevents+json": d.JobCloudEvent}
    batch = {"application/json": d.BatchEvent, "application/cloudevents+json": d.BatchCloudEvent}
    return {
        "job.completed": _webhook("jobCompleted", "A job is done", job),
        "job.failed": _webhook("jobFailed", "A job has failed", job),
        "job.timed_out": _webhook("jobTimedOut", "A job's deadline has passed", job),
        "batch.completed": _webhook("batchCompleted", "The last job of a batch has an outcome", batch),
    }


def _webhook(operation: str, summary: str, bodies: Mapping[str, type]) -> dict[str, Any]:
    headers = {
        "webhook-id": "The same for every attempt and redelivery of one event: what to de-duplicate by.",
        "webhook-timestamp": "When this attempt was made, in Unix seconds.",
        "webhook-signature": "`v1,<base64>`, one per live secret, space-separated (Standard Webhooks).",
        "relay-attempt": "The number of this attempt, from 1.",
    }
    return {
        "post": {
            "operationId": operation,
            "summary": summary,
            "description": "Sent to the `callback_url`. Verify it with any Standard Webhooks library.",
            "tags": ["Callbacks"],
            "security": [],
            "parameters": [
                {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "description": text}
                for name, text in headers.items()
            ],
            "requestBody": {
                "required": True,
                "content": {kind: {"schema": _ref(model.__name__)} for kind, model in bodies.items()},
            },
            "responses": {
                "2XX": {"description": "Delivered."},
                "410": {"description": "Never send this again."},
                "default": {"description": "Tried again later, by the schedule. Redirects are not followed."},
            },
        }
    }
