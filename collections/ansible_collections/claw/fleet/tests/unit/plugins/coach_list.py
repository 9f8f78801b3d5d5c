# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A coach list behind a real HTTP server, in memory, with faults to order."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "service-token-0123456789"
BASE = "/api/companion/v1/"

Fault = Callable[["Handler"], None]


def row(pk: object, /, **values: Any) -> dict[str, Any]:
    """A coach as Django lists her."""
    return {
        "pk": pk,
        "agent_id": f"coach-{pk}",
        "name": f"Coach {pk}",
        "vars": {},
        "wanted": "running",
        "generation": 1,
        "status": "pending",
        "observed_generation": 0,
        "reason": "",
        "gateway": None,
        "key_id": "",
        "key_sha256": "",
        "key_generation": 0,
        "key_wanted_generation": 1,
        **values,
    }


def settled(pk: object, gateway: str, /, **values: Any) -> dict[str, Any]:
    """A coach for whom nothing is to be done."""
    done = {"status": "active", "observed_generation": 1, "gateway": gateway, "key_generation": 1}
    return row(pk, **{**done, **values})


class CoachList:
    """The rows, the gateways, and what was asked; ``faults`` are given, one each, to the next requests."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.gateways: dict[str, dict[str, Any]] = {}
        self.service_tokens: dict[str, bool] = {}
        """By their hashes, whether they are good; beside TOKEN, which stands in the settings."""
        self.scopes: dict[str, list[str]] = {}
        """By the hashes of those that are good for these gateways' addresses alone."""
        self.configured = True
        self.faults: list[Fault | None] = []
        self.requests: list[tuple[str, str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.next_origin: str | None = None
        self.after_claim: dict[str, Any] = {}
        self.released = threading.Event()
        self.url = ""

    def add(self, *rows: dict[str, Any]) -> None:
        for item in rows:
            self.rows[item["pk"]] = item
            if isinstance(item.get("gateway"), str):
                self.gateways.setdefault(item["gateway"], {"capacity": 100})

    def etag(self) -> str:
        return f'"{hashlib.sha256(json.dumps(self.rows, default=str).encode()).hexdigest()[:16]}"'

    @property
    def writes(self) -> list[tuple[str, str, Any]]:
        return [request for request in self.requests if request[0] != "GET"]

    @contextmanager
    def serving(self) -> Iterator[CoachList]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"app": self}))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}{BASE}"
        try:
            yield self
        finally:
            self.released.set()
            server.shutdown()
            server.server_close()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """The contract, in the small."""

    app: CoachList

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body: Any = json.loads(self.rfile.read(length)) if length else None
        path = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(path.query).items()}
        self.parts = path.path.removeprefix(BASE).strip("/").split("/")
        self.app.requests.append((self.command, path.path.removeprefix(BASE), self.body))
        self.app.headers.append(dict(self.headers))
        fault = self.app.faults.pop(0) if self.app.faults else None
        if fault:
            fault(self)
        elif not self.known((self.headers.get("Authorization") or "").removeprefix("Bearer ")):
            self.answer(401, {"detail": "Invalid token."})
        else:
            self.route()

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any

    def known(self, token: str) -> bool:
        self.presented = _hash(token)
        return (token == TOKEN and self.app.configured) or self.app.service_tokens.get(self.presented, False)

    def route(self) -> None:
        match self.command, self.parts:
            case "GET", ["internal", "coaches"]:
                self.list_coaches()
            case "POST", ["internal", "coaches", pk, "claim"]:
                self.claim(int(pk))
            case "PATCH", ["internal", "coaches", pk, "status"]:
                self.status(int(pk))
            case _, ["internal", "gateways", name]:
                self.gateway(name)
            case _, ["internal", "service-tokens", digest]:
                self.service_token(digest)
            case _, ["internal", "set-key", agent_id]:
                self.set_key(agent_id)
            case _:
                self.raw(404, b"<html>Page not found</html>", "text/html")

    def list_coaches(self) -> None:
        etag = self.app.etag()
        if self.headers.get("If-None-Match") == etag:
            self.raw(304, b"", "application/json", ETag=etag)
            return
        start, size = int(self.query.get("cursor", 0)), int(self.query["page_size"])
        rows = [item for item in self.app.rows.values() if item["pk"] > start]
        following = None
        if len(rows) > size:
            origin = self.app.next_origin or f"http://{self.headers['Host']}"
            following = f"{origin}{BASE}internal/coaches/?page_size={size}&cursor={rows[size - 1]['pk']}"
        self.answer(200, {"next": following, "previous": None, "results": rows[:size]}, ETag=etag)

    def claim(self, pk: int) -> None:
        if pk not in self.app.rows:
            self.answer(404, {"detail": "No such coach."})
            return
        coach, wanted = self.app.rows[pk], self.body["gateway"]
        if coach["gateway"] not in (None, wanted):
            self.answer(409, {"detail": "Another gateway holds her.", "gateway": coach["gateway"]})
            return
        held = sum(other["gateway"] == wanted for other in self.app.rows.values())
        if held >= self.app.gateways.get(wanted, {"capacity": 100})["capacity"]:
            self.answer(409, {"detail": "The gateway is full.", "gateway": None})
            return
        coach["gateway"] = wanted
        if coach["status"] in ("pending", "error"):
            coach.update(status="provisioning", reason="")
        coach.update(self.app.after_claim)
        self.answer(200, coach)

    def status(self, pk: int) -> None:
        coach = self.app.rows.get(pk)
        if coach is None:
            self.answer(404, {"detail": "No such coach."})
        elif coach["gateway"] != self.body.get("gateway"):
            self.answer(409, {"detail": "Another gateway holds her.", "gateway": coach["gateway"]})
        elif self.body.get("observed_generation", 0) > coach["generation"]:
            self.answer(400, {"detail": "observed_generation is ahead."})
        else:
            coach.update(self.body)
            if coach["status"] == "removed":
                coach["gateway"] = None
            self.answer(200, coach)

    def set_key(self, agent_id: str) -> None:
        key = {"key_id": "", "key_sha256": "", "key_generation": 0, **(self.body or {})}
        key.pop("former_seconds", None)
        coach = next((item for item in self.app.rows.values() if item["agent_id"] == agent_id), None)
        changed = self.command == "POST"
        if coach is not None:
            changed = any(coach[field] != value for field, value in key.items())
            coach.update(key)
        self.answer(200, {"changed": changed, "for": agent_id})

    def gateway(self, name: str) -> None:
        known = self.app.gateways.get(name)
        if self.command == "PUT":
            told = {field: value for field, value in self.body.items() if "token" not in field}
            if "url" in told:
                told["url"] = told["url"].rstrip("/")
            if "token" in self.body:
                told |= {"token_sha256": _hash(self.body["token"]), "next_token_sha256": ""}
            if "next_token" in self.body:
                told["next_token_sha256"] = _hash(self.body["next_token"])
            known = {**(known or {"capacity": 100}), **told, "name": name}
            self.app.gateways[name] = known
        if known is None:
            self.answer(404, {"detail": "No such gateway."})
        else:
            self.answer(200, known)

    def service_token(self, digest: str) -> None:
        tokens = self.app.service_tokens
        if self.command == "PUT" and tokens.get(digest) is False:
            self.answer(409, {"detail": "This service token was revoked. Make a new one."})
        elif self.command == "PUT":
            new = digest not in tokens
            tokens.setdefault(digest, True)
            scope = self.body.get("gateways", self.app.scopes.get(digest, []))
            new |= scope != self.app.scopes.get(digest, [])
            self.app.scopes[digest] = scope
            self.answer(200, {"changed": new})
        elif digest == _hash(TOKEN) and self.app.configured and self.command == "DELETE":
            self.answer(409, {"detail": "Take it out of COACHLIST_SERVICE_TOKENS."})
        elif digest not in tokens and not (digest == _hash(TOKEN) and self.app.configured):
            self.answer(404, {"detail": "No such token."})
        elif self.command == "DELETE":
            changed, tokens[digest] = tokens[digest], False
            self.answer(200, {"changed": changed})
        elif tokens.get(digest) is False:
            self.answer(404, {"detail": "No such token."})
        else:
            told = {"token_sha256": digest, "presented": digest == self.presented}
            self.answer(200, {**told, "gateways": self.app.scopes.get(digest, [])})

    def answer(self, status: int, data: Any, **headers: str) -> None:
        self.raw(status, json.dumps(data).encode(), "application/json", None, **headers)

    def raw(self, status: int, body: bytes, kind: str, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Tests read ``requests`` instead."""


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def refuse(status: int, detail: str = "Because.", **headers: str) -> Fault:
    """A refusal in JSON."""
    return lambda handler: handler.answer(status, {"detail": detail}, **headers)


def send(body: bytes, status: int = 200, kind: str = "application/json") -> Fault:
    """Any bytes."""
    return lambda handler: handler.raw(status, body, kind)


def cut_off(handler: Handler) -> None:
    """Half of an answer."""
    handler.raw(200, b'{"next": null, "resul', "application/json", length=5000)


def hang_up(handler: Handler) -> None:
    """No answer at all."""
    handler.connection.close()


def endless(handler: Handler) -> None:
    """An answer that goes on for as long as somebody listens."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")


def never(handler: Handler) -> None:
    """An answer that comes after everybody has left."""
    handler.app.released.wait(30)
