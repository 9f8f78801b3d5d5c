# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said when a gateway does not do as it is asked; that it does is tested with a real one."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _activation
from ansible_collections.claw.fleet.plugins.module_utils._activation import Activation
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    Gateway,
    GatewayError,
    GatewayRefused,
    GatewayUnreachable,
)
from ansible_collections.claw.fleet.plugins.module_utils._manifest import Manifest
from ansible_collections.claw.fleet.plugins.module_utils._roster import Roster, RosterError
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import (
    Supervisor,
    SupervisorError,
    Systemd,
    UnitState,
)
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import row
from ansible_collections.claw.fleet.tests.unit.plugins.offline import OfflineGateway, offline_gateway

TOKEN = "ab" * 24
RUNNING = UnitState("active", "running", 7, "success", 0)
FAILED = UnitState("failed", "failed", 0, "exit-code", 78)


class Answers:
    """A server that answers each path by a list of (status, JSON), of which the last one stays; 0 is to hang up."""

    def __init__(self) -> None:
        self.of: dict[str, list[tuple[int, Any]]] = {"/readyz": [(200, {"ready": True})]}
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.port = 0

    def next(self, path: str) -> tuple[int, Any]:
        answers = self.of.get(path, [(404, None)])
        return answers.pop(0) if len(answers) > 1 else answers[0]


class Scripted:
    """A supervisor that tells one state after the other, of which the last one stays."""

    def __init__(self, *states: UnitState) -> None:
        self.states = list(states)
        self.starts = 0

    def state(self) -> UnitState:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def start(self) -> None:
        self.starts += 1
        self.states = [RUNNING]

    def words(self, since: float) -> str:
        return "some words"


@pytest.fixture
def answers() -> Iterator[Answers]:
    found = Answers()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            found.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status, answer = found.next(self.path)
            if not status:
                self.close_connection = True
                return
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = handle_any

        def log_message(self, *args: Any) -> None:
            """Tests read ``requests`` instead."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    found.port = server.server_port
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def gateway_at(place: Path, port: int, supervisor: Supervisor | None = None) -> OfflineGateway:
    gateway = offline_gateway(place)
    Path(gateway.token_file).write_text(f"{TOKEN}\n")
    return dataclasses.replace(gateway, port=port, supervisor=supervisor or Scripted(RUNNING))


@pytest.fixture
def gateway(tmp_path: Path, answers: Answers) -> OfflineGateway:
    return gateway_at(tmp_path, answers.port)


def config(entries: dict[str, Any], **more: Any) -> tuple[int, Any]:
    """An answer to config.get."""
    main = {"agents": {"entries": {"main": {}, "$include": ["x"]}}}
    source = {"agents": {"entries": {"main": {}, **entries}}}
    found = {"valid": True, "parsed": main, "sourceConfig": source, "issues": []}
    found |= {"configRevisionHash": "1", "appliedConfigHash": "1", **more}
    return 200, {"ok": True, "payload": found}


def entry(gateway: Gateway, name: str) -> dict[str, str]:
    state = gateway.state_dir
    return {
        "name": name,
        "workspace": f"{state}/workspaces/{name}",
        "agentDir": f"{state}/agents/{name}/agent",
    }


def test_a_descriptor_is_asked_for_in_words(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match=r"no gateway 'gw-a' on this machine .* run the role"):
        Gateway.load("gw-a", str(tmp_path))
    (tmp_path / "gw-a").mkdir()
    path = tmp_path / "gw-a" / "gateway.json"
    for content, reason in (
        ("{", "is not JSON"),
        ("[]", "JSON object"),
        ('{"name": "gw-a"}', "lacks user, group"),
    ):
        path.write_text(content)
        with pytest.raises(GatewayError, match=reason):
            Gateway.load("gw-a", str(tmp_path))


def test_a_descriptor_makes_a_gateway_under_systemd(tmp_path: Path) -> None:
    offline = dataclasses.asdict(offline_gateway(tmp_path))
    del offline["supervisor"]
    (tmp_path / "gw-a").mkdir()
    (tmp_path / "gw-a" / "gateway.json").write_text(json.dumps(offline))
    loaded = Gateway.load("gw-a", str(tmp_path))
    assert isinstance(loaded.supervisor, Systemd)
    assert loaded.supervisor.unit == "openclaw-gateway@gw-a.service"
    assert loaded.port == 1


def test_the_token_is_sent_and_never_told(gateway: OfflineGateway, answers: Answers) -> None:
    answers.of["/api/v1/admin/rpc"] = [(401, {"error": {"message": "Unauthorized", "type": "unauthorized"}})]
    with pytest.raises(GatewayRefused, match=r"refuses config\.get: Unauthorized") as caught:
        gateway.served()
    assert answers.requests[-1][1]["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in f"{caught.value!r} {gateway!r}"
    Path(gateway.token_file).unlink()
    with pytest.raises(GatewayError, match="is absent or empty"):
        gateway.served()


def test_a_refusal_has_the_gateways_words(gateway: OfflineGateway, answers: Answers) -> None:
    refusal = {"ok": False, "error": {"code": "UNAVAILABLE", "message": "busy", "retryAfterMs": 1500}}
    answers.of["/api/v1/admin/rpc"] = [(503, refusal)]
    with pytest.raises(GatewayRefused, match="busy") as caught:
        gateway.rpc("config.patch", {"x": 1})
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "UNAVAILABLE", 1.5)
    assert answers.requests[-1][2] == {"method": "config.patch", "params": {"x": 1}}
    answers.of["/api/v1/admin/rpc"] = [(502, "<html>")]
    with pytest.raises(GatewayRefused, match="HTTP status 502"):
        gateway.rpc("health")


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        gateway = gateway_at(tmp_path, probe.getsockname()[1])
        assert gateway.ready() is False
        with pytest.raises(GatewayUnreachable, match="does not answer on port"):
            gateway.served()


def test_waiting_ends_when_the_process_has(tmp_path: Path, answers: Answers) -> None:
    answers.of["/readyz"] = [(503, {"ready": False})]
    dying = gateway_at(tmp_path, answers.port, Scripted(RUNNING, RUNNING, FAILED))
    with pytest.raises(GatewayError, match=r"is failed: .* status 78 \(78: it refuses its config\)"):
        dying.wait_ready(30)
    never = dataclasses.replace(dying, supervisor=Scripted(RUNNING))
    with pytest.raises(GatewayError, match=r"not ready after 0\.1 s"):
        never.wait_ready(0.1)


def test_a_turn_names_its_agent_and_session(gateway: OfflineGateway, answers: Answers) -> None:
    part = {"type": "output_text", "text": "hello"}
    answers.of["/v1/responses"] = [(200, {"status": "completed", "output": [{"content": [part, part]}]})]
    assert gateway.turn("anna", "hi", "activation", 5) == "hellohello"
    headers = answers.requests[-1][1]
    assert headers["x-openclaw-agent-id"] == "anna"
    assert headers["x-openclaw-session-key"] == "agent:anna:activation"
    answers.of["/v1/responses"] = [(500, {"status": "failed", "error": {"message": "internal error"}})]
    with pytest.raises(GatewayRefused, match="could not run a turn of anna: internal error"):
        gateway.turn("anna", "hi", "activation", 5)


def test_a_config_without_the_include_is_not_validated(gateway: OfflineGateway) -> None:
    other = '{"agents": {"entries": {"$include": ["/elsewhere.json"]}}}'
    for content in ("{}", "not json", '{"agents": {"entries": {"$include": 1}}}', other):
        Path(gateway.config).write_text(content)
        with pytest.raises(GatewayError, match="is not JSON that includes the roster"):
            Gateway.validate(gateway, roster=b"{}")
    Path(gateway.config).unlink()
    with pytest.raises(GatewayError, match="is absent"):
        Gateway.validate(gateway, roster=b"{}")


def test_a_gateway_that_objects_gets_the_old_roster_back(gateway: OfflineGateway, answers: Answers) -> None:
    anna, bert = entry(gateway, "anna"), entry(gateway, "bert")
    rpc = answers.of["/api/v1/admin/rpc"] = [config({"anna": anna})]
    roster = Roster(gateway)
    assert roster.apply({"anna": anna}).reloads == 1
    before = Path(gateway.roster).read_bytes()
    objection = config({}, valid=False, issues=[{"path": "agents", "message": "no more of them"}])
    rpc[:] = [config({"anna": anna}), *[objection] * 4, config({"anna": anna})]
    with pytest.raises(
        RosterError, match=r"agents: no more of them\. The old roster was put back and is served"
    ):
        roster.apply({"anna": anna, "bert": bert})
    assert Path(gateway.roster).read_bytes() == before


def test_a_gateway_that_cannot_be_asked_keeps_its_roster(gateway: OfflineGateway, answers: Answers) -> None:
    answers.of["/api/v1/admin/rpc"] = [(401, {"error": {"message": "Unauthorized"}})]
    with pytest.raises(GatewayRefused):
        Roster(gateway).apply({"anna": entry(gateway, "anna")})
    assert not Path(gateway.roster).exists()


def test_a_stale_answer_is_not_taken_for_proof(gateway: OfflineGateway, answers: Answers) -> None:
    anna = entry(gateway, "anna")
    stale, applying = config({}), config({"anna": anna}, appliedConfigHash="0")
    answers.of["/api/v1/admin/rpc"] = [stale, stale, applying, config({"anna": anna}), (500, None)]
    assert Roster(gateway).apply({"anna": anna}).reloads == 1


def test_a_process_that_failed_is_started_once(tmp_path: Path, answers: Answers) -> None:
    supervisor = Scripted(RUNNING, RUNNING, RUNNING, FAILED)
    gateway = gateway_at(tmp_path, answers.port, supervisor)
    anna = entry(gateway, "anna")
    answers.of["/api/v1/admin/rpc"] = [config({}), config({}), config({"anna": anna})]
    assert Roster(gateway).apply({"anna": anna}).changed is True
    assert supervisor.starts == 1


def test_a_gateway_that_dies_of_the_roster_twice_gets_the_old_one_back(
    tmp_path: Path, answers: Answers
) -> None:
    second, third = RUNNING._replace(pid=8), RUNNING._replace(pid=9)
    gateway = gateway_at(tmp_path, answers.port, Scripted(RUNNING))
    anna, bert = entry(gateway, "anna"), entry(gateway, "bert")
    rpc = answers.of["/api/v1/admin/rpc"] = [config({"anna": anna})]
    assert Roster(gateway).apply({"anna": anna}).reloads == 1
    before = Path(gateway.roster).read_bytes()
    dying = dataclasses.replace(
        gateway, supervisor=Scripted(RUNNING, RUNNING, RUNNING, second, second, third)
    )
    rpc[:] = [config({"anna": anna})]
    with pytest.raises(
        RosterError,
        match=r"ended twice over .*\. It said:\nsome words\nThe old roster was put back and is served",
    ):
        Roster(dying).apply({"anna": anna, "bert": bert})
    assert Path(gateway.roster).read_bytes() == before


def test_a_gateway_that_an_operator_stopped_meanwhile_is_not_started_for_the_new_roster(
    tmp_path: Path, answers: Any
) -> None:
    stopped = UnitState("inactive", "dead", 0, "success", 0)
    supervisor = Scripted(RUNNING, RUNNING, RUNNING, stopped)
    gateway = gateway_at(tmp_path, answers.port, supervisor)
    answers.of["/api/v1/admin/rpc"] = [config({})]
    anna = {"anna": entry(gateway, "anna")}
    with pytest.raises(RosterError, match="was stopped before it served the new roster"):
        Roster(gateway).apply(anna)
    assert supervisor.starts == 0
    assert Roster(gateway).entries() == anna


def test_a_gateway_that_was_restarted_during_the_checks_is_looked_at_anew(
    tmp_path: Path, answers: Answers
) -> None:
    other = RUNNING._replace(pid=8)
    gateway = gateway_at(tmp_path, answers.port, Scripted(RUNNING, RUNNING, other))
    anna = entry(gateway, "anna")
    answers.of["/api/v1/admin/rpc"] = [config({}), config({}), config({"anna": anna})]
    assert Roster(gateway).apply({"anna": anna}).reloads == 1


def test_what_is_on_disk_is_proven_although_nothing_changes(
    gateway: OfflineGateway, answers: Answers
) -> None:
    anna = entry(gateway, "anna")
    rpc = answers.of["/api/v1/admin/rpc"] = [config({"anna": anna})]
    Roster(gateway).apply({"anna": anna})
    rpc[:] = [config({}), config({"anna": anna})]
    assert Roster(gateway).apply({"anna": anna}) == (False, {"anna": anna}, {"anna": anna}, 0, True)
    assert len(rpc) == 1
    rpc[:] = [config({})]
    with pytest.raises(RosterError, match="serves other entries"):
        Roster(gateway, serve_timeout=0).apply({"anna": anna})


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first turn is taken again at once."""
    monkeypatch.setattr(_activation, "_PAUSES", (0, 0, 0))


def activation(gateway: Gateway, expect: str | None = None) -> Activation:
    return Activation(gateway, text="hi", expect=expect, timeout=5, parallel=2)


def answer(text: str) -> tuple[int, Any]:
    content = [{"type": "output_text", "text": text}]
    return 200, {"status": "completed", "output": [{"content": content}]}


def test_first_turns_are_taken_once(gateway: OfflineGateway, answers: Answers) -> None:
    answers.of["/v1/responses"] = [answer("hello")]
    rows = [
        row(1),
        row(2, status="active"),
        row(3, wanted="paused"),
        row(4, error={"step": "agent", "reason": "because"}),
        row(5, status="error"),
    ]
    predicted = activation(gateway).run(rows, check=True)
    assert answers.requests == []
    done = activation(gateway).run(rows)
    assert done == predicted
    assert [item.get("actions") for item in done.results] == [
        ["took its first turn"],
        None,
        None,
        None,
        ["took its first turn"],
    ]
    assert sorted(
        headers["x-openclaw-agent-id"] for path, headers, _body in answers.requests if path != "/readyz"
    ) == [
        "coach-1",
        "coach-5",
    ]
    for check in (True, False):
        assert activation(gateway).run(rows, check=check).changed is False


def test_a_first_turn_that_the_gateway_fails_is_taken_again(
    gateway: OfflineGateway, answers: Answers
) -> None:
    failed = 500, {"status": "failed", "error": {"message": "internal error"}}
    answers.of["/v1/responses"] = [failed, failed, failed, answer("hello")]
    assert "error" not in activation(gateway).run([row(1)]).results[0]
    provider = 502, {"error": {"message": "upstream provider error"}}
    answers.of["/v1/responses"] = [provider, answer("hello")]
    assert "upstream" in activation(gateway).run([row(3)]).results[0]["error"]["reason"]
    answers.of["/v1/responses"] = [(400, {"error": {"message": "no such agent"}}), answer("hello")]
    assert "no such agent" in activation(gateway).run([row(2)]).results[0]["error"]["reason"]


def test_first_turns_go_on_with_a_gateway_that_ended_and_came_back(tmp_path: Path, answers: Answers) -> None:
    ending = UnitState("deactivating", "stop-sigterm", 0, "signal", 9)
    coming = UnitState("activating", "auto-restart", 0, "signal", 9)
    gateway = gateway_at(tmp_path, answers.port, Scripted(RUNNING, ending, coming, RUNNING))
    answers.of["/v1/responses"] = [(0, None), answer("hello")]
    assert "error" not in activation(gateway).run([row(1)]).results[0]


def test_first_turns_end_with_a_gateway_that_stays_away(tmp_path: Path, answers: Answers) -> None:
    ending = UnitState("deactivating", "stop-sigterm", 0, "exit-code", 78)
    gateway = gateway_at(tmp_path, answers.port, Scripted(RUNNING, ending, FAILED))
    answers.of["/v1/responses"] = [(0, None), answer("hello")]
    assert "it refuses its config" in activation(gateway).run([row(1)]).results[0]["error"]["reason"]


def test_a_first_turn_that_takes_too_long_is_not_taken_again(
    gateway: OfflineGateway, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_arguments: object, **_more: object) -> None:
        answers.requests.append(("turn", {}, None))
        raise GatewayUnreachable("gateway gw-a does not answer: timed out") from TimeoutError("timed out")

    monkeypatch.setattr(Gateway, "turn", slow)
    assert "timed out" in activation(gateway).run([row(1)]).results[0]["error"]["reason"]
    assert [path for path, _headers, _body in answers.requests].count("turn") == 1


@pytest.mark.parametrize(
    ("reply", "expect", "reason"),
    [
        ((500, {"status": "failed", "error": {"message": "no such model"}}), None, "no such model"),
        (answer(" \n"), None, "answered its first turn with nothing"),
        (answer("hello"), "sesame", "did not answer with 'sesame' in its first turn but with 'hello'"),
    ],
)
def test_an_agent_that_does_not_answer_is_in_error_and_tried_again(
    gateway: OfflineGateway, answers: Answers, reply: tuple[int, Any], expect: str | None, reason: str
) -> None:
    answers.of["/v1/responses"] = [reply]
    done = activation(gateway, expect).run([row(1)])
    assert reason in done.results[0]["error"]["reason"]
    assert done.results[0]["error"]["step"] == "activation"
    assert Manifest(gateway).activated == set()
    answers.of["/v1/responses"] = [answer("sesame")]
    assert "error" not in activation(gateway, expect).run([row(1)]).results[0]
    assert Manifest(gateway).activated == {"coach-1"}


def test_words_hold_no_secret(
    gateway: OfflineGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("token", "provider-x.key"):
        (Path(gateway.state_dir) / name).write_text(f"geheim-{name}")
    journalctl = tmp_path / "journalctl"
    journalctl.write_text("#!/bin/sh\necho using geheim-token and geheim-provider-x.key\n")
    journalctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    words = dataclasses.replace(gateway, supervisor=Systemd(gateway.unit)).words(0)
    assert words == "using VALUE HIDDEN and VALUE HIDDEN"


def test_words_are_kept_back_where_a_secret_cannot_be_read(gateway: OfflineGateway) -> None:
    (Path(gateway.state_dir) / "token.planted").symlink_to("/etc/passwd")
    running = dataclasses.replace(gateway, supervisor=Scripted(RUNNING))
    assert running.words(0).startswith("(it cannot be told: ")


def test_the_old_roster_is_put_back_also_where_the_end_cannot_be_looked_at(
    tmp_path: Path, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = gateway_at(tmp_path, answers.port, Scripted(RUNNING))
    anna, bert = entry(gateway, "anna"), entry(gateway, "bert")
    rpc = answers.of["/api/v1/admin/rpc"] = [config({"anna": anna})]
    Roster(gateway).apply({"anna": anna})
    before = Path(gateway.roster).read_bytes()
    objection = config({}, valid=False, issues=[{"path": "agents", "message": "no more of them"}])
    rpc[:] = [config({"anna": anna}), *[objection] * 4, config({"anna": anna})]
    faults = [SupervisorError("systemctl show did not work")]
    state = Scripted.state

    def failing_once(self: Scripted) -> UnitState:
        # When the gateway has objected for the last time, and once.
        if len(rpc) == 1 and faults:
            raise faults.pop()
        return state(self)

    monkeypatch.setattr(Scripted, "state", failing_once)
    with pytest.raises(RosterError, match=r"no more of them\. The old roster was put back and is served"):
        Roster(gateway).apply({"anna": anna, "bert": bert})
    assert faults == [] and Path(gateway.roster).read_bytes() == before
