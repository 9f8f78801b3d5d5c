"""A stand-in for the LLM provider: speaks the OpenAI-compatible chat completions API and does as it is told.

It runs anywhere with a Python and nothing else. `POST /v1/chat/completions` (streamed or not) answers by what
the last message of the user contains, so that a test drives it through real turns of a real gateway:

    slow:N              a word a second for N seconds (fractions allowed)
    count:N             the words 1 to N, without pause
    tool:NAME {json}    a call of that tool with these arguments; in the turn's next request what stands behind it, or
                        if that is nothing what came back. A call behind `slow:N` comes after its words
    recall              what the user said earlier in this conversation, and how often
    status:N            an HTTP error with that status, as a provider reports one
    anything else       the markers (`SOULMARK-...` words) and the first line of the agent's own soul, from
                        the system prompt, then what it was asked

`GET /v1/models` lists the one model. For the tests there are also:

    GET    /_requests   {"total": int, "requests": [{"number", "model", "stream", "system", "user", "tools",
                        "messages", "key_sha256", "directive", "finished"}]}, oldest first; `?contains=TEXT`
                        keeps those whose system prompt or last user message contains it, `?limit=N` the
                        newest N, `?after=NUMBER` the later ones
    DELETE /_requests   forget them
    PUT    /_refused    ["SHA-256 of an API key", ...]: from now on these are answered 401, and no others
    PUT    /_hurry      true: from now on nothing is slow, also what is being said; false: it is again

What it does not prove: that a real model follows a workspace's instructions, keeps to its tools, or resists
an injection; anything about tokens (the counts are words); a provider's rate limits, timeouts and error
texts; the dialects of Anthropic and Gemini.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

MODEL = "stand-in-1"
KEPT = 2000
"""How many requests are remembered."""

_DIRECTIVE = re.compile(
    r"(?<!\S)(?:(slow|count|status):(\d+(?:\.\d+)?)|tool:([\w.-]+)[ \t]*|(recall))(?![\w-])"
)
_MARKER = re.compile(r"SOULMARK-[A-Za-z0-9_-]+")
_ADDED = re.compile(
    r"<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>.*?(?:<<<END_OPENCLAW_INTERNAL_CONTEXT>>>|\Z)"
    r"|\A\[[^\]\n]*\d{4}-\d\d-\d\d[^\]\n]*\]"
    r"|^Runtime: agent=[^\n]*",
    re.DOTALL | re.MULTILINE,
)
"""What the gateway adds to the user's words: hidden context, the time in front, a line about itself."""
_SOUL = re.compile(
    r"^#{1,6}[^\n]*\bSOUL\.md[^\n]*\n(.*?)(?=^#{1,6}[^\n]*\b[A-Z]+\.md|\Z)", re.DOTALL | re.MULTILINE
)


@dataclass
class Reply:
    """What to say: words as a stream with a pause before each, or a call of a tool, or an error."""

    words: list[str] = field(default_factory=list)
    pause: float = 0.0
    tool: tuple[str, str] | None = None
    status: int = 200
    directive: str = "default"


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def said_by_user(messages: list[dict[str, Any]]) -> list[str]:
    """What the user said, message by message, without what the gateway adds for the model."""
    said = [_ADDED.sub("", text_of(message.get("content"))).strip() for message in _of(messages, "user")]
    return [text for text in said if text]


def _is_added(message: dict[str, Any]) -> bool:
    """Whether this is the user's only by its role, as what the gateway says of sub-agents after a tool's result."""
    return message.get("role") == "user" and not said_by_user([message])


def system_prompt(messages: list[dict[str, Any]]) -> str:
    """Everything that the gateway told the model about itself."""
    told = [*_of(messages, "system"), *_of(messages, "developer")]
    return "\n".join(text_of(message.get("content")) for message in told)


def _of(messages: list[dict[str, Any]], role: str) -> list[dict[str, Any]]:
    return [message for message in messages if message.get("role") == role]


def soul(prompt: str) -> str:
    """The first words of the soul in a system prompt: its first line that is neither empty nor a heading."""
    section = _SOUL.search(prompt)
    lines = (line.strip(" *_>-") for line in section.group(1).splitlines()) if section else iter(())
    return next((line for line in lines if line and not line.startswith(("#", "<!--", "---"))), "")


def reply_to(messages: list[dict[str, Any]]) -> Reply:
    """Decide what to answer to a conversation."""
    said = said_by_user(messages)
    last = said[-1] if said else ""
    results = _results(messages)
    for _result in results:
        last = _behind_call(last)
    found = _DIRECTIVE.search(last)
    if results and found is None:
        words = text_of(results[-1].get("content")).split()
        return Reply(words=["The", "tool", "said:", *words], directive="tool")
    if found is None:
        prompt = system_prompt(messages)
        marks = " ".join(dict.fromkeys(_MARKER.findall(prompt)))
        parts = [marks, soul(prompt), f'You asked: "{last}"']
        return Reply(words=" ".join(part for part in parts if part).split())
    verb, number, tool, recall = found.groups()
    if recall:
        earlier = said[:-1]
        return Reply(words=f"{len(earlier)} earlier: {' | '.join(earlier)}".split(), directive="recall")
    if tool:
        return Reply(tool=(tool, _arguments(last[found.end() :])), directive="tool")
    if verb == "slow":
        seconds = float(number)
        steps = max(1, round(seconds))
        words = [f"tick-{n}" for n in range(1, steps + 1)]
        call = _DIRECTIVE.search(last, found.end())
        after = (call.group(3), _arguments(last[call.end() :])) if call and call.group(3) else None
        return Reply(words=words, pause=seconds / steps, tool=after, directive="slow")
    if verb == "status":
        return Reply(status=int(float(number)), directive="status")
    return Reply(words=[str(n) for n in range(1, int(float(number)) + 1)], directive="count")


def _results(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What came back of the calls since the user spoke, if that is what the model is to answer to."""
    told = [message for message in messages if not _is_added(message)]
    if not told or told[-1].get("role") != "tool":
        return []
    spoke = max((number for number, message in enumerate(told) if message.get("role") == "user"), default=-1)
    return _of(told[spoke + 1 :], "tool")


def _behind_call(text: str) -> str:
    """What stands behind the first call of a tool."""
    for found in _DIRECTIVE.finditer(text):
        if found.group(3):
            return text[found.end() + _object(text[found.end() :])[1] :]
    return ""


def _arguments(text: str) -> str:
    """The JSON object that a text starts with, as JSON again; an empty one if there is none."""
    return json.dumps(_object(text)[0])


def _object(text: str) -> tuple[dict[str, Any], int]:
    """The JSON object that a text starts with, and where it ends; an empty one that ends at once if there is none."""
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return {}, 0
    return (value, end) if isinstance(value, dict) else ({}, 0)


class Memory:
    """The requests that came, the newest `KEPT` of them; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._total = 0

    def add(self, body: dict[str, Any], reply: Reply, key_sha256: str = "") -> dict[str, Any]:
        """Remember a request; the entry is returned so that its end can be noted."""
        messages = body.get("messages") or []
        said = said_by_user(messages)
        entry: dict[str, Any] = {
            "model": body.get("model"),
            "stream": bool(body.get("stream")),
            "system": system_prompt(messages),
            "user": said[-1] if said else "",
            "tools": [tool.get("function", {}).get("name", "") for tool in body.get("tools") or []],
            "messages": messages,
            "key_sha256": key_sha256,
            "directive": reply.directive,
            "finished": False,
        }
        with self._lock:
            self._total += 1
            entry["number"] = self._total
            self._kept.append(entry)
        return entry

    def select(self, contains: str = "", after: int = 0, limit: int = KEPT) -> dict[str, Any]:
        """What `GET /_requests` answers."""
        with self._lock:
            entries, total = list(self._kept), self._total
        wanted = [
            e for e in entries if e["number"] > after and (contains in e["system"] or contains in e["user"])
        ]
        return {"total": total, "requests": wanted[-limit:] if limit else []}

    def forget(self) -> None:
        """Forget all of them; the numbers go on."""
        with self._lock:
            self._kept.clear()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    memory = Memory()
    refused: frozenset[str] = frozenset()
    hurry = threading.Event()

    def do_GET(self) -> None:
        """Models and remembered requests."""
        address = urlsplit(self.path)
        if address.path == "/v1/models":
            self._json(
                200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "bench"}]}
            )
        elif address.path == "/_requests":
            query = {key: values[-1] for key, values in parse_qs(address.query).items()}
            after, limit = int(query.get("after", 0)), int(query.get("limit", KEPT))
            self._json(200, self.memory.select(query.get("contains", ""), after, limit))
        else:
            self._error(404, f"there is nothing at {address.path}")

    def do_DELETE(self) -> None:
        """Forget the requests."""
        if urlsplit(self.path).path != "/_requests":
            self._error(404, "only /_requests can be deleted")
            return
        self.memory.forget()
        self._json(200, {"total": 0, "requests": []})

    def do_PUT(self) -> None:
        """Which keys are refused, or whether anything is slow."""
        given = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        path = urlsplit(self.path).path
        if path == "/_refused":
            type(self).refused = frozenset(given)
        elif path == "/_hurry":
            (self.hurry.set if given else self.hurry.clear)()
        else:
            self._error(404, "only /_refused and /_hurry can be put")
            return
        self._json(200, given)

    def do_POST(self) -> None:
        """A completion."""
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not urlsplit(self.path).path.endswith("/chat/completions"):
            self._error(404, f"there is nothing at {self.path}")
            return
        try:
            body = json.loads(raw)
            messages = body["messages"]
        except (ValueError, KeyError, TypeError):
            self._error(400, "the body must be a JSON object with `messages`")
            return
        bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ").encode()
        key_sha256 = hashlib.sha256(bearer).hexdigest()
        reply = reply_to(messages)
        if key_sha256 in self.refused:
            reply = Reply(status=401, directive="refused")
        entry = self.memory.add(body, reply, key_sha256)
        if reply.status != 200:
            self._error(reply.status, f"the stand-in was told to answer {reply.status}")
        elif body.get("stream"):
            self._stream(body, reply)
        else:
            self.hurry.wait(reply.pause * len(reply.words))
            self._json(200, _completion(body, reply))
        entry["finished"] = True

    def _stream(self, body: dict[str, Any], reply: Reply) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for chunk in _chunks(body, reply):
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")

    def _json(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, message: str) -> None:
        self._json(status, {"error": {"message": message, "type": "stand_in"}})

    def log_message(self, format: str, *args: Any) -> None:
        """One line a request: nothing of its content."""
        sys.stderr.write(f"{self.command} {self.path.partition('?')[0]} {args[1] if len(args) > 1 else ''}\n")


def _tool_call(reply: Reply) -> list[dict[str, Any]]:
    name, arguments = reply.tool or ("", "{}")
    call = {
        "id": f"call_{time.time_ns()}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    return [{"index": 0, **call}]


def _usage(body: dict[str, Any], reply: Reply) -> dict[str, int]:
    prompt = sum(len(text_of(message.get("content")).split()) for message in body["messages"])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": len(reply.words),
        "total_tokens": prompt + len(reply.words),
    }


def _chunks(body: dict[str, Any], reply: Reply) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer, each at its time."""
    head = {
        "id": f"chatcmpl-{time.time_ns()}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body.get("model", MODEL),
    }

    def event(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield event({"role": "assistant", "content": ""})
    for number, word in enumerate(reply.words):
        Handler.hurry.wait(reply.pause)
        yield event({"content": word if number == 0 else f" {word}"})
    if reply.tool:
        yield event({"tool_calls": _tool_call(reply)})
    yield {**event({}, "tool_calls" if reply.tool else "stop"), "usage": _usage(body, reply)}


def _completion(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """The answer in one piece."""
    message: dict[str, Any] = {"role": "assistant", "content": " ".join(reply.words)}
    if reply.tool:
        message = {**message, "content": message["content"] or None, "tool_calls": _tool_call(reply)}
    return {
        "id": f"chatcmpl-{time.time_ns()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model", MODEL),
        "choices": [
            {"index": 0, "message": message, "finish_reason": "tool_calls" if reply.tool else "stop"}
        ],
        "usage": _usage(body, reply),
    }


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="A stand-in for the LLM provider.")
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=18080)
    options = parser.parse_args()
    server = ThreadingHTTPServer((options.bind, options.port), Handler)
    server.daemon_threads = True
    # As the first process of a container it must say itself what SIGTERM means.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


if __name__ == "__main__":
    main()
