"""Listen on ports of every address, and tell whoever asks where they have come to."""

from __future__ import annotations

import http.server
import socket
import sys
import threading


class Listener(http.server.ThreadingHTTPServer):
    """For both families."""

    address_family = socket.AF_INET6
    daemon_threads = True

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class Here(http.server.BaseHTTPRequestHandler):
    """Says where it is, and what it was sent."""

    def do_GET(self) -> None:
        body = f"reached {sys.argv[1]}\n{self.headers}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


for port in sys.argv[2:]:
    threading.Thread(target=Listener(("::", int(port)), Here).serve_forever).start()
