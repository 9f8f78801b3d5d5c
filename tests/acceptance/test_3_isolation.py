"""Coaches never share anything; agents have no tool that touches the machine; one narrow way in."""

from __future__ import annotations

import json
import re
import uuid
from functools import partial

import httpx
import pytest

from .fleet import Fleet, until

TOOLS = (
    "exec", "process", "read", "write", "edit", "apply_patch", "openclaw", "plugins", "terminal", "secrets", "gateway",
    "nodes", "cron", "automations", "sessions_list", "sessions_history", "sessions_search", "sessions_send",
    "sessions_spawn", "subagents", "agents_list", "browser", "web_fetch", "web_search", "canvas", "image", "message",
    "memory_search", "memory_get", "tool_call", "portal",
)  # fmt: skip
NAMED = {"edit", "exec", "ls", "read", "write"}
OF_OPENCLAW = {"apply_patch", "tool_call", "tool_describe", "tool_search"}
"""What OpenClaw offers beside the tools that were named: its catalog, and one that the guard refuses."""
REFUSALS = "not found|has not named|takes no|only `?journeyloop`? can be|only files of the workspace"


@pytest.fixture(scope="module")
def neighbours(fleet: Fleet) -> tuple[str, str, str]:
    """Two coaches on one gateway, and its name."""
    anna, clara = fleet.row("coach-anna"), fleet.row("coach-clara")
    assert anna["gateway"] == clara["gateway"]
    return "coach-anna", "coach-clara", anna["gateway"]


@pytest.mark.parametrize("tool", TOOLS)
def test_no_tool_reaches_the_machine(fleet: Fleet, tool: str) -> None:
    before = fleet.heard_until_now()
    mark = uuid.uuid4().hex
    wish = {"command": f"touch /tmp/{mark}", "path": f"/tmp/{mark}"}
    given = {"id": "exec", "args": wish} if tool == "tool_call" else wish
    asked = f"tool:{tool} {json.dumps(given)}"
    reply = fleet.turn(fleet.row("coach-anna")["gateway"], "coach-anna", asked)
    assert reply.status == 200
    heard = fleet.heard(after=before)
    assert heard[0]["directive"] == "tool", "the stand-in did ask for the tool"
    for request in heard:
        assert NAMED <= set(request["tools"]) <= NAMED | OF_OPENCLAW
    assert fleet.machine.run(f"find / -xdev -name '{mark}*' | grep .").rc == 1
    # What comes back to the model, if it is asked again at all, is that it may not.
    for request in heard[1:]:
        assert re.search(REFUSALS, str(request["messages"]), re.IGNORECASE)


def test_an_agent_cannot_find_the_session_of_another(fleet: Fleet, neighbours: tuple[str, str, str]) -> None:
    owner, other, _gateway = neighbours
    secret = f"SECRET-{uuid.uuid4().hex}"
    fleet.ask(owner, f"remember {secret}", "private")
    assert secret in fleet.ask(owner, "recall", "private").text
    before = fleet.heard_until_now()
    for text in ("recall", f'tool:sessions_search {{"query": "{secret[:10]}"}}', "tool:sessions_list {}"):
        reply = fleet.ask(other, text, "private")
        assert reply.status == 200
        assert secret not in reply.text
    assert len(fleet.heard(after=before)) >= 3
    assert not [request for request in fleet.heard(after=before) if secret in str(request)]


def test_two_sessions_of_one_agent_never_mix(fleet: Fleet) -> None:
    one, two = (f"SECRET-{uuid.uuid4().hex}" for _ in range(2))
    fleet.ask("coach-anna", f"remember {one}", "session-one")
    fleet.ask("coach-anna", f"remember {two}", "session-two")
    first, second = (
        fleet.ask("coach-anna", "recall", "session-one"),
        fleet.ask("coach-anna", "recall", "session-two"),
    )
    assert one in first.text and two not in first.text
    assert two in second.text and one not in second.text


def test_a_session_key_of_another_agent_leads_nowhere(fleet: Fleet, neighbours: tuple[str, str, str]) -> None:
    """Whoever holds the gateway's token names one agent and a session of another: she does not get those words."""
    owner, other, gateway = neighbours
    secret, own = f"SECRET-{uuid.uuid4().hex}", f"agent:{owner}:cross"
    assert fleet.turn(gateway, owner, f"remember {secret}", x_openclaw_session_key=own).status == 200
    assert secret in fleet.turn(gateway, owner, "recall", x_openclaw_session_key=own).text
    before = fleet.heard_until_now()
    for key in ("cross", own, own.upper(), f"agent:{owner}:main", f"agent:{other}:x,{own}"):
        reply = fleet.turn(gateway, other, "recall", x_openclaw_session_key=key)
        assert reply.status == 400, key
    assert fleet.heard(after=before) == []
    fresh = fleet.turn(gateway, other, "recall", x_openclaw_session_key=f"agent:{other}:cross")
    assert fresh.status == 200 and secret not in fresh.text


REFUSED = [
    ("POST", "/api/v1/admin/rpc"),
    ("GET", "/v1/models"),
    ("POST", "/tools/invoke"),
    ("GET", "/"),
    ("GET", "/openclaw"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses/../../api/v1/admin/rpc"),
    ("POST", "/v1/responses/..%2f..%2fapi/v1/admin/rpc"),
    ("POST", "//api/v1/admin/rpc"),
    ("POST", "/V1/RESPONSES"),
    ("POST", "/v1/responses/"),
    ("POST", "/v1/responses%00"),
    ("POST", "/v1/models?/v1/responses"),
    ("POST", "/readyz"),
]


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_everything_else_is_not_found_also_with_the_token(fleet: Fleet, method: str, path: str) -> None:
    gateway = fleet.row("coach-anna")["gateway"]
    body = {"method": "config.get", "params": {}}
    with fleet.way_in(gateway) as http:
        url = httpx.URL(f"{str(http.base_url).rstrip('/')}").copy_with(raw_path=f"/{gateway}{path}".encode())
        answer = http.request(method, url, json=body, headers={"x-openclaw-agent-id": "coach-anna"})
    assert answer.status_code in (404, 400) if "%00" in path else answer.status_code == 404, answer.text
    assert "payload" not in answer.text


def test_health_passes_and_says_nothing_else(fleet: Fleet) -> None:
    with fleet.way_in(fleet.row("coach-anna")["gateway"]) as http:
        answer = http.get("/healthz")
    assert answer.status_code == 200
    assert "coach-" not in answer.text and set(answer.json()) <= {"ok", "status"}


def test_both_endpoints_answer(fleet: Fleet) -> None:
    body = {"model": "openclaw", "messages": [{"role": "user", "content": "hello"}]}
    with fleet.way_in(fleet.row("coach-anna")["gateway"]) as http:
        answer = http.post("/v1/chat/completions", json=body, headers={"x-openclaw-agent-id": "coach-anna"})
    assert answer.status_code == 200
    assert "Anna" in answer.json()["choices"][0]["message"]["content"]


def test_the_first_word_arrives_before_the_last_is_made(fleet: Fleet) -> None:
    for reply in (
        fleet.ask("coach-anna", "slow:5", "stream"),
        fleet.turn(fleet.row("coach-anna")["gateway"], "coach-anna", "slow:5"),
    ):
        assert reply.status == 200
        assert reply.arrivals[-1] - reply.arrivals[0] >= 3


def test_gateways_of_one_machine_cannot_read_each_other(fleet: Fleet) -> None:
    for one, other in (("gw-a", "gw-b"), ("gw-b", "gw-a")):
        for path in (
            f"/var/lib/claw/{other}",
            f"/var/lib/claw/{other}/token",
            f"/etc/claw/{other}/agents.json",
        ):
            assert (
                fleet.machine.run(
                    f"runuser -u claw-{one} -- cat {path} || runuser -u claw-{one} -- ls {path}"
                ).rc
                != 0
            )
        own = f"/etc/claw/{one}/agents.json"
        assert fleet.machine.run(f"runuser -u claw-{one} -- cat {own}").rc == 0
        for attempt in (
            f"sh -c 'echo x >> {own}'",
            f"mv {own} {own}.x",
            f"touch /etc/claw/{one}/x",
            f"rm -f {own}",
        ):
            assert fleet.machine.run(f"runuser -u claw-{one} -- {attempt}").rc != 0
        listening = fleet.sh("ss -Hltn").splitlines()
        ports = {line.split()[3] for line in listening}
        open_ports = {port for port in ports if not port.startswith(("127.", "[::1]"))}
        assert {port.rpartition(":")[2] for port in open_ports} <= {"22", "8080"}, open_ports


def test_after_a_reboot_all_answer(fleet: Fleet) -> None:
    address = fleet.bench.facts()["hosts"]["machine1"]
    active = [agent_id for agent_id, row in fleet.rows().items() if row["status"] == "active"]
    assert len(active) >= 3
    fleet.reboot()
    assert fleet.bench.facts()["hosts"]["machine1"] == address
    for gateway in ("gw-a", "gw-b"):
        until(f"{gateway} to be back", partial(_healthy, fleet, gateway), seconds=180)
    for agent_id in active:
        reply = fleet.ask(agent_id, "still there?")
        assert reply.status == 200 and reply.text, agent_id
    play = fleet.play("playbooks/site.yml")
    assert (play.rc, play.changed) == (0, []), play.output


def _healthy(fleet: Fleet, gateway: str) -> bool:
    with fleet.way_in(gateway) as http:
        try:
            return http.get("/healthz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False
