"""Documents of which no command line can be made: which place is wrong, and what to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.plugin_utils import openapi, openapi_source
from ansible_collections.claw.fleet.plugins.plugin_utils.openapi_source import DocumentError

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
        (b"a: &a {b: *a}", "it has aliases (*); write it without"),
        (b"a: " + b"9" * 5000, "it is neither JSON nor YAML"),
        (document({"/p": {"get": []}}), "GET /api/p: get is not an object"),
        (document({"/p": {"get": operation(tags="pets")}}), "tags is not a list"),
        (document({"/p": {"get": operation()}}, info="x"), "info is not an object"),
        (document({"/p": {"get": operation(parameters=5)}}), "GET /api/p: parameters is not a list"),
        (document({"/p": {"get": operation(parameters=[5])}}), "GET /api/p: an object is missing"),
        (document({"/p": {"get": operation()}}, tags=["pets"]), "it is no valid OpenAPI document"),
        (document({"/p": {"post": operation(requestBody=body(required=True))}}), "required is not a list"),
        (document({"/p": {"$ref": "#/nowhere"}}), "/api/p refers to #/nowhere, which is not there"),
        (
            document({"/p": {"get": operation(parameters=[parameter("filter", type="object")])}}),
            "the query parameter 'filter' is an object, which no command can give; leave 'pets_list' out",
        ),
        (b"{}", "of OpenAPI version unknown; 3.0 and 3.1 can be used"),
        (b'{"swagger": "2.0", "paths": {}}', "of OpenAPI version 2.0"),
        (b'{"openapi": "4.0.0", "paths": {}}', "of OpenAPI version 4.0.0"),
        (document({}), "it has no operation"),
        (b'{"openapi": "3.0.3", "paths": []}', "paths is not an object"),
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
    with pytest.raises(DocumentError, match="where another one is called alike rename it in the app"):
        make(document({"/p": {"get": operation(parameters=parameters)}}), tmp_path / "cli")


def test_what_the_generator_refuses_is_said_in_its_words(tmp_path: Path) -> None:
    data = document({"/p": {"get": operation(parameters=[parameter("x", "query", type="nonsense")])}})
    with pytest.raises(
        DocumentError, match=r"(?i)cannot use it.*nonsense|made nothing of 'pets_list'.*nonsense"
    ):
        make(data, tmp_path / "cli")


def test_a_document_is_fetched_from_a_file_and_not_beyond_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "openapi.json"
    file.write_bytes(b"x" * 100)
    assert openapi_source.fetch(str(file)) == b"x" * 100
    monkeypatch.setattr(openapi_source, "MAX_BYTES", 99)
    with pytest.raises(DocumentError, match=r"openapi.json is larger than .* MB; check that the URL"):
        openapi_source.fetch(str(file))
    for where in (str(tmp_path / "absent.json"), "http://127.0.0.1:9/schema/", "https://exa mple/"):
        with pytest.raises(DocumentError) as caught:
            openapi_source.fetch(where)
        assert where in str(caught.value)


def test_yaml_means_what_json_does(tmp_path: Path) -> None:
    text = """
openapi: 3.0.3
info: {title: Pets, version: 2026-01-02}
paths:
  /api/pets/:
    get:
      operationId: pets_list
      tags: [pets]
      parameters:
        - {name: on, in: query, schema: {type: string, enum: [yes, no]}}
      responses: {200: {description: x}, default: {description: y}}
"""
    (verb,) = openapi.judge(text.encode()).verbs
    assert (verb.options[0].name, verb.options[0].choices) == ("on", ("yes", "no"))


def test_a_body_of_which_nothing_is_known(tmp_path: Path) -> None:
    anything = {"required": True, "content": {"application/json": {"schema": {}}}}
    with pytest.raises(
        DocumentError, match="is no object that a client can be generated for; describe its properties"
    ):
        make(document({"/p": {"post": operation(requestBody=anything)}}), tmp_path / "cli")


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A server whose /schema/ is somewhere else, and the tokens that arrived there."""
    tokens: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/schema/":
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{server.server_port}/other/")
            elif self.path == "/other/":
                tokens.append(self.headers["Authorization"])
                self.send_response(200)
            else:
                self.send_response(401)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", tokens
        server.shutdown()


def test_the_token_goes_nowhere_else_and_is_never_shown(
    elsewhere: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    url, tokens = elsewhere
    assert openapi_source.fetch(f"{url}/schema/") == b"" and tokens == [None]
    for path, token, words in (
        ("schema", "SECRET", "It leads elsewhere; set openapi to that place"),
        ("closed", "SECRET\n", "Check openapi_token"),
        ("closed", "SEC\nRET", "openapi_token has a character that no bearer token has"),
        ("closed", "SECRÉT", "openapi_token has a character that no bearer token has"),
    ):
        with pytest.raises(DocumentError) as caught:
            openapi_source.fetch(f"{url}/{path}/", token=token)
        assert words in str(caught.value) and "SEC" not in str(caught.value)
    assert tokens == [None]


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
