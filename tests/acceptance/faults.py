"""The coach list behind a server that fails on demand: a reverse proxy for the tests alone."""

from __future__ import annotations

import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import httpx

LIST = "/internal/coaches/"


class FaultyList:
    """Forwards everything to the true list; what it does to reads of the list is set by `fault`.

    Faults: down, empty, html, half (a body that breaks off), second-page-500, or an HTTP status.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.fault = ""
        handler = type("Handler", (_Handler,), {"owner": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> FaultyList:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()


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
        length = int(self.headers.get("content-length") or 0)
        url = self.owner.upstream + self.path
        if self.owner.fault == "second-page-500":
            url = re.sub(r"[?&]page_size=\d+", "", url)
            url += ("&" if "?" in url else "?") + "page_size=1"
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() in ("authorization", "content-type")
        }
        answer = httpx.request(
            method, url, content=self.rfile.read(length), headers=headers, timeout=60, trust_env=False
        )
        # The list names its own pages by its own address.
        body = answer.content.replace(self.owner.upstream.encode(), self.owner.url.encode())
        self._answer(answer.status_code, body, answer.headers.get("content-type", ""), half=half)

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
