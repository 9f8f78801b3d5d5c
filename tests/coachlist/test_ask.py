"""Asking: what reaches the gateway, what comes back and when, and what is said when it does not work."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claw_fleet.coachlist.asking import Asking, _client, gateway_of, whole_answer
from claw_fleet.coachlist.models import CompanionProfile, Gateway
from claw_fleet.coachlist.relay import KEEPALIVE, Relay

from .conftest import API, GATEWAY_TOKEN, KEY, Api, MakeCoach
from .standin import Reply, StandIn

FIRST = b'event: response.created\ndata: {"type":"response.created"}\n\n'
LAST = b'event: response.completed\ndata: {"type":"response.completed"}\n\ndata: [DONE]\n\n'


def ask(body: dict[str, Any] | None = None, key: str = KEY) -> Any:
    """POST ask/ within this process."""
    return Api(key).post("ask/", {"input": "Hello", "stream": False} | (body or {}))


def whole(*texts: str, **more: Any) -> dict[str, Any]:
    """An OpenResponses answer with messages of these texts."""
    return {
        "status": "completed",
        "output": [
            {"type": "reasoning", "content": []},
            *(
                {"type": "message", "content": [{"type": "output_text", "text": text}, {"type": "refusal"}]}
                for text in texts
            ),
        ],
        **more,
    }


def test_a_whole_answer(coach: CompanionProfile, standin: StandIn) -> None:
    standin.answer = lambda reply: reply.json(whole("Good ", "morning ☀"))
    answer = ask()
    assert (answer.status_code, answer.json()) == (200, {"answer": "Good morning ☀"})
    (heard,) = standin.heard
    assert heard.path == "/gw-a/v1/responses"
    assert heard.body == {"model": "openclaw", "input": "Hello", "stream": False}
    assert heard.headers["authorization"] == f"Bearer {GATEWAY_TOKEN}"
    assert heard.headers["x-openclaw-agent-id"] == "coach-anna"
    assert "x-openclaw-session-key" not in heard.headers
    assert KEY not in json.dumps(heard)


def test_sessions_of_coaches_never_meet(
    coach: CompanionProfile, make_coach: MakeCoach, standin: StandIn
) -> None:
    standin.answer = lambda reply: reply.json(whole("x"))
    others = ["coach-anna-1", "coach_anna", "1", "a"]
    for number, agent_id in enumerate(others):
        make_coach(agent_id, key=f"other-{number}", gateway_id="gw-a", status="active")
    for key in (KEY, *(f"other-{number}" for number in range(len(others)))):
        for session in ("main", "1-main", "coach-1-main", "a"):
            assert ask({"session": session}, key).status_code == 200
    keys = [heard.headers["x-openclaw-session-key"] for heard in standin.heard]
    assert len({key.lower() for key in keys}) == len(keys) == 20
    for heard in standin.heard:
        agent = heard.headers["x-openclaw-agent-id"]
        assert heard.headers["x-openclaw-session-key"].startswith(f"agent:{agent}:coach-")
    ask({"session": "main"})
    assert standin.heard[-1].headers["x-openclaw-session-key"] == keys[0]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"input": ""}, "input"),
        ({"input": None}, "input"),
        ({"input": "x" * 100_001}, "input"),
        ({"session": "Main"}, "session"),
        ({"session": "agent:other:main"}, "session"),
        ({"session": "a\r\nx: y"}, "session"),
        ({"session": "x" * 65}, "session"),
        ({"stream": "perhaps"}, "stream"),
    ],
)
def test_questions_that_cannot_be_asked(
    coach: CompanionProfile, standin: StandIn, body: dict[str, Any], word: str
) -> None:
    answer = ask(body)
    assert answer.status_code == 400 and word in answer.json()["detail"]
    assert not standin.heard


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"wanted": "paused"}, "paused"),
        ({"status": "paused"}, "not active"),
        ({"status": "pending"}, "pending"),
        ({"status": "provisioning"}, "provisioning"),
        ({"status": "error"}, "error"),
        ({"gateway_id": None}, "not active"),
        ({"agent_id": "main"}, "agent id"),
        ({"agent_id": "Coach Anna"}, "agent id"),
    ],
)
def test_a_coach_who_is_not_active_is_a_409(
    coach: CompanionProfile, standin: StandIn, fields: dict[str, Any], word: str
) -> None:
    CompanionProfile.objects.update(**fields)
    for stream in (True, False):
        answer = ask({"stream": stream})
        assert answer.status_code == 409 and word in answer.json()["detail"]
        assert answer["Content-Type"] == "application/json"
    assert not standin.heard


def test_an_error_is_json_even_to_a_reader_of_events(coach: CompanionProfile) -> None:
    CompanionProfile.objects.update(wanted="paused")
    answer = Api(KEY).client.post(
        f"{API}ask/",
        {"input": "Hello"},
        content_type="application/json",
        headers={"Accept": "text/event-stream"},
    )
    assert answer.status_code == 409 and answer.json()["code"] == "paused"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (
            400,
            {"error": {"message": "Unknown agent 'coach-anna'."}},
            ["Unknown agent 'coach-anna'. If", "play"],
        ),
        (401, {"error": {"message": "Unauthorized", "type": "unauthorized"}}, ["401", "token"]),
        (404, "nothing here", ["404", "endpoint"]),
        (500, {"error": None}, ["500", "log"]),
        (301, {}, ["301"]),
        (503, [], ["503", "starting"]),
    ],
)
def test_a_refusal_is_a_502_in_the_gateways_words(
    coach: CompanionProfile, standin: StandIn, status: int, body: Any, words: list[str], stream: bool
) -> None:
    standin.answer = lambda reply: reply.json(body, status)
    answer = ask({"stream": stream})
    assert answer.status_code == 502
    assert (answer.json()["code"], answer.json()["gateway_status"]) == ("gateway_refused", status)
    assert all(word in answer.json()["detail"] for word in ["gw-a", *words])
    assert GATEWAY_TOKEN not in answer.content.decode()


def test_something_else_at_the_address_is_a_502(coach: CompanionProfile, standin: StandIn) -> None:
    standin.answer = lambda reply: reply.json(whole("whole, though a stream was asked for"))
    answer = ask({"stream": True})
    assert answer.status_code == 502 and "address" in answer.json()["detail"]


@pytest.mark.parametrize("body", [{"status": "failed", "error": {"message": "out of quota"}}, ["no object"]])
def test_an_agent_that_fails_is_a_502(coach: CompanionProfile, standin: StandIn, body: Any) -> None:
    standin.answer = lambda reply: reply.json(body)
    answer = ask()
    assert (answer.status_code, answer.json()["code"]) == (502, "agent_failed")
    assert isinstance(body, list) or "out of quota" in answer.json()["detail"]


def test_a_gateway_that_is_not_there_is_a_502(coach: CompanionProfile) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        Gateway.objects.update(url=f"http://127.0.0.1:{held.getsockname()[1]}")
        answer = ask()
    assert (answer.status_code, answer.json()["code"]) == (502, "gateway_unreachable")
    assert "cannot be reached" in answer.json()["detail"]


def test_a_gateway_that_is_silent_is_a_502(coach: CompanionProfile, standin: StandIn, settings: Any) -> None:
    settings.COACHLIST_ASK_READ_TIMEOUT = 0.1
    standin.answer = lambda reply: reply.wait_until_hung_up()
    answer = ask()
    assert (answer.status_code, answer.json()["code"]) == (502, "gateway_silent")


def test_a_gateway_without_address_or_token_is_a_502(coach: CompanionProfile, settings: Any) -> None:
    settings.COACHLIST_ENCRYPTION_KEYS = ["A" * 43 + "="]
    assert ask().json()["code"] == "gateway_no_token"
    Gateway.objects.update(token_encrypted="")
    assert ask().json()["code"] == "gateway_no_token"
    Gateway.objects.update(url="")
    answer = ask()
    assert (answer.status_code, answer.json()["code"]) == (502, "gateway_no_address")


def test_a_coach_asks_so_often_and_no_more(
    coach: CompanionProfile, make_coach: MakeCoach, standin: StandIn, settings: Any
) -> None:
    settings.COACHLIST_ASK_RATE = "2/hour"
    standin.answer = lambda reply: reply.json(whole("x"))
    make_coach("other", key="other-key", gateway_id="gw-a", status="active")
    assert [ask().status_code for _ in range(3)] == [200, 200, 429]
    assert int(ask()["Retry-After"]) > 0
    assert ask(key="other-key").status_code == 200
    settings.COACHLIST_ASK_RATE = ""
    assert ask().status_code == 200


# Streams, through the server as it is deployed.


@pytest.fixture
def streaming(server: str, coach: CompanionProfile) -> Iterator[httpx.Client]:
    """A client of the server with the coach's key."""
    with httpx.Client(
        base_url=f"{server}{API}", headers={"Authorization": f"Bearer {KEY}"}, timeout=60
    ) as http:
        yield http


@pytest.mark.django_db(transaction=True)
def test_the_first_event_arrives_before_the_last_is_made(streaming: httpx.Client, standin: StandIn) -> None:
    arrived = threading.Event()

    def answer(reply: Reply) -> None:
        reply.start()
        reply.chunk(FIRST)
        # The rest is made only once the first has been read at the other end.
        assert arrived.wait(timeout=60)
        reply.chunk(LAST)
        reply.end()

    standin.answer = answer
    with streaming.stream("POST", "ask/", json={"input": "Hello", "session": "main"}) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Cache-Control"] == "no-store"
        assert "Content-Length" not in response.headers
        parts = response.iter_bytes()
        got = next(parts)
        assert got == FIRST
        arrived.set()
        got += b"".join(parts)
    assert got.replace(KEEPALIVE, b"") == FIRST + LAST
    assert standin.heard[0].body["stream"] is True


@pytest.mark.django_db(transaction=True)
def test_when_the_reader_goes_the_gateway_is_hung_up_on(streaming: httpx.Client, standin: StandIn) -> None:
    hung_up = threading.Event()

    def answer(reply: Reply) -> None:
        reply.start()
        reply.chunk(FIRST)
        reply.wait_until_hung_up()
        hung_up.set()

    standin.answer = answer
    with streaming.stream("POST", "ask/", json={"input": "Hello"}) as response:
        assert next(response.iter_bytes()) == FIRST
        assert not hung_up.is_set()
    assert hung_up.wait(timeout=60)


@pytest.mark.django_db(transaction=True)
def test_a_silence_is_filled_with_comments_between_events(streaming: httpx.Client, standin: StandIn) -> None:
    heard_comments = threading.Event()

    def answer(reply: Reply) -> None:
        reply.start()
        reply.chunk(FIRST)
        assert heard_comments.wait(timeout=60)
        reply.chunk(LAST)
        reply.end()

    standin.answer = answer
    with streaming.stream("POST", "ask/", json={"input": "Hello"}) as response:
        got = b""
        for part in response.iter_bytes():
            got += part
            if got.count(KEEPALIVE) == 2:
                heard_comments.set()
    assert got.startswith(FIRST + KEEPALIVE * 2) and got.endswith(LAST)


@pytest.mark.django_db(transaction=True)
def test_a_gateway_that_breaks_off_ends_the_stream_with_an_error(
    streaming: httpx.Client, standin: StandIn
) -> None:
    def answer(reply: Reply) -> None:
        reply.start()
        reply.chunk(FIRST + b'data: {"half')
        reply.break_off()

    standin.answer = answer
    got = streaming.post("ask/", json={"input": "Hello"}).content
    assert got.startswith(FIRST + b'data: {"half')
    event, data = got.split(b"\n\n")[-2].split(b"\n")
    assert event == b"event: error"
    assert json.loads(data.removeprefix(b"data: "))["code"] == "gateway_lost"


# The relay by itself.


class Script(httpx.SyncByteStream):
    """An upstream body: chunks, and then perhaps an exception."""

    def __init__(self, chunks: list[bytes], last: Exception | None = None) -> None:
        self.chunks, self.last, self.closed = chunks, last, False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.last is not None:
            raise self.last

    def close(self) -> None:
        """Noted."""
        self.closed = True


@settings(deadline=None, max_examples=60)
@given(chunks=st.lists(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\n\n", b"\n", b"\r\n\r\n"])))
def test_every_byte_is_relayed_in_order(chunks: list[bytes]) -> None:
    script = Script(chunks)
    relay = Relay(httpx.Response(200, stream=script), gateway="gw-a", keepalive=60)
    assert list(relay) == [chunk for chunk in chunks if chunk]
    relay._thread.join()
    assert script.closed


@pytest.mark.parametrize("half", [b"data: half", b"data: line\n", b"\r\n"])
def test_no_comment_falls_into_an_event(half: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    class Waits(Script):
        def __iter__(self) -> Iterator[bytes]:
            yield half
            assert go_on.wait(timeout=60)
            yield b"\n\n"

    relay = Relay(httpx.Response(200, stream=Waits([])), gateway="gw-a", keepalive=0.01)
    parts = iter(relay)
    assert next(part for part in parts if part != KEEPALIVE) == half
    silences, get = iter(range(5)), relay._chunks.get

    def silent_at_first(*args: Any, **kwargs: Any) -> bytes | Exception | None:
        if next(silences, None) is not None:
            raise queue.Empty
        go_on.set()
        return get(*args, **kwargs)

    monkeypatch.setattr(relay._chunks, "get", silent_at_first)
    assert next(parts) == b"\n\n"
    assert next(silences, None) is None
    relay.close()


def test_a_reader_that_stops_reading_lets_the_upstream_go() -> None:
    script = Script([b"data: x\n\n"] * 1000)
    relay = Relay(httpx.Response(200, stream=script), gateway="gw-a", keepalive=60)
    next(iter(relay))
    relay.close()
    relay.close()
    relay._thread.join(timeout=60)
    assert script.closed and not relay._thread.is_alive()


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (httpx.ReadTimeout("x"), "gateway_silent"),
        (httpx.RemoteProtocolError("x"), "gateway_lost"),
        (RuntimeError("a bug"), "gateway_lost"),
    ],
)
def test_a_failure_on_the_way_is_an_event(exc: Exception, code: str) -> None:
    relay = Relay(httpx.Response(200, stream=Script([FIRST], exc)), gateway="gw-a", keepalive=60)
    first, last = list(relay)
    assert first == FIRST and last.startswith(b"event: error\ndata: ") and last.endswith(b"\n\n")
    assert json.loads(last.split(b"data: ")[1])["code"] == code


def test_a_stream_that_ended_takes_nobodys_connection_along(
    coach: CompanionProfile, standin: StandIn
) -> None:
    """Its connection would be somebody else's by the time at which its reader is through with it."""
    read, heard = threading.Event(), threading.Event()

    def answer(reply: Reply) -> None:
        if standin.heard[-1].body["stream"]:
            reply.start()
            reply.chunk(LAST)
            reply.end()
        else:
            heard.set()
            assert read.wait(60)
            reply.json(whole("Hello"))

    standin.answer = answer
    gateway = gateway_of(coach)
    upstream = Asking(coach, gateway, {"input": "Hello", "stream": True}).send()
    relay = Relay(upstream, gateway="gw-a", keepalive=60)
    relay._thread.join(60)
    with ThreadPoolExecutor() as pool:
        other = pool.submit(Asking(coach, gateway, {"input": "Hello", "stream": False}).send)
        assert heard.wait(60)
        assert b"".join(relay) == LAST
        read.set()
        assert whole_answer(other.result(60), gateway) == "Hello"


def test_nobodys_connection_is_closed_for_others_being_there(standin: StandIn) -> None:
    """A pool that closes what it has too much of closes a connection that another thread has just been given, too."""
    callers, ports, client = 30, set(), _client()
    together = threading.Barrier(callers)

    def answer(reply: Reply) -> None:
        ports.add(reply.port)
        together.wait(30)
        reply.json(whole("Hello"))

    def ask_at_once(_caller: int) -> None:
        upstream = client.send(client.build_request("POST", standin.url, json={}), stream=True)
        upstream.read()
        upstream.close()

    standin.answer = answer
    with ThreadPoolExecutor(callers) as pool:
        for _burst in range(2):
            list(pool.map(ask_at_once, range(callers)))
    assert len(ports) == callers
