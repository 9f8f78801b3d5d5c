"""Documents of which no command line can be made: which place is wrong, and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.plugin_utils import openapi
from ansible_collections.claw.fleet.plugins.plugin_utils.openapi import DocumentError

from .documents import body, document, make, operation, parameter

REFERENCE = {"$ref": "#/components/schemas/A"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"\xff\xfe\x00", "it is neither JSON nor YAML"),
        (b"{ a: [", "it is neither JSON nor YAML"),
        (b"<html>Log in</html>", "not an object at its top"),
        (b"[]", "not an object at its top"),
        (b"{}", "of OpenAPI version unknown; 3.0 and 3.1 can be used"),
        (b'{"swagger": "2.0", "paths": {}}', "of OpenAPI version 2.0"),
        (b'{"openapi": "4.0.0", "paths": {}}', "of OpenAPI version 4.0.0"),
        (document({}), "it has no operation"),
        (b'{"openapi": "3.0.3", "paths": []}', "it has no operation"),
        (b'{"openapi": "3.0.3", "paths": [1]}', "paths is not an object"),
        (document({"/p": {"get": operation(None)}}), "GET /api/p has no operationId; give it one"),
        (document({"/p": {"get": operation("!?")}}), "operationId '!?' no command can be named"),
        (document({"/p": {"get": operation(tags=["🐶"])}}), "of tag '🐶' and operationId 'pets_list'"),
        (
            document({"/p": {"get": operation("pets_list"), "post": operation("petsList")}}),
            "'pets_list' and 'petsList' both make the command `pets list`; rename one",
        ),
        (
            document({"/p": {"post": operation(requestBody={"content": {"text/csv": {}}})}}),
            "POST /api/p takes a body, but none of application/json: text/csv",
        ),
        (
            document({"/p": {"post": operation(requestBody=body(type="array", items={"type": "string"}))}}),
            "takes a body that is no JSON object but of type array; wrap it in one, or leave 'pets_list' out",
        ),
        (
            document({"/p": {"get": operation(parameters=[{"$ref": "other.yaml#/x"}])}}),
            "refers to other.yaml#/x, which is another document",
        ),
        (
            document({"/p": {"get": operation(parameters=[{"$ref": "#/components/parameters/X"}])}}),
            "refers to #/components/parameters/X, which is not there",
        ),
        (
            document(
                {"/p": {"post": operation(requestBody=body(allOf=[REFERENCE]))}},
                components={"schemas": {"A": {"allOf": [REFERENCE]}}},
            ),
            "POST /api/p: a schema goes in circles",
        ),
        (
            document(
                {"/p": {"get": operation(parameters=[{**parameter("tenant", "header"), "required": True}])}}
            ),
            "needs the header parameter 'tenant', which no command can give",
        ),
    ],
)
def test_a_document_that_cannot_be_used(data: bytes, words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        openapi.judge(data)
    assert words in str(caught.value)


def test_parameters_of_one_name(tmp_path: Path) -> None:
    parameters = [parameter("since"), parameter("SINCE")]
    with pytest.raises(DocumentError, match="shares its name with another one; rename it in the app"):
        make(document({"/p": {"get": operation(parameters=parameters)}}), tmp_path / "cli")


def test_what_the_generator_refuses_is_said_in_its_words(tmp_path: Path) -> None:
    data = document({"/p": {"get": operation(parameters=[parameter("x", "query", type="nonsense")])}})
    with pytest.raises(DocumentError, match="openapi-python-client"):
        make(data, tmp_path / "cli")


def test_a_document_is_fetched_from_a_file_and_not_beyond_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "openapi.json"
    file.write_bytes(b"x" * 100)
    assert openapi.fetch(str(file)) == b"x" * 100
    monkeypatch.setattr(openapi, "MAX_BYTES", 99)
    with pytest.raises(DocumentError, match=r"openapi.json is larger than .* MB; check that the URL"):
        openapi.fetch(str(file))
    for where in (str(tmp_path / "absent.json"), "http://127.0.0.1:9/schema/", "https://exa mple/"):
        with pytest.raises(DocumentError) as caught:
            openapi.fetch(where)
        assert where in str(caught.value)


def test_the_same_document_makes_the_same_files(tmp_path: Path) -> None:
    data = document(
        {
            "/p": {"get": operation()},
            "/p/{id}": {"get": operation("pets_show", parameters=[parameter("id", "path")])},
        }
    )
    made: list[dict[str, Any]] = []
    for name in ("one", "two"):
        place = make(data, tmp_path / name).place
        files = {
            str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()
        }
        commands = json.loads(files.pop("coachcli/commands.json"))
        made.append({**files, "commands": {**commands, "credentials": ""}})
    assert made[0] == made[1]
