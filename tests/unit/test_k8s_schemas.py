"""The manifests are what Kubernetes, and the operators that some of them are for, take."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no types
from kubernetes_validate.utils import latest_version, validate

from tests import rendered
from tests.rendered import OVERLAYS

#: The first minor version with `preStop.sleep` on by default.
_OLDEST = 30
VERSIONS = [f"1.{minor}" for minor in range(_OLDEST, int(latest_version().split(".")[1]) + 1)]


@functools.cache
def foreign() -> Mapping[str, Any]:
    """The schemas of the specifications of foreign kinds, by `apiVersion kind`."""
    return dict(yaml.safe_load((Path(__file__).parent / "crds.yaml").read_text()))


def kind_of(document: Mapping[str, Any]) -> str:
    """Under which it would be found there."""
    return f"{document['apiVersion']} {document['kind']}"


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_each_document(version: str) -> None:
    """Every document of Kubernetes' own kinds is valid, with no field that this version does not know."""
    documents = [document for name in OVERLAYS for document in rendered.render(name)]
    # What several overlays have alike is looked at once: a look reads the whole schema.
    different = {json.dumps(document): document for document in documents if kind_of(document) not in foreign()}
    assert different
    for document in different.values():
        validate(document, version, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_operators_take_each_document(name: str) -> None:
    """Every document of a foreign kind has the fields that its definition has, and no other."""
    for document in rendered.render(name):
        if schema := foreign().get(kind_of(document)):
            assert document.keys() == {"apiVersion", "kind", "metadata", "spec"}
            Draft202012Validator(schema).validate(document["spec"])


def test_every_foreign_schema_is_used() -> None:
    """No schema is kept for a kind that is not deployed."""
    used = {kind_of(document) for name in OVERLAYS for document in rendered.render(name)}
    assert foreign().keys() <= used


def test_a_plain_cluster_will_do() -> None:
    """The dev and production overlays as they are need no operator."""
    for name in (rendered.DEV, rendered.PRODUCTION):
        assert not [kind_of(document) for document in rendered.render(name) if kind_of(document) in foreign()]
