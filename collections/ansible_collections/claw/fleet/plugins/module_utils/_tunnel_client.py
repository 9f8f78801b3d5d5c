# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests of whoever keeps the app's knowledge of a tunnel true.

PRIVATE to claw.fleet: may change at any time.

It is beside `_tunnel` on a machine, where nothing but Python itself is.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_ASKED_SECONDS = 10
_MAX_BYTES = 65536


class TunnelError(Exception):
    """Why the app cannot be told where the gateway is; str() says what happened and what to do."""


class NotYet(TunnelError):
    """As above, but it may be otherwise in a moment."""


class Answer(NamedTuple):
    """What came back: status and body."""

    status: int
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as an object; empty where it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class Client:
    """Requests that follow nothing and wait no longer than they are told."""

    def __init__(self, ca_path: str = "", *, proxies: bool = False, at: str = "") -> None:
        """Trusts the system's authorities and those of ``ca_path``. With ``proxies`` the environment's apply; where there is
        none, whoever is asked is asked at the host ``at``."""
        try:
            context = ssl.create_default_context()
            if ca_path:
                context.load_verify_locations(ca_path)
        except OSError as error:
            raise TunnelError(f"tunnel_ca_path {ca_path} cannot be used: {error}") from None
        through = urllib.request.ProxyHandler(None if proxies else {})
        handler = _AtEdge(context, at) if at else urllib.request.HTTPSHandler(context=context)
        self._opener = urllib.request.build_opener(through, handler, _Stay())

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        seconds: float = _ASKED_SECONDS,
    ) -> Answer:
        """The answer, whatever its status. Raises NotYet where there is none."""
        data = None if body is None else json.dumps(body).encode()
        # Without this an edge may take Python for a robot.
        own = {
            "User-Agent": "claw.fleet",
            **({"Content-Type": "application/json"} if data is not None else {}),
        }
        sent = {**own, **(headers or {})}
        request = urllib.request.Request(url, data, sent, method=method)  # noqa: S310 - http or https, as settings have it
        try:
            with self._opener.open(request, timeout=seconds) as response:
                return Answer(response.status, response.read(_MAX_BYTES))
        except urllib.error.HTTPError as error:
            with error, contextlib.suppress(OSError, http.client.HTTPException):
                return Answer(error.code, error.read(_MAX_BYTES))
            return Answer(error.code, b"")
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise NotYet(str(reason) or type(reason).__name__) from None
        except ValueError:
            # Its words would hold the value.
            names = ", ".join(sorted(headers or {}))
            raise TunnelError(
                f"a header that is to be sent ({names}) has a line break in it, or what is not ASCII"
            ) from None


class _Stay(urllib.request.HTTPRedirectHandler):
    """A token goes where it was sent, and nowhere else."""

    def redirect_request(self, *_given: Any) -> None:
        return None


class _AtEdge(urllib.request.HTTPSHandler):
    """Requests to a name that nobody looks up."""

    def __init__(self, context: ssl.SSLContext, edge: str) -> None:
        super().__init__(context=context)
        self._tls, self._edge = context, edge

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        if req.host != urlsplit(req.full_url).netloc:
            # By a proxy, which does the looking up.
            return super().https_open(req)
        return self.do_open(partial(_EdgeConnection, self._tls, self._edge), req)


class _EdgeConnection(http.client.HTTPSConnection):
    """To another host that answers for the name too; where that is none, to the name's own."""

    def __init__(self, tls: ssl.SSLContext, edge: str, host: str, **more: Any) -> None:
        super().__init__(host, context=tls, **more)
        self._tls, self._edge = tls, edge

    def connect(self) -> None:
        try:
            plain = socket.create_connection((self._edge, self.port), self.timeout)
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
        except OSError:
            super().connect()
