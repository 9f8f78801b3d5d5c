"""The way in: what gets through the proxy to a gateway, and everything that must not, with the right token."""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from clawbench.hosts import Bench
from clawbench.inventory import MACHINE

BENCH = Bench.of(Path(os.environ["CLAW_DEMO_STATE"]))
GATEWAYS = ("gw-a", "gw-b")
PORT = 8080
ALLOWED = {"/v1/responses": "POST", "/v1/chat/completions": "POST", "/healthz": "GET"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE", "CONNECT")
TURN = {"model": "openclaw", "input": "hello"}
Headers = list[tuple[str, str]]


class Way:
    """The way in to one gateway, with its token and two of the agents it serves."""

    def __init__(self, machine: Any, name: str) -> None:
        self.name = name
        self.token = machine.file(f"/var/lib/claw/{name}/token").content_string
        roster = json.loads(machine.file(f"/etc/claw/{name}/agents.json").content_string)
        assert roster, f"gateway {name} serves nobody"
        self.agent = sorted(roster)[0]

    def ask(
        self,
        method: str,
        path: str,
        headers: Headers | None = None,
        body: Any = None,
        token: str | None = None,
    ) -> tuple[int, Any]:
        """Status and body of a request whose path is sent as it stands; JSON is decoded."""
        data = json.dumps(TURN if body is None else body).encode()
        connection = http.client.HTTPConnection(BENCH.facts()["hosts"][MACHINE], PORT, timeout=60)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            bearer = self.token if token is None else token
            given = [("x-openclaw-agent-id", self.agent)] if headers is None else headers
            for name, value in [("content-type", "application/json"), *given]:
                connection.putheader(name, value)
            if bearer:
                connection.putheader("authorization", f"Bearer {bearer}")
            connection.putheader("content-length", str(len(data)))
            connection.endheaders(data)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(content)
        except ValueError:
            return answer.status, content


@pytest.fixture(scope="module", params=GATEWAYS)
def way(request: pytest.FixtureRequest, machine: Any) -> Way:
    return Way(machine, request.param)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", TURN),
        ("/v1/chat/completions", {"model": "openclaw", "messages": [{"role": "user", "content": "hello"}]}),
    ],
)
def test_an_agent_answers(way: Way, path: str, body: dict[str, Any]) -> None:
    status, answer = way.ask("POST", f"/{way.name}{path}", body=body)
    assert status == 200
    said = (
        answer["output"][0]["content"][0]["text"]
        if "output" in answer
        else answer["choices"][0]["message"]["content"]
    )
    assert said.strip()


def test_health_is_open(way: Way) -> None:
    assert way.ask("GET", f"/{way.name}/healthz", token="")[0] == 200


@pytest.mark.parametrize("token", ["", "0" * 48])
def test_who_has_no_token_is_refused_by_the_gateway(way: Way, token: str) -> None:
    refusal = {"error": {"message": "Unauthorized", "type": "unauthorized"}}
    assert way.ask("POST", f"/{way.name}/v1/responses", token=token) == (401, refusal)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/{gw}",
        "/{gw}/",
        "/{gw}/api/v1/admin/rpc",
        "/{gw}/v1/models",
        "/{gw}/v1/embeddings",
        "/{gw}/tools/invoke",
        "/{gw}/readyz",
        "/{gw}/v1/responses/",
        "/{gw}/v1/responses?x=1",
        "/{gw}/v1/responses;x",
        "/{gw}/v1/responses/../../api/v1/admin/rpc",
        "/{gw}/v1/responses%2f..%2f..%2fapi/v1/admin/rpc",
        "/{gw}/v1/%2e%2e/api/v1/admin/rpc",
        "//{gw}/v1/responses",
        "/{gw}//v1/responses",
        "/{gw}/./v1/responses",
        "/{gw}/v1/x/../responses",
        "/{gw}/%761/responses",
        "/{gw}/v1%2fresponses",
        "/{gw}/V1/Responses",
        "/GW-A/v1/responses",
        "/gw-z/v1/responses",
        "/{gw}/healthz/../api/v1/admin/rpc",
        "http://127.0.0.1:18789/api/v1/admin/rpc",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_there_is_nothing_else(way: Way, method: str, path: str) -> None:
    body = {"method": "health", "params": {}}
    status, answer = way.ask(method, path.format(gw=way.name), body=body)
    assert (status, answer["error"]["type"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "method"),
    [(path, method) for path, allowed in ALLOWED.items() for method in METHODS if method != allowed],
)
def test_with_another_method_there_is_nothing(way: Way, path: str, method: str) -> None:
    status, answer = way.ask(method, f"/{way.name}{path}")
    nothing = {"error": {"message": "There is nothing here.", "type": "not_found"}}
    assert (status, answer) == (404, b"" if method == "HEAD" else nothing)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x-openclaw-agent-id", "")],
        [("x-openclaw-agent-id", "main")],
        [("x-openclaw-agent-id", "MAIN")],
        [("x-openclaw-agent-id", "Main")],
        [("x-openclaw-agent-id", "-x")],
        [("x-openclaw-agent-id", "a b")],
        [("x-openclaw-agent-id", "a" * 65)],
        [("x-openclaw-agent-id", "main"), ("x-openclaw-agent-id", "main")],
        [("x-openclaw-agent", "{agent}")],
        [("x_openclaw_agent_id", "{agent}")],
    ],
)
@pytest.mark.parametrize("model", ["openclaw", "openclaw/{agent}", "agent:{agent}"])
def test_a_request_names_its_agent(way: Way, headers: Headers, model: str) -> None:
    given = [(name, value.format(agent=way.agent)) for name, value in headers]
    body = {"model": model.format(agent=way.agent), "input": "hello"}
    status, answer = way.ask("POST", f"/{way.name}/v1/responses", given, body)
    message = "The header x-openclaw-agent-id must name an agent."
    assert (status, answer) == (400, {"error": {"message": message, "type": "invalid_request_error"}})


def test_an_unknown_agent_is_the_gateways_answer(way: Way) -> None:
    status, answer = way.ask("POST", f"/{way.name}/v1/responses", [("x-openclaw-agent-id", "nobody")])
    assert (status, answer["error"]["message"]) == (400, "Unknown agent 'nobody'.")


@pytest.mark.parametrize(
    "session",
    [
        "agent:other:main",
        "AGENT:other:main",
        "agent:main:main",
        "main",
        "agent:{agent}",
        "agent:{agent}:",
        "agent:{agent}:a b",
        "agent:{agent}x:main",
        "global",
    ],
)
def test_a_session_is_the_agents_own(way: Way, session: str) -> None:
    headers = [
        ("x-openclaw-agent-id", way.agent),
        ("x-openclaw-session-key", session.format(agent=way.agent)),
    ]
    status, answer = way.ask("POST", f"/{way.name}/v1/responses", headers)
    assert status == 400
    assert "x-openclaw-session-key must be agent:ID:NAME" in answer["error"]["message"]


def test_a_session_of_its_own_goes_on(way: Way) -> None:
    session = f"agent:{way.agent}:test-{time.time_ns()}"
    headers = [("x-openclaw-agent-id", way.agent), ("x-openclaw-session-key", session)]
    for text, expected in (("remember the pineapple", "completed"), ("recall", "1 earlier")):
        body = {"model": "openclaw", "input": text}
        status, answer = way.ask("POST", f"/{way.name}/v1/responses", headers, body)
        assert status == 200
        assert expected in json.dumps(answer)


def test_headers_for_operators_do_not_get_through(way: Way) -> None:
    headers = [("x-openclaw-agent-id", way.agent), ("x-openclaw-model", "no-such-provider/no-such-model")]
    assert way.ask("POST", f"/{way.name}/v1/responses", headers)[0] == 200


def test_a_body_that_is_too_large_is_refused(way: Way) -> None:
    body = {"model": "openclaw", "input": "x" * (21 * 1024 * 1024)}
    assert way.ask("POST", f"/{way.name}/v1/responses", body=body)[0] == 413


def test_a_stream_comes_as_it_is_said(way: Way) -> None:
    connection = http.client.HTTPConnection(BENCH.facts()["hosts"][MACHINE], PORT, timeout=60)
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {way.token}",
        "x-openclaw-agent-id": way.agent,
    }
    body = {"model": "openclaw", "stream": True, "input": "slow:3"}
    connection.request("POST", f"/{way.name}/v1/responses", json.dumps(body), headers)
    answer = connection.getresponse()
    times: list[float] = []
    while chunk := answer.read1(65536):
        if b"response.output_text.delta" in chunk:
            times.append(time.monotonic())
    connection.close()
    assert len(times) >= 3
    assert times[-1] - times[0] > 1


def test_log_tells_no_secret(machine: Any, way: Way) -> None:
    marker = f"marker-{time.time_ns()}"
    way.ask("POST", f"/{way.name}/v1/{marker}?token={way.token}")
    log = machine.check_output(
        "journalctl --identifier=claw_proxy --identifier=claw-proxy --output=cat --no-pager"
    )
    line = next(line for line in log.splitlines() if marker in line)
    assert re.search(rf'"POST /{way.name}/v1/{marker}" 404 ', line)
    assert way.token not in log


def test_proxy_runs_alone(machine: Any) -> None:
    proxy = machine.service("claw-proxy.service")
    assert proxy.is_running
    assert proxy.is_enabled
    assert not machine.service("nginx.service").is_running
    assert not machine.socket("tcp://0.0.0.0:80").is_listening


def test_from_outside_there_are_ssh_and_the_proxy_alone(seen: dict[str, set[int]]) -> None:
    assert seen == {"TCP": {22, 8080}, "UDP": set()}
