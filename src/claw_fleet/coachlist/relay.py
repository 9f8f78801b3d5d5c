# SPDX-License-Identifier: GPL-3.0-or-later
"""Passes a gateway's event stream on as it comes."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterator

import httpx
from django.db import connections

from claw_fleet.coachlist import conversations, turned_away

logger = logging.getLogger(__name__)

# A comment, which readers of event streams ignore. Sending it finds out whether the reader has gone, and
# keeps proxies that close silent connections from closing this one.
KEEPALIVE = b": keep-alive\n\n"
# Chunks read ahead of a slow reader; beyond that the gateway waits.
AHEAD = 16


def error_event(code: str, message: str) -> bytes:
    """An event that tells the reader the stream ended in failure."""
    data = json.dumps({"type": "error", "code": code, "message": message}, ensure_ascii=False)
    return f"event: error\ndata: {data}\n\n".encode()


@contextlib.contextmanager
def _tidy() -> Iterator[None]:
    """Leave no connection to a database in a thread that is not one of Django's."""
    try:
        yield
    finally:
        connections.close_all()


class Relay:
    """Iterates over the bytes of an upstream response, each chunk as soon as it is there.

    A thread reads, because reading blocks: the iterator can so notice silence, and `close()` can end the
    upstream at any time. What WSGI servers call when the client is gone is `close()`.
    """

    def __init__(
        self,
        upstream: httpx.Response,
        *,
        gateway: str,
        keepalive: float,
        again: Callable[[], httpx.Response | None] = lambda: None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        """``again``: asks once more, for an ask that was turned away; ``begun``: called once it has begun, or ended.

        Both run in the relay's thread.
        """
        self._upstream = upstream
        self._again = again
        self._begun = begun
        self._gateway = gateway
        self._keepalive = keepalive
        self._chunks: queue.Queue[bytes | Exception | None] = queue.Queue(maxsize=AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"relay-{gateway}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        last: Exception | None = None
        try:
            answer = turned_away.continued(self._upstream.iter_bytes(), self._ask_again)
            for chunk in conversations.noticed(answer, self._has_begun):
                if self._closed.is_set():
                    return
                self._chunks.put(chunk)
        except Exception as exc:
            # Whatever it is belongs to the reader; this thread has nobody to tell.
            last = exc
        finally:
            self._upstream.close()
            if not self._closed.is_set():
                self._chunks.put(last)

    def _has_begun(self) -> None:
        with _tidy():
            self._begun()

    def _ask_again(self) -> Iterator[bytes] | None:
        with _tidy():
            upstream = None if self._closed.is_set() else self._again()
        if upstream is None:
            return None
        self._upstream.close()
        self._upstream = upstream
        if self._closed.is_set():
            upstream.close()
            return None
        return upstream.iter_bytes()

    def __iter__(self) -> Iterator[bytes]:
        tail = b"\n\n"  # nothing sent yet: whatever comes begins an event
        try:
            while True:
                between_events = tail.endswith((b"\n\n", b"\r\n\r\n"))
                try:
                    chunk = self._chunks.get(timeout=self._keepalive)
                except queue.Empty:
                    if between_events:
                        yield KEEPALIVE
                    continue
                if chunk is None:
                    return
                if isinstance(chunk, Exception):
                    yield (b"" if between_events else b"\n\n") + self._failure(chunk)
                    return
                tail = (tail + chunk)[-4:]
                yield chunk
        finally:
            self.close()

    def _failure(self, exc: Exception) -> bytes:
        if not isinstance(exc, httpx.HTTPError):
            logger.error("relaying from gateway %s failed", self._gateway, exc_info=exc)
        else:
            logger.warning("gateway %s broke off its answer: %s", self._gateway, type(exc).__name__)
        if isinstance(exc, httpx.TimeoutException):
            return error_event(
                "gateway_silent", f"The gateway “{self._gateway}” stopped answering. Ask again."
            )
        return error_event(
            "gateway_lost", f"The connection to the gateway “{self._gateway}” broke off. Ask again."
        )

    def close(self) -> None:
        """End the upstream, which ends the agent's run there. Done again it does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        stream = self._upstream.extensions.get("network_stream")
        connection = stream.get_extra_info("socket") if stream is not None else None
        if isinstance(connection, socket.socket):
            # Closing a socket does not wake the thread that reads it; shutting it down does.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(queue.Empty):
            while True:
                self._chunks.get_nowait()
