"""Asks of one conversation at once: they begin one behind the other."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from clawbench import shell
from django.core.cache import cache
from django.core.cache.backends.dummy import DummyCache
from django.db import connection, connections

from claw_fleet.coachlist import asking, conversations
from claw_fleet.coachlist.conversations import Beginning, noticed
from claw_fleet.coachlist.models import CompanionProfile
from claw_fleet.coachlist.relay import Relay

from .conftest import KEY, Api
from .standin import Reply, StandIn
from .test_ask import FIRST, LAST, whole

CONVERSATION = "agent:coach-anna:coach-1-main"
KEY_OF_IT = f"coachlist-beginning-{CONVERSATION}"
until = functools.partial(shell.until, seconds=60, what="another thread", pause=0.01)
TOLD = b'event: response.output_text.delta\ndata: {"delta":"Good"}\n\n'


def ask(**more: Any) -> int:
    """The status of an ask of the same conversation, its answer read to the end, in a thread of the test's own."""
    try:
        answered = Api(KEY).post("ask/", {"input": "Hello", "session": "main", **more})
        if answered.streaming:
            list(answered)
        status: int = answered.status_code
        return status
    finally:
        connections.close_all()


class Line:
    """Turns that wait, each in a thread of its own."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor()
        self.turns: list[Beginning] = []
        self.waits: list[Future[bool]] = []

    def join(self) -> None:
        """One more, who is in the line when this returns."""
        turn = Beginning(CONVERSATION)
        self.turns.append(turn)
        self.waits.append(self.pool.submit(turn.wait))
        until(lambda: conversations._last.get(CONVERSATION) is turn._begun)

    def ready(self) -> list[bool]:
        """Who may begin."""
        return [wait.done() for wait in self.waits]


@pytest.mark.parametrize("kept", [True, False], ids=["a cache", "a cache that keeps nothing"])
def test_each_begins_when_the_one_before_has(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kept:
        # Then it is this process's own order alone.
        monkeypatch.setattr(conversations, "cache", DummyCache("", {}))
    line = Line()
    for _ in range(3):
        line.join()
    line.waits[0].result(60)
    for number in range(3):
        assert line.ready() == [at <= number for at in range(3)]
        line.turns[number].begun()
        line.turns[number].begun()
        if number < 2:
            line.waits[number + 1].result(60)
    assert CONVERSATION not in conversations._last
    assert cache.get(KEY_OF_IT) is None


def test_an_ask_of_another_conversation_or_of_none_waits_for_nobody() -> None:
    turns = [Beginning(CONVERSATION), Beginning(CONVERSATION + "-2"), Beginning(""), Beginning("")]
    for turn in turns:
        turn.wait()
    for turn in turns:
        turn.begun()


def test_another_process_is_waited_for() -> None:
    key = KEY_OF_IT
    cache.add(key, "the other process's", 60)
    line = Line()
    line.join()
    assert line.ready() == [False]
    cache.delete(key)
    line.waits[0].result(60)
    # What is somebody else's by now stays.
    cache.set(key, "the other process's", 60)
    line.turns[0].begun()
    assert cache.get(key) == "the other process's"


def test_nobody_is_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "WAIT_MAX", 0.2)
    line = Line()
    cache.add(KEY_OF_IT, "of a process that died", 600)
    for _ in range(2):
        line.join()
    line.waits[1].result(60)


@pytest.mark.parametrize(
    ("chunks", "at"),
    [
        ([FIRST, TOLD, TOLD, LAST], 1),
        ([FIRST[:20], FIRST[20:], TOLD], 2),
        ([FIRST, b": a comment\n\n", TOLD], 2),
        ([FIRST + TOLD, LAST], 0),
        ([FIRST, b"event: response.failed\ndata: {}\n\n"], 1),
        ([FIRST], 1),
    ],
)
def test_a_turn_has_begun_with_its_first_words_or_is_over(chunks: list[bytes], at: int) -> None:
    read: list[bytes] = []
    begun: list[int] = []
    for chunk in noticed(iter(chunks), lambda: begun.append(len(read))):
        read.append(chunk)
    assert read == chunks
    # The chunk has been passed on by then.
    assert begun[0] == min(at + 1, len(chunks))


class Failing:
    """A cache whose server is away: it raises, or, as some are told to, is silent about it."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent

    def add(self, *_words: Any) -> bool:
        self.get()
        return False

    def get(self, *_words: Any) -> None:
        if not self._silent:
            raise ConnectionError("no cache")


@pytest.mark.parametrize("silent", [True, False])
def test_no_answer_is_lost_or_late_for_a_cache_that_fails(
    silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "cache", Failing(silent))
    monkeypatch.setattr(conversations, "WAIT_MAX", 600)
    line = Line()
    line.join()
    line.waits[0].result(60)
    line.turns[0].begun()
    assert CONVERSATION not in conversations._last


@pytest.mark.django_db(transaction=True)
def test_the_thread_of_an_answer_keeps_no_connection_to_the_database() -> None:
    left: list[Any] = []

    def begun() -> None:
        CompanionProfile.objects.exists()
        left.append(connection.connection)

    upstream = httpx.Response(200, content=FIRST + TOLD + LAST)
    assert b"".join(Relay(upstream, gateway="gw-a", keepalive=60, begun=begun)) == FIRST + TOLD + LAST
    for one in left:
        with pytest.raises(Exception, match="closed"):
            one.cursor()


@pytest.mark.django_db(transaction=True)
def test_who_was_paused_while_she_waited_is_not_asked(coach: CompanionProfile, standin: StandIn) -> None:
    standin.answer = lambda reply: reply.json(whole("Hello"))
    ahead = Beginning(asking.session_key(coach, "main"))
    ahead.wait()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, stream=False)
        until(lambda: conversations._last.get(ahead._conversation) is not ahead._begun)
        CompanionProfile.objects.update(wanted="paused")
        ahead.begun()
        assert asked.result(60) == 409
    assert standin.heard == [] and ahead._conversation not in conversations._last


def test_what_cannot_be_relayed_is_ended(
    coach: CompanionProfile, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung_up = threading.Event()

    def answer(reply: Reply) -> None:
        reply.start()
        reply.wait_until_hung_up()
        hung_up.set()

    def failing() -> float:
        raise RuntimeError("no thread")

    standin.answer = answer
    monkeypatch.setattr("claw_fleet.coachlist.conf.ask_keepalive", failing)
    with pytest.raises(RuntimeError, match="no thread"):
        Api(KEY).post("ask/", {"input": "Hello", "session": "main"})
    assert hung_up.wait(60)
    assert asking.session_key(coach, "main") not in conversations._last


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", ["whole", "stream", "failure"])
def test_of_two_asks_at_once_the_gateway_gets_the_second_when_the_first_has_begun(
    coach: CompanionProfile, standin: StandIn, end: str
) -> None:
    conversation = asking.session_key(coach, "main")
    told: list[str] = []

    def answer(reply: Reply) -> None:
        first = conversations._last[conversation]
        told.append("asked")
        if len(told) == 1:
            # It is answered when the second one waits.
            until(lambda: conversations._last[conversation] is not first)
        told.append("begun")
        if end == "failure":
            reply.json({"error": {"message": "No."}}, 400)
        elif end == "whole":
            reply.json(whole("Good morning"))
        else:
            reply.start()
            for chunk in (FIRST, TOLD, LAST):
                reply.chunk(chunk)
            reply.end()

    standin.answer = answer
    with ThreadPoolExecutor() as pool:
        asks = [pool.submit(ask, stream=end == "stream")]
        until(lambda: told != [])
        asks.append(pool.submit(ask, stream=end == "stream"))
        assert [one.result(60) for one in asks] == [502 if end == "failure" else 200] * 2
    assert told == ["asked", "begun"] * 2
    assert conversation not in conversations._last
