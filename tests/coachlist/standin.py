"""A server where a gateway would be: a real socket, and whatever answer a test wants."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self


class Heard(NamedTuple):
    """A request that came in; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: Any


class Reply:
    """One answer under way. Streams are chunked, as the gateway's are."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        self.port: int = handler.client_address[1]
        """Of the other side: each connection has another."""

    def json(self, body: Any, status: int = 200) -> None:
        """A whole answer in JSON."""
        self.whole(json.dumps(body).encode(), "application/json; charset=utf-8", status)

    def whole(self, data: bytes, kind: str, status: int) -> None:
        """A whole answer."""
        self._handler.send_response(status)
        self._handler.send_header("Content-Type", kind)
        self._handler.send_header("Content-Length", str(len(data)))
        self._handler.end_headers()
        self._handler.wfile.write(data)

    def start(self) -> None:
        """Begin a stream of events."""
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._handler.end_headers()

    def chunk(self, data: bytes) -> None:
        """A part of the stream, on its way at once."""
        self._handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self._handler.wfile.flush()

    def end(self) -> None:
        """The end of the stream."""
        self._handler.wfile.write(b"0\r\n\r\n")

    def break_off(self) -> None:
        """Hang up in the middle."""
        self._handler.close_connection = True
        self._handler.connection.shutdown(socket.SHUT_RDWR)

    def wait_until_hung_up(self) -> None:
        """Return once the other side has closed the connection."""
        while self._handler.connection.recv(1024):
            pass
        self._handler.close_connection = True


class StandIn:
    """The server; `answer` is called for each request, in a thread of its own. With `tls` it speaks TLS."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.heard: list[Heard] = []
        self.answer: Callable[[Reply], None] = lambda reply: reply.json({"error": {"message": "unset"}}, 500)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.heard.append(Heard(self.path, headers, json.loads(self.rfile.read(length))))
                outer.answer(Reply(self))

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            # As many as call at once; Python's own five are fewer than a proxy takes.
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
