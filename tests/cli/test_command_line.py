"""The command line at work, against a server that answers what it was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from .documents import KEY, CommandLine, body, document, make, operation, parameter

pytestmark = pytest.mark.slow

PAGE = {
    "type": "object",
    "properties": {"next": {"type": "string"}, "results": {"type": "array", "items": {}}},
}
ANSWERS_PAGES = {"200": {"description": "", "content": {"application/json": {"schema": PAGE}}}}
PET = {
    "allOf": [{"required": ["name"], "type": "object", "properties": {"name": {"type": "string"}}}],
    "properties": {
        "legs": {"type": "integer", "enum": [2, 4]},
        "kind": {"type": "string", "enum": ["cat", "dog"]},
        "born": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "tame": {"type": "boolean"},
        "weight": {"type": "number"},
        "output": {"type": "string"},
        "id": {"type": "integer", "readOnly": True},
    },
}
DOCUMENT = document(
    {
        "/pets/": {
            "get": operation(
                "pets_list",
                summary="All pets",
                description="Of everybody.",
                parameters=[
                    parameter("page", type="integer"),
                    parameter("since", format="date"),
                    parameter("kind", enum=["cat", "dog"]),
                    parameter("from"),
                    {**parameter("tag"), "schema": {"type": "array", "items": {"type": "string"}}},
                    {
                        **parameter("day"),
                        "schema": {"type": "array", "items": {"type": "string", "format": "date"}},
                    },
                    parameter("legs", type="integer", enum=[2, 4]),
                ],
                responses=ANSWERS_PAGES,
            ),
            "post": operation("pets_create", requestBody=body(**PET)),
        },
        "/pets/{pet-id}/": {
            "parameters": [parameter("pet-id", "path")],
            "get": operation("pets.show!"),
            "delete": operation("DeletePet"),
        },
        "/health/": {"get": {"operationId": "health", "responses": {"200": {"description": ""}}}},
    },
    tags=[{"name": "pets", "description": "All the animals."}],
)


class Api:
    """Says back what it was asked, or what it is told to say."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.keys: set[str] = set()
        self.answers: list[tuple[int, str, bytes]] = []
        self.url = ""

    def answer(self, status: int, data: Any, kind: str = "application/json") -> None:
        """What the next request is answered with."""
        self.answers.append(
            (status, kind, data.encode() if isinstance(data, str) else json.dumps(data).encode())
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Made once; it keeps nothing."""
    return make(DOCUMENT, tmp_path_factory.mktemp("made") / "cli", name="petctl")


@pytest.fixture
def api(made: CommandLine) -> Iterator[Api]:
    """The API that the command line has a key for."""
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            sent = json.loads(self.rfile.read(length)) if length else None
            api.asked.append((self.command, self.path, sent))
            api.keys.add(self.headers["Authorization"])
            status, kind, data = api.answers.pop(0) if api.answers else (200, "application/json", b"[]")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_DELETE = do_GET

        def log_message(self, *_arguments: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api.url = f"http://127.0.0.1:{server.server_port}/api/"
        made.key(api.url)
        yield api
        server.shutdown()


def test_help_at_each_level(made: CommandLine) -> None:
    top, group = made.run("--help"), made.run("pets", "-h")
    assert "Pets." in top.stdout and "All the animals." in top.stdout and "Exit status: 0 done" in top.stdout
    assert all(verb in group.stdout for verb in ("create", "delete-pet", "list", "show", "All pets"))
    verb = made.run("pets", "list", "--help").stdout
    assert "petctl pets list" in verb and "Of everybody." in verb
    assert "[cat|dog]" in verb and "May be given more than once." in verb and "--all" in verb
    assert "--all" not in made.run("pets", "show", "--help").stdout


def test_parameters_arrive(made: CommandLine, api: Api) -> None:
    words = [
        "pets",
        "list",
        "--page",
        "2",
        "--since",
        "2026-01-31",
        "--kind",
        "cat",
        "--from",
        "here",
        "--tag",
        "a",
        "--tag",
        "b",
        "--day",
        "2026-02-03",
        "--legs",
        "4",
    ]
    assert made.told(*words) == []
    method, path, sent = api.asked.pop()
    assert (method, urlsplit(path).path, sent) == ("GET", "/api/pets/", None)
    given = [
        ("page", "2"),
        ("since", "2026-01-31"),
        ("kind", "cat"),
        ("from", "here"),
        ("tag", "a"),
        ("tag", "b"),
        ("day", "2026-02-03"),
        ("legs", "4"),
    ]
    assert sorted(parse_qsl(urlsplit(path).query)) == sorted(given)
    made.told("pets", "show", "a/b ?")
    assert api.asked.pop()[1] == "/api/pets/a%2Fb%20%3F/"
    made.told("default", "health")
    assert api.keys == {f"Bearer {KEY}"}


def test_a_body_arrives(made: CommandLine, api: Api) -> None:
    words = [
        "--legs",
        "2",
        "--name",
        "Rex",
        "--kind",
        "dog",
        "--born",
        "2020-02-03",
        "--tags",
        '["a", "b"]',
        "--no-tame",
    ]
    api.answer(201, {"id": 7})
    assert made.told("pets", "create", *words, "--weight", "2.5", "--set-output", "x") == {"id": 7}
    whole = {
        "name": "Rex",
        "kind": "dog",
        "born": "2020-02-03",
        "tags": ["a", "b"],
        "tame": False,
        "weight": 2.5,
        "legs": 2,
    }
    assert api.asked.pop() == ("POST", "/api/pets/", {**whole, "output": "x"})
    made.told("pets", "create", "--json", '{"name": "Tom", "more": [1]}', "--kind", "cat")
    assert api.asked.pop()[2] == {"name": "Tom", "more": [1], "kind": "cat"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pets", "list", "--page", "two"], "'two' is not a valid integer"),
        (["pets", "list", "--since", "yesterday"], "is no date"),
        (["pets", "list", "--kind", "cow"], "'cow' is not one of 'cat', 'dog'"),
        (["pets", "show"], "Missing argument 'PET-ID'"),
        (["pets", "create"], "Missing option '--name'"),
        (["pets", "create", "--json", "[]"], "--json must be a JSON object"),
        (["pets", "create", "--json", "{"], "is not JSON"),
        (["pets", "create", "--name", "Rex", "--json", '{"born": "soon"}'], "what was given does not fit"),
        (["pets", "eat"], "No such command 'eat'"),
    ],
)
def test_wrong_usage_asks_nothing(made: CommandLine, api: Api, words: list[str], said: str) -> None:
    done = made.run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert api.asked == []


@pytest.mark.parametrize(
    ("status", "answer", "code", "said"),
    [
        (400, {"detail": "name is too long"}, 3, "petctl: name is too long"),
        (422, {"name": ["too long"]}, 3, 'the API answers 422: {"name": ["too long"]}'),
        (401, {"detail": "The key is not valid."}, 5, "The key is not valid."),
        (403, {}, 5, "the API answers 403"),
        (404, {"detail": "Not found."}, 4, "Not found."),
        (429, {"detail": "Slow down."}, 3, "Slow down."),
        (500, "<h1>Server Error</h1>", 6, "the API answers 500: <h1>Server Error</h1>"),
        (302, "", 6, "the API answers 302"),
    ],
)
def test_a_refusal(made: CommandLine, api: Api, status: int, answer: Any, code: int, said: str) -> None:
    api.answer(status, answer, "application/json" if isinstance(answer, dict) else "text/html")
    done = made.run("pets", "show", "7")
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert KEY not in done.stderr and "Traceback" not in done.stderr


def test_pages(made: CommandLine, api: Api) -> None:
    elsewhere = "http://elsewhere.example/api/pets/?cursor=b%26c&page=2"
    pages = [{"next": elsewhere, "results": [1, 2]}, {"next": None, "results": [3]}]
    for page in pages:
        api.answer(200, page)
    assert made.told("pets", "list", "--all") == {"next": None, "results": [1, 2, 3]}
    assert api.asked[-1][1] == "/api/pets/?cursor=b%26c&page=2"
    api.answer(200, pages[0])
    assert made.told("pets", "list") == pages[0]
    assert len(api.asked) == 3


@pytest.mark.parametrize(
    "second",
    [
        {"next": "http://x/?page=2", "results": []},
        {"next": "http://x/page/3/", "results": []},
        [],
        {"next": None},
    ],
)
def test_pages_that_cannot_be_followed(made: CommandLine, api: Api, second: Any) -> None:
    for page in ({"next": "http://x/?page=2", "results": [1]}, second):
        api.answer(200, page)
    done = made.run("pets", "list", "--all")
    assert (done.returncode, done.stdout) == (6, "") and "Traceback" not in done.stderr
    assert len(api.asked) == 2


def test_an_api_whose_paths_share_more_than_its_base(tmp_path: Path, api: Api) -> None:
    paths = {
        "/v1/pets/": {"get": operation()},
        "/v1/pets/{id}/": {"get": operation("pets_show", parameters=[parameter("id", "path")])},
    }
    made = make(document(paths), tmp_path / "cli")
    made.key(f"{api.url}v1/")
    assert made.told("pets", "show", "3") == []
    made.key(f"{api.url}v1")
    assert made.told("pets", "list") == []
    assert [path for _method, path, _sent in api.asked] == ["/api/v1/pets/3/", "/api/v1/pets/"]


def test_tables_and_text(made: CommandLine, api: Api) -> None:
    rows = [{"id": 1, "name": "007"}, {"id": 2, "name": None, "tags": ["ä"]}]
    for answer, lines in (
        (rows, ["id    name    tags", "----  ------  ------", "1     007", '2             ["ä"]']),
        ({"next": None, "results": rows[:1]}, ["id    name", "----  ------", "1     007"]),
        ({"id": 1, "ok": True}, ["id  1", "ok  true"]),
        (["a", 1], ["a", "1"]),
        ([], ["(none)"]),
    ):
        api.answer(200, answer)
        done = made.run("pets", "list", "--output", "table")
        assert [line.rstrip() for line in done.stdout.splitlines()] == lines, done.stderr
    api.answer(200, "plain ü\n", "text/plain; charset=utf-8")
    assert made.run("pets", "show", "1").stdout == "plain ü\n\n"
    api.answer(204, "")
    assert made.run("pets", "delete-pet", "1").stdout == ""


def test_without_a_key_or_an_api(made: CommandLine, api: Api) -> None:
    made.key("http://127.0.0.1:9/api/")
    done = made.run("pets", "list")
    assert done.returncode == 6 and "the API cannot be reached" in done.stderr
    made.key("http://127.0.0.1:9/other/")
    done = made.run("pets", "list")
    assert done.returncode == 5 and "what is known of the API lies below /api/" in done.stderr
    made.key(api.url, f"{KEY}\n")
    done = made.run("pets", "list")
    assert done.returncode == 5 and KEY not in done.stderr
    made.key("http://[broken/api/")
    done = made.run("pets", "list")
    assert done.returncode in (5, 6) and "Traceback" not in done.stderr
    for content in ("", f'{{"api_key": "{KEY}"', "[]", f'{{"api_key": "{KEY}"}}'):
        made.credentials.write_text(content)
        done = made.run("pets", "list")
        assert done.returncode == 5 and "the fleet has to provide it" in done.stderr
        assert KEY not in done.stderr
    assert api.asked == []


def test_what_is_left_out_is_not_there(tmp_path: Path) -> None:
    made = make(DOCUMENT, tmp_path / "cli", ("default", "DeletePet"))
    assert "default" not in made.run("--help").stdout
    assert made.run("pets", "delete-pet", "1").returncode == 2
