"""The provider's stand-in, over HTTP as a gateway meets it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from provider import provider

PROMPT = """You are a personal assistant.
# Project Context
SOUL.md: persona/tone. Follow it.
## /srv/workspaces/coach-a/AGENTS.md
# Rules
Be brief.
## /srv/workspaces/coach-a/SOUL.md
# Who you are

You are the companion of Anna, a coach. SOULMARK-anna-7

## /srv/workspaces/coach-a/IDENTITY.md
- Name: Juniper
"""


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A stand-in of its own, without a memory."""
    provider.Handler.memory = provider.Memory()
    server = ThreadingHTTPServer(("127.0.0.1", 0), provider.Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with httpx.Client(
        base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False, timeout=10
    ) as client:
        yield client
    server.shutdown()
    thread.join()
    server.server_close()


def turn(*said: str, prompt: str = PROMPT) -> dict[str, Any]:
    """A request with a system prompt and what the user said, with an answer after each but the last."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": prompt}]
    for text in said:
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]
    return {"model": provider.MODEL, "messages": messages[:-1]}


def ask(client: httpx.Client, body: dict[str, Any]) -> Any:
    """The message of an answer in one piece."""
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    return answer.json()["choices"][0]["message"]


def stream(client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a streamed answer; it must end as the API says."""
    answer = client.post("/v1/chat/completions", json={**body, "stream": True})
    assert answer.headers["content-type"] == "text/event-stream"
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events)


def test_default_answer_shows_the_agents_own_soul(client: httpx.Client) -> None:
    said = ask(client, turn("Who are you?"))["content"]
    assert said == (
        'SOULMARK-anna-7 You are the companion of Anna, a coach. SOULMARK-anna-7 You asked: "Who are you?"'
    )


def test_streamed_and_whole_answers_say_the_same(client: httpx.Client) -> None:
    events = stream(client, turn("Who are you?"))
    assert text_of(events) == ask(client, turn("Who are you?"))["content"]
    assert [event["choices"][0]["finish_reason"] for event in events[-2:]] == [None, "stop"]
    usage = events[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_content_may_come_in_parts(client: httpx.Client) -> None:
    body = turn("x")
    body["messages"][-1]["content"] = [{"type": "text", "text": "count:3"}]
    assert ask(client, body)["content"] == "1 2 3"


def test_count_is_a_stream_of_words(client: httpx.Client) -> None:
    events = stream(client, turn("Please count:5 now"))
    words = [event["choices"][0]["delta"]["content"] for event in events[1:-1]]
    assert words == ["1", " 2", " 3", " 4", " 5"]


def test_slow_comes_as_it_is_made(client: httpx.Client) -> None:
    began = time.monotonic()
    arrivals = []
    with client.stream("POST", "/v1/chat/completions", json={**turn("slow:2"), "stream": True}) as answer:
        for line in answer.iter_lines():
            if "tick-" in line:
                arrivals.append(time.monotonic() - began)
    assert len(arrivals) == 2
    assert 0.9 < arrivals[0] < 1.8
    assert 1.9 < arrivals[1] < 2.9


def test_what_is_slow_can_be_hurried(client: httpx.Client) -> None:
    with client.stream("POST", "/v1/chat/completions", json={**turn("slow:3600"), "stream": True}) as answer:
        lines = answer.iter_lines()
        assert "tick-1" in next(line for line in lines if "tick-" in line)
        try:
            httpx.put(client.base_url.join("/_hurry"), json=True, trust_env=False).raise_for_status()
            assert "tick-3600" in [line for line in lines if "tick-" in line][-1]
        finally:
            httpx.put(client.base_url.join("/_hurry"), json=False, trust_env=False).raise_for_status()


def test_tool_is_called_and_its_result_reported(client: httpx.Client) -> None:
    body = turn('tool:exec {"command": "echo {}"} please')
    events = stream(client, body)
    call = events[1]["choices"][0]["delta"]["tool_calls"][0]
    assert call["function"]["name"] == "exec"
    assert json.loads(call["function"]["arguments"]) == {"command": "echo {}"}
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "not found"},
    ]
    assert ask(client, body)["content"] == "The tool said: not found"


def test_tool_without_arguments_gets_an_empty_object(client: httpx.Client) -> None:
    call = ask(client, turn("tool:read"))["tool_calls"][0]
    assert call["function"] == {"name": "read", "arguments": "{}"}


def test_a_turn_can_be_of_several_calls_with_time_between_them(client: httpx.Client) -> None:
    first, second = {"task": "tool:read {} slow:9"}, {"path": "b"}
    body = turn(f"tool:spawn {json.dumps(first)} slow:0.2 tool:read {json.dumps(second)}")
    for name, arguments, words in (("spawn", first, ""), ("read", second, "tick-1")):
        events = stream(client, body)
        assert text_of(events) == words and events[-1]["choices"][0]["finish_reason"] == "tool_calls"
        message = ask(client, body)
        assert message["content"] == (words or None)
        call = message["tool_calls"][0]["function"]
        assert (call["name"], json.loads(call["arguments"])) == (name, arguments)
        body["messages"] += [message, {"role": "tool", "content": f"of {name}"}]
    assert ask(client, body)["content"] == "The tool said: of read"
    # Another word of the user's begins anew.
    body["messages"] += [{"role": "assistant", "content": "x"}, {"role": "user", "content": "tool:read"}]
    assert ask(client, body)["tool_calls"][0]["function"]["name"] == "read"


def test_recall_knows_this_conversation_alone(client: httpx.Client) -> None:
    assert ask(client, turn("My dog is Rex.", "He is old.", "recall"))["content"] == (
        "2 earlier: My dog is Rex. | He is old."
    )
    assert ask(client, turn("recall"))["content"] == "0 earlier:"


def test_words_that_only_resemble_a_directive_are_none(client: httpx.Client) -> None:
    for text in ("I recalled it", "recall-me", "account:3", "slowly", "tool box"):
        assert f'You asked: "{text}"' in ask(client, turn(text))["content"]


def test_what_the_gateway_adds_is_not_what_the_user_said(client: httpx.Client) -> None:
    hidden = "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\ncount:9\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>"
    assert ask(client, turn(f"count:2\n{hidden}"))["content"] == "1 2"
    assert ask(client, turn("count:2", hidden))["content"] == "1 2"
    runtime = "Runtime: agent=main | session=agent:main:x | sessionId=1 | channel=webchat"
    said = ask(client, turn(f"[Sat 2026-11-21 12:02 UTC] [1] hello\nyou\n\n{runtime}"))["content"]
    assert said.endswith('You asked: "[1] hello you"')


def test_an_error_is_one(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json=turn("status:503"))
    assert answer.status_code == 503
    assert "503" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"model": "x"}', b"{"])
def test_a_body_without_messages_is_refused(client: httpx.Client, body: bytes) -> None:
    assert client.post("/v1/chat/completions", content=body).status_code == 400


def test_requests_are_remembered_and_filtered(client: httpx.Client) -> None:
    tools = [{"type": "function", "function": {"name": "exec"}}]
    ask(client, {**turn("first"), "tools": tools})
    stream(client, turn("second", prompt="nobody"))
    everything = client.get("/_requests").json()
    assert everything["total"] == 2
    first, second = everything["requests"]
    assert (first["number"], first["user"], first["tools"], first["stream"]) == (1, "first", ["exec"], False)
    assert (second["number"], second["user"], second["system"], second["stream"]) == (
        2,
        "second",
        "nobody",
        True,
    )
    assert first["finished"]

    def users(**query: str | int) -> list[str]:
        return [entry["user"] for entry in client.get("/_requests", params=query).json()["requests"]]

    assert users(contains="SOULMARK-anna-7") == ["first"]
    assert users(contains="second") == ["second"]
    assert users(limit=1) == ["second"]
    assert users(after=1) == ["second"]
    assert users(limit=0) == []


def test_forgotten_requests_are_gone_and_numbers_go_on(client: httpx.Client) -> None:
    ask(client, turn("first"))
    assert client.delete("/_requests").status_code == 200
    ask(client, turn("second"))
    assert [entry["number"] for entry in client.get("/_requests").json()["requests"]] == [2]


def test_only_so_many_are_remembered() -> None:
    memory = provider.Memory()
    for number in range(provider.KEPT + 5):
        memory.add(turn(str(number)), provider.Reply())
    kept = memory.select()
    assert kept["total"] == provider.KEPT + 5
    assert len(kept["requests"]) == provider.KEPT
    assert kept["requests"][0]["user"] == "5"


def test_models_and_unknown_paths(client: httpx.Client) -> None:
    assert client.get("/v1/models").json()["data"][0]["id"] == provider.MODEL
    assert client.get("/nothing").status_code == 404
    assert client.post("/v1/embeddings", json={}).status_code == 404
    assert client.delete("/v1/models").status_code == 404


def test_a_key_is_told_by_its_hash_and_can_be_refused(client: httpx.Client) -> None:
    def status(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return client.post("/v1/chat/completions", json=turn("Hello"), headers=headers).status_code

    digest = hashlib.sha256(b"key-one").hexdigest()
    assert status("key-one") == 200
    assert client.put("/_refused", json=[digest]).json() == [digest]
    try:
        assert (status("key-one"), status("key-two")) == (401, 200)
        heard = client.get("/_requests").json()["requests"]
        assert [request["key_sha256"] == digest for request in heard] == [True, True, False]
        assert [request["directive"] for request in heard] == ["default", "refused", "default"]
        assert "key-one" not in json.dumps(heard)
    finally:
        client.put("/_refused", json=[])
    assert status("key-one") == 200
