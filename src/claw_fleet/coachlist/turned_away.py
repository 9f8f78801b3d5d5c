# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks that a gateway takes and then turns away, because its token has changed before their turn had begun.

Nothing was done for them, so they can be asked again with the token of now. A stream has begun by then: what follows
in its place has to look like its continuation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

# OpenClaw's words, in the version that the fleet pins. Its codes for this are also those of a provider's refusal.
_WORDS = b"Gateway requester authority changed"
# It says no more than this where it looked for another model before it gave up.
_NO_WORDS = b'"message":"internal error"'
_FAILED = b"event: response.failed\n"
# What comes before the turn has begun, and what fills a silence.
_HEAD = re.compile(rb":|event: response\.(created|in_progress|output_item\.added|content_part\.added)\n")
_HEAD_MAX = 65_536
_IDS = re.compile(rb'"id": ?"((?:resp|msg)_[A-Za-z0-9_-]+)"')
_BOUNDARIES = (b"\n\n", b"\r\n\r\n")


def says_so(failure: bytes) -> bool:
    """Whether a failure with nothing of an answer before it can be that of an ask that was turned away.

    One without words can also be a turn that failed; which of both, only a token that has changed meanwhile tells.
    """
    return _WORDS in failure or _NO_WORDS in failure.replace(b'": "', b'":"')


def continued(chunks: Iterable[bytes], again: Callable[[], Iterable[bytes] | None]) -> Iterator[bytes]:
    """The chunks of a stream of events, as they come; where it was turned away, those of the one `again` opens.

    `again` returns None where that cannot be done; then the stream ends as its gateway has ended it.
    """
    head, tail = b"", b"\n\n"
    held: list[bytes] = []
    for chunk in chunks:
        held.append(chunk)
        data = b"".join(held)
        begin = _failure_in(tail, data)
        if begin is not None and not data[begin:].endswith(_BOUNDARIES):
            continue  # more of it is yet to come
        if begin is not None and says_so(data[begin:]) and nothing_told(head + data[:begin]):
            instead = again()
            if instead is not None:
                if begin:
                    yield data[:begin]
                yield from _continuation(instead, head + data[:begin])
                return
        yield from held
        head, tail, held = (head + data)[:_HEAD_MAX], (tail + data)[-4:], []
    yield from held


def nothing_told(events: bytes) -> bool:
    """Whether nothing of an answer is among these events."""
    return all(_HEAD.match(event + b"\n") for event in events.replace(b"\r", b"").split(b"\n\n") if event)


def _failure_in(tail: bytes, data: bytes) -> int | None:
    """Where in the data an event of failure begins, or may begin; `tail` came before."""
    begin = 0
    while (begin := _next(data, begin)) >= 0:
        if (tail + data[:begin]).endswith(_BOUNDARIES):
            return begin
        begin += 1
    return None


def _next(data: bytes, start: int) -> int:
    """The next place of the words that begin such an event, or of as many of them as the data ends with."""
    found = data.find(_FAILED, start)
    if found >= 0:
        return found
    for length in range(min(len(_FAILED) - 1, len(data) - start), 0, -1):
        if data.endswith(_FAILED[:length]):
            return len(data) - length
    return -1


def _continuation(chunks: Iterable[bytes], head: bytes) -> Iterator[bytes]:
    """The events of another stream, without its head, by the ids that the reader knows."""
    ids = list(dict.fromkeys(_IDS.findall(head)))
    renamed: dict[bytes, bytes] = {}
    rest = b""
    for chunk in chunks:
        *events, rest = (rest + chunk).split(b"\n\n")
        for event in events:
            if _HEAD.match(event):
                new = [found for found in dict.fromkeys(_IDS.findall(event)) if found not in renamed]
                renamed |= dict(zip(new, ids[len(renamed) :], strict=False))
                continue
            for new_id, old_id in renamed.items():
                event = event.replace(new_id, old_id)
            yield event + b"\n\n"
    if rest:
        yield rest
