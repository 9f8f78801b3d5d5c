"""Asks of one conversation at once: they begin one behind the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest
from django.core.cache import cache

from claw_fleet.coachlist import asking, conversations
from claw_fleet.coachlist.conversations import Beginning, noticed
from claw_fleet.coachlist.models import CompanionProfile
from claw_fleet.coachlist.relay import Relay

from .conftest import Api, MakeCoach, MakeGateway
from .standin import Reply, StandIn
from .test_ask import FIRST, KEY, LAST, whole

CONVERSATION = "agent:coach-anna:coach-1-main"
TOLD = b'event: response.output_text.delta\ndata: {"delta":"Good"}\n\n'


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    tick = threading.Event()
    for _ in range(6000):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it did not come")


class Line:
    """Turns that wait, each in a thread of its own."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor()
        self.turns: list[Beginning] = []
        self.waits: list[Future[None]] = []

    def join(self) -> None:
        """One more, who is in the line when this returns."""
        turn = Beginning(CONVERSATION)
        self.turns.append(turn)
        self.waits.append(self.pool.submit(turn.wait))
        until(lambda: conversations._last.get(CONVERSATION) is turn._begun)

    def ready(self) -> list[bool]:
        """Who may begin."""
        return [wait.done() for wait in self.waits]


def test_each_begins_when_the_one_before_has() -> None:
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
    assert cache.get(f"coachlist-beginning-{CONVERSATION}") is None


def test_an_ask_of_another_conversation_or_of_none_waits_for_nobody() -> None:
    turns = [Beginning(CONVERSATION), Beginning(CONVERSATION + "-2"), Beginning(""), Beginning("")]
    for turn in turns:
        turn.wait()
    for turn in turns:
        turn.begun()


def test_another_process_is_waited_for() -> None:
    key = f"coachlist-beginning-{CONVERSATION}"
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
    for _ in range(2):
        line.join()
    line.waits[1].result(60)
    for turn in line.turns:
        turn.begun()


@pytest.mark.parametrize(
    ("chunks", "at"),
    [
        ([FIRST, TOLD, TOLD, LAST], 1),
        ([FIRST[:20], FIRST[20:], TOLD], 2),
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
    assert begun[0] == at


def test_an_answer_is_not_lost_for_a_cache_that_fails() -> None:
    def failing() -> None:
        raise ConnectionError("no cache")

    upstream = httpx.Response(200, content=FIRST + TOLD + LAST)
    assert b"".join(Relay(upstream, gateway="gw-a", keepalive=60, begun=failing)) == FIRST + TOLD + LAST


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", ["whole", "stream", "failure"])
def test_of_two_asks_at_once_the_gateway_gets_the_second_when_the_first_has_begun(
    make_coach: MakeCoach, make_gateway: MakeGateway, standin: StandIn, end: str
) -> None:
    make_gateway(url=f"{standin.url}/gw-a")
    coach: CompanionProfile = make_coach(key=KEY, gateway_id="gw-a", status="active", observed_generation=1)
    conversation = asking.session_key(coach, "main")
    told: list[str] = []

    def answer(reply: Reply) -> None:
        told.append("asked")
        if len(told) == 1:
            # It is answered when the second one waits.
            first = conversations._last[conversation]
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

    def ask() -> int:
        answered = Api(KEY).post("ask/", {"input": "Hello", "session": "main", "stream": end == "stream"})
        if answered.streaming:
            list(answered)
        status: int = answered.status_code
        return status

    standin.answer = answer
    with ThreadPoolExecutor() as pool:
        asks = [pool.submit(ask)]
        until(lambda: told != [])
        asks.append(pool.submit(ask))
        assert [one.result(60) for one in asks] == [502 if end == "failure" else 200] * 2
    assert told == ["asked", "begun"] * 2
    assert conversation not in conversations._last
