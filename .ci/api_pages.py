"""Pages of the documentation site about each call and object of the HTTP interface, made from its OpenAPI document."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_MADE = "*Made from the OpenAPI document of this version ([openapi.json](../openapi.json)).*"
#: What a page says before its calls, and where the rules are that a schema cannot say.
_INTRODUCTIONS = {
    "Jobs": "The rules behind the fields: [jobs](../api.md#post-v1jobs), [reading and changing]"
    "(../api.md#reading-and-changing-jobs).",
    "Deliveries": "How callbacks fare, and having them sent again. The rules: [redelivering]"
    "(../api.md#reading-and-changing-jobs), [destinations](../api.md#destinations).",
    "Batches": "How to use them: [batches](../batches.md). The rules: [batches](../api.md#batches).",
    "Events": "The rules: [events](../api.md#events).",
    "Operation": "For those who run the relay, and for machines: [run it](../operations.md).",
    "Callbacks": "What the relay sends to a `callback_url`. How to take them: [receive callbacks](../receivers.md). "
    "The rules: [the callback](../api.md#the-callback).",
}
_LONG = 12
_CODE = re.compile(r"`([a-z_]+)`: ")


def pages(document: Schema) -> dict[str, str]:
    """The Markdown of each page by its name, without `.md`: one for each tag, one for callbacks, one for objects."""
    inline = {_name(body) for call in _operations(document["paths"]) if (body := _body_schema(call[2]))}
    made = {}
    for tag in (tag["name"] for tag in document["tags"]):
        calls = [call for call in _operations(document["paths"]) if tag in call[2]["tags"]]
        sections = [_call(method, path, call, document) for path, method, call in calls]
        made[tag.lower()] = _page(tag, _INTRODUCTIONS[tag], sections)
    hooks = [_webhook(name, call) for name, _, call in _operations(document["webhooks"])]
    made["callbacks"] = _page("Callbacks", _INTRODUCTIONS["Callbacks"], hooks)
    schemas = document["components"]["schemas"]
    objects = [_object(name, schema) for name, schema in schemas.items() if name not in inline]
    made["objects"] = _page("Objects", "What calls answer and callbacks carry, by name.", objects)
    return made


def _page(title: str, introduction: str, sections: list[str]) -> str:
    return "\n\n".join([f"# {title}", introduction, *sections, _MADE]) + "\n"


def _operations(paths: Schema) -> Iterator[tuple[str, str, Schema]]:
    for path, methods in paths.items():
        for method, call in methods.items():
            yield path, method, call


def _call(method: str, path: str, call: Schema, document: Schema) -> str:
    parts = [f"## {call['summary']}", f"```http\n{method.upper()} {path}\n```"]
    if call.get("security") == []:
        parts.append("Needs no key.")
    if "description" in call:
        parts.append(call["description"])
    parts += _parameters(call)
    if body := _body_schema(call):
        schema = document["components"]["schemas"][_name(body)]
        optional = "" if call["requestBody"]["required"] else " It may be left out."
        parts.append(f"**Body.** {_flat(schema['description'])}{optional}")
        if "properties" in schema:
            parts.append(_fields(schema, request=True))
        parts += [f"```json\n{json.dumps(example, indent=2)}\n```" for example in schema.get("examples", [])[:1]]
    parts.append(_answers(call["responses"]))
    return "\n\n".join(parts)


def _webhook(name: str, call: Schema) -> str:
    bodies = [f"`{kind}`: {_type(content['schema'])}" for kind, content in call["requestBody"]["content"].items()]
    parts = [f"## {name}", f"{call['summary']}. {call['description']}", *_parameters(call)]
    parts.append("**Body.** " + ", or ".join(bodies) + ".")
    answers = [f"| `{status}` | {answer['description']} |" for status, answer in call["responses"].items()]
    parts.append("\n".join(["| the receiver's answer | |", "|---|---|", *answers]))
    return "\n\n".join(parts)


def _parameters(call: Schema) -> list[str]:
    if not call.get("parameters"):
        return []
    rows = [
        f"| `{item['name']}` | {item['in']}{', required' if item['required'] and item['in'] == 'query' else ''} "
        f"| {_type(item['schema'])} | {_cell(item['description'])} {_default(item['schema'])}|"
        for item in call["parameters"]
    ]
    return ["\n".join(["| parameter | in | | |", "|---|---|---|---|", *rows])]


def _answers(responses: Schema) -> str:
    rows = []
    for status, answer in responses.items():
        if status == "default":
            continue
        # A problem's description is its codes; each has a section of its own.
        text = _CODE.sub(lambda match: f"[`{match[1]}`](../errors.md#{match[1]}): ", answer["description"])
        bodies = [_type(body["schema"]) for kind, body in answer.get("content", {}).items() if "problem" not in kind]
        headers = [f"`{name}`" for name in answer.get("headers", {})]
        rows.append(f"| {status} | {_cell(text)} | {', '.join(bodies)} | {', '.join(headers)} |")
    return "\n".join(["| answer | | body | headers |", "|---|---|---|---|", *rows])


def _object(name: str, schema: Schema) -> str:
    parts = [f"## {name}"]
    if "description" in schema:
        parts.append(_flat(schema["description"]))
    if "properties" in schema:
        parts.append(_fields(schema, request=False))
    else:
        parts.append(_type(schema))
    return "\n\n".join(parts)


def _fields(schema: Schema, *, request: bool) -> str:
    required = set(schema.get("required", []))
    rows = []
    names = sorted(schema["properties"], key=lambda name: name not in required) if request else schema["properties"]
    for name in names:
        field = schema["properties"][name]
        note = "**required** " if request and name in required else "" if request or name in required else "*optional* "
        shown = _without_null(field) if request else field
        rows.append(f"| `{name}` | {_type(shown)} | {note}{_cell(_description(field))} {_default(field)}|")
    return "\n".join(["| field | | |", "|---|---|---|", *rows])


def _without_null(schema: Schema) -> Schema:
    # In a request, null is the same as leaving the field out.
    kinds = [kind for kind in schema.get("anyOf", []) if kind.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else schema


def _description(schema: Schema) -> str:
    found = schema.get("description") or next(
        (kind["description"] for kind in schema.get("anyOf", []) if "description" in kind), ""
    )
    return str(found)


def _default(schema: Schema) -> str:
    value = schema.get("default")
    if value is None or value in ({}, ""):
        return ""
    return f"By default `{json.dumps(value)}`. "


def _type(schema: Schema) -> str:
    """What a value may be, in words; a link where it is an object with a name."""
    match schema:
        case {"$ref": _}:
            name = _name(schema)
            return f"[{name}](objects.md#{name.lower()})"
        case {"const": value}:
            return f"`{json.dumps(value)}`"
        case {"enum": values}:
            if len(values) > _LONG and all(len(str(value)) == 2 for value in values):
                return f"one of {len(values)} codes"
            return ", ".join(f"`{value}`" for value in values)
        case {"anyOf": kinds}:
            return " or ".join(dict.fromkeys(_type(kind) for kind in kinds))
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}{_bounds(schema)}"
        case {"type": str(kind)}:
            words = {"date-time": "time", "uri": "URL"}
            return words.get(schema.get("format", ""), kind) + _bounds(schema)
        case _:
            return "any"


def _bounds(schema: Schema) -> str:
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " members"),
    ):
        match schema.get(low), schema.get(high):
            case None, None:
                continue
            case None, most:
                return f", up to {most:,}{unit}"
            case least, None:
                return f", {least:,}{unit} or more"
            case least, most:
                return f", {least:,} to {most:,}{unit}"
    return ""


def _body_schema(call: Schema) -> Schema | None:
    content = call.get("requestBody", {}).get("content", {}).get("application/json")
    return content["schema"] if content else None


def _name(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _flat(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _flat(text).replace("|", "\\|")
