"""The coach list behind a server that fails on demand: a reverse proxy for the tests alone."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import httpx

LIST = "/internal/coaches/"
_PIECE = b" " * 2**16


@dataclass
class Gate:
    """A request that is kept waiting: those whose "METHOD path body" the pattern is found in; what the last had in its body."""

    pattern: str
    body: str = ""
    arrived: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float = 120) -> None:
        """Wait until the request is there."""
        assert self.arrived.wait(seconds), f"nobody came to {self.pattern} within {seconds:.0f} s"


@dataclass
class Befallen:
    """What befalls the answers to which requests, and how many of them it still will."""

    pattern: str = ""
    fault: str = ""
    left: int = 0

    def next(self, what: str) -> str:
        """What befalls the answer to this one."""
        if not self.left or not re.search(self.pattern, what):
            return ""
        self.left -= 1
        return self.fault


class FaultyList:
    """Forwards everything to the true list; what it does to reads of the list is set by `fault`.

    Faults: down, empty, html, half (a body that breaks off), late (an answer after everybody has left), huge (200 MB),
    second-page-500, or an HTTP status. Half, late and huge can befall answers to requests of another kind instead, after
    these were forwarded (`befall`). With `expires_after` the service token is refused from the first request on that the
    pattern is found in. Requests that are to wait are kept at a gate (`gate`).
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.fault = ""
        self.befallen = Befallen()
        self.expires_after = ""
        self.expired = False
        self.gates: list[Gate] = []
        self.left = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> FaultyList:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.left.set()
        self.server.shutdown()
        self.server.server_close()

    def befall(self, pattern: str, fault: str, times: int) -> None:
        """Have a fault befall the next so many answers to requests in whose "METHOD path" the pattern is found."""
        self.befallen = Befallen(pattern, fault, times)

    @contextmanager
    def gate(self, pattern: str) -> Iterator[Gate]:
        """Keep the requests that the pattern is found in waiting until the block is left."""
        gate = Gate(pattern)
        self.gates.append(gate)
        try:
            yield gate
        finally:
            self.gates.remove(gate)
            gate.opened.set()


class Behind(NamedTuple):
    """The list behind a server that fails on demand, and an inventory that reads it there."""

    server: FaultyList
    inventory: list[Path]


class _Handler(BaseHTTPRequestHandler):
    owner: FaultyList

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        fault = self.owner.fault if self.path.split("?")[0].endswith(LIST) else ""
        if fault == "down":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.isdigit():
            self._answer(int(fault), json.dumps({"detail": "a fault of the test"}).encode())
        elif fault == "html":
            self._answer(200, b"<html><body>Sign in</body></html>", "text/html")
        elif fault == "late":
            self.owner.left.wait(120)
        elif fault == "huge":
            self._answer_huge()
        elif fault == "empty":
            self._answer(200, json.dumps({"next": None, "previous": None, "results": []}).encode())
        elif fault == "second-page-500" and "cursor" in self.path:
            self._answer(500, b"{}")
        else:
            self._forward("GET", half=fault == "half")

    def do_POST(self) -> None:
        self._forward("POST")

    def do_PUT(self) -> None:
        self._forward("PUT")

    def do_PATCH(self) -> None:
        self._forward("PATCH")

    def do_DELETE(self) -> None:
        self._forward("DELETE")

    def _forward(self, method: str, *, half: bool = False) -> None:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        what = f"{method} {self.path} {content.decode(errors='replace')}"
        for gate in [gate for gate in self.owner.gates if re.search(gate.pattern, what)]:
            gate.body = content.decode(errors="replace")
            gate.arrived.set()
            gate.opened.wait(120)
        if self.owner.expires_after and re.search(self.owner.expires_after, what):
            self.owner.expired = True
        if self.owner.expired:
            self._answer(401, json.dumps({"detail": "Invalid token."}).encode())
            return
        url = self.owner.upstream + self.path
        if self.owner.fault == "second-page-500":
            url = re.sub(r"[?&]page_size=\d+", "", url)
            url += ("&" if "?" in url else "?") + "page_size=1"
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() in ("authorization", "content-type")
        }
        answer = httpx.request(method, url, content=content, headers=headers, timeout=60, trust_env=False)
        fault = self.owner.befallen.next(f"{method} {self.path}")
        if fault == "late":
            self.owner.left.wait(70)
        if fault == "huge":
            self._answer_huge()
            return
        # The list names its own pages by its own address.
        body = answer.content.replace(self.owner.upstream.encode(), self.owner.url.encode())
        with suppress(OSError):
            self._answer(
                answer.status_code, body, answer.headers.get("content-type", ""), half=half or fault == "half"
            )

    def _answer_huge(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(200 * 2**20))
        self.end_headers()
        # Whoever does not want that much hangs up.
        with suppress(OSError):
            for _piece in range(200 * 2**20 // len(_PIECE)):
                self.wfile.write(_PIECE)

    def _answer(
        self, status: int, body: bytes, kind: str = "application/json", *, half: bool = False
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
