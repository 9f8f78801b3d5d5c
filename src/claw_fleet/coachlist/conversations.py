# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks of one conversation, begun one behind the other.

OpenClaw makes a conversation of its own for each ask that finds none, and fails those that then find another's: of two
first asks at once, one is lost. From its first words on a turn's conversation is there, and OpenClaw has the others wait.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from django.core.cache import cache

from claw_fleet.coachlist import turned_away

logger = logging.getLogger(__name__)

WAIT_MAX = 20.0
"""Seconds that an ask waits for the one ahead. After that the conversation is there, or the one ahead has died."""
_PAUSE = 0.1
_MISSES_MAX = 3

_guard = threading.Lock()
_last: dict[str, threading.Event] = {}
"""For each conversation the event of the ask that came last; it is set once that has begun."""


class Beginning:
    """The beginning of a turn. Those of one process begin in the order in which they came.

    Several processes wait for each other as far as they share Django's cache. A cache that fails costs no answer: then
    they do not.
    """

    def __init__(self, conversation: str) -> None:
        """``conversation``: the gateway's key of it; empty for an ask that stands alone, which waits for nobody."""
        self._conversation = conversation
        self._key = f"coachlist-beginning-{conversation}"
        self._name = secrets.token_hex(8)
        self._begun = threading.Event()

    def wait(self) -> bool:
        """Return when this turn may begin, and whether that took a while; the caller must call `begun` afterwards."""
        if not self._conversation:
            return False
        late = time.monotonic() + WAIT_MAX
        with _guard:
            ahead = _last.get(self._conversation)
            _last[self._conversation] = self._begun
        if ahead is not None:
            ahead.wait(WAIT_MAX)
        try:
            return self._wait_for_other_processes(late) or ahead is not None
        except Exception:
            logger.exception("Django's cache fails, so processes do not wait for each other's asks")
            return ahead is not None

    def _wait_for_other_processes(self, late: float) -> bool:
        waited, misses = False, 0
        while not cache.add(self._key, self._name, WAIT_MAX) and time.monotonic() < late:
            # Where nobody has it and yet it cannot be had, the cache keeps nothing at the moment, and does not say so.
            misses += cache.get(self._key) is None
            if misses == _MISSES_MAX:
                break
            waited = True
            time.sleep(_PAUSE)
        return waited

    def begun(self) -> None:
        """Let the next one begin. Done again it does nothing."""
        if not self._conversation or self._begun.is_set():
            return
        try:
            if cache.get(self._key) == self._name:
                cache.delete(self._key)
        except Exception:
            logger.exception("Django's cache fails, so other processes wait up to %g s", WAIT_MAX)
        finally:
            with _guard:
                if _last.get(self._conversation) is self._begun:
                    del _last[self._conversation]
                self._begun.set()


def noticed(chunks: Iterable[bytes], begun: Callable[[], None]) -> Iterator[bytes]:
    """The chunks of a stream of events, as they come; `begun` is called after the first words of an answer, or its end."""
    head: bytes | None = b""
    try:
        for chunk in chunks:
            yield chunk
            if head is not None:
                head += chunk.replace(b"\r", b"")
                complete, _end, _rest = head.rpartition(b"\n\n")
                if not turned_away.nothing_told(complete):
                    head = None
                    begun()
    finally:
        begun()
