"""A coach list of any length: the protocol of the list (pages, cursor, ETag, token), the pages made beforehand.

What it does not prove: how fast Django makes those pages. It measures the reader alone, and hardest, because
the faster the pages come the more the reader's own work weighs.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN = "the-token-of-the-benchmarks"
PATH = "/api/companion/v1/internal/coaches/"
PAGE_SIZE = 500
"""What the fleet asks for when nothing else is said."""


def coach(number: int, gateway: str) -> dict[str, object]:
    """A coach as Django lists her when nothing is to be done for her."""
    agent_id = f"coach-{number:05}"
    return {
        "pk": number,
        "agent_id": agent_id,
        "name": f"Coach {number} Müller",
        "vars": {"companion_name": f"Companion {number}", "tone": "warm", "languages": ["de", "en"]},
        "wanted": "running",
        "generation": 3,
        "status": "active",
        "observed_generation": 3,
        "reason": "",
        "gateway": gateway,
        "key_id": hashlib.sha256(agent_id.encode()).hexdigest()[:12],
        "key_sha256": hashlib.sha256(agent_id.encode()).hexdigest(),
        "key_generation": 1,
        "key_wanted_generation": 1,
    }


class ListServer:
    """A list of so many coaches, evenly on so many gateways."""

    def __init__(self, coaches: int, gateways: int) -> None:
        self.gateways = [f"gw-{number:04}" for number in range(gateways)]
        self.url = ""
        self.etag = '"1"'
        self._pages = [b""] * max(1, -(-coaches // PAGE_SIZE))
        self._rows = [
            coach(number + 1, self.gateways[number % len(self.gateways)]) for number in range(coaches)
        ]

    def change(self) -> None:
        """It is another list from now on, by its tag."""
        self.etag = f'"{int(self.etag[1:-1]) + 1}"'

    @contextmanager
    def serving(self) -> Iterator[ListServer]:
        """On a free port of loopback."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"owner": self}))
        server.daemon_threads = True
        origin = f"http://127.0.0.1:{server.server_port}"
        self.url = origin + PATH.removesuffix("internal/coaches/")
        self._make(origin)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def page(self, number: int) -> bytes:
        """A page by its number, from 0."""
        return self._pages[number]

    def _make(self, origin: str) -> None:
        last = len(self._pages) - 1
        for number in range(last + 1):
            following = f"{origin}{PATH}?cursor={number + 1}&page_size={PAGE_SIZE}" if number < last else None
            rows = self._rows[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
            page = {"next": following, "previous": None, "results": rows}
            # Compact and in UTF-8, as Django REST framework writes it.
            self._pages[number] = json.dumps(page, ensure_ascii=False, separators=(",", ":")).encode()


class _Handler(BaseHTTPRequestHandler):
    owner: ListServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, b'{"detail":"Invalid token."}')
        elif parts.path != PATH:
            self._answer(404, b'{"detail":"Not found."}')
        elif self.headers.get("If-None-Match") == self.owner.etag:
            self._answer(304, b"")
        else:
            self._answer(200, self.owner.page(int(query.get("cursor", ["0"])[0])))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", self.owner.etag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
