# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks of one conversation, begun one behind the other.

OpenClaw makes a conversation of its own for each ask that finds none, and fails those that then find another's: of two
first asks at once, one is lost. From its first words on a turn's conversation is there, and OpenClaw has the others wait.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from django.core.cache import cache

from claw_fleet.coachlist import turned_away

WAIT_MAX = 20.0
"""Seconds that an ask waits for one that is ahead. No turn takes as long to begin, and nobody waits for one that died."""
_PAUSE = 0.05

_guard = threading.Lock()
_last: dict[str, threading.Event] = {}
"""Whether it has begun, of the ask of each conversation that came last."""


class Beginning:
    """The beginning of a turn. Those of one process begin in the order in which they came.

    Several processes wait for each other as far as they share Django's cache.
    """

    def __init__(self, conversation: str) -> None:
        """``conversation``: the gateway's key of it; empty for an ask that stands alone, which waits for nobody."""
        self._conversation = conversation
        self._key = f"coachlist-beginning-{conversation}"
        self._name = secrets.token_hex(8)
        self._begun = threading.Event()

    def wait(self) -> None:
        """Return when this turn may begin; `begun` has to follow, however it ends."""
        if not self._conversation:
            return
        late = time.monotonic() + WAIT_MAX
        with _guard:
            ahead = _last.get(self._conversation)
            _last[self._conversation] = self._begun
        if ahead is not None:
            ahead.wait(WAIT_MAX)
        while not cache.add(self._key, self._name, WAIT_MAX) and time.monotonic() < late:
            time.sleep(_PAUSE)

    def begun(self) -> None:
        """Let the next one begin. Done again it does nothing."""
        if not self._conversation or self._begun.is_set():
            return
        try:
            if cache.get(self._key) == self._name:
                cache.delete(self._key)
        finally:
            with _guard:
                if _last.get(self._conversation) is self._begun:
                    del _last[self._conversation]
                self._begun.set()


def noticed(chunks: Iterable[bytes], begun: Callable[[], None]) -> Iterator[bytes]:
    """The chunks of a stream of events, as they come; `begun` is called at the first words of an answer, or its end."""
    head: bytes | None = b""
    try:
        for chunk in chunks:
            if head is not None:
                head += chunk.replace(b"\r", b"")
                complete, _end, _rest = head.rpartition(b"\n\n")
                if not turned_away.nothing_told(complete):
                    head = None
                    begun()
            yield chunk
    finally:
        begun()
