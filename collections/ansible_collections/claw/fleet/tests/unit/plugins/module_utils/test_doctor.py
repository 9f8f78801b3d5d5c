# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor's checks on files and stand-ins: above all those whose faults the acceptance tests cannot make for real."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import (
    _doctor,
    _doctor_agents,
    _doctor_gateway,
    _doctor_machine,
    _doctor_round,
    _doctor_ways,
    _doctor_words,
)
from ansible_collections.claw.fleet.plugins.module_utils._containers import Container, ContainersError
from ansible_collections.claw.fleet.plugins.module_utils._doctor import Finding, Given, Patient
from ansible_collections.claw.fleet.plugins.module_utils._findings import CODES
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayError, Served
from ansible_collections.claw.fleet.plugins.module_utils._sandbox import MARK, Sandbox
from ansible_collections.claw.fleet.plugins.module_utils._seal import sealed
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import SupervisorError, UnitState
from ansible_collections.claw.fleet.plugins.module_utils._tunnel import NotYet

RUNNING = UnitState("active", "running", 1, "success", 0)
SANDBOX: dict[str, Any] = {
    "engine": "docker", "docker_host": "unix:///run/docker.sock", "image": "claw-sandbox:new", "network": "claw-sandbox",
    "dns": [], "memory": "512m", "cpus": 1, "pids": 64, "file_bytes": 1000, "scratch": "64m", "tools": ["exec"],
    "credentials_dir": "/run/claw", "idle_hours": 1, "age_days": 1,
}  # fmt: skip


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    """A gateway that runs, on files below tmp_path; its process is this test's."""
    user = getpass.getuser()
    state, config = tmp_path / "state", tmp_path / "etc" / "gw-a"
    for place in ("workspaces", "agents", "credentials"):
        (state / place).mkdir(parents=True)
    config.mkdir(parents=True)
    (state / "token").write_text("0f" * 24)
    descriptor = {
        "name": "gw-a", "user": user, "group": user, "unit": "openclaw-gateway@gw-a.service", "port": 18789,
        "state_dir": str(state), "config_dir": str(config), "config": str(state / "openclaw.json"),
        "roster": str(config / "agents.json"), "token_file": str(state / "token"), "tree": "/opt/claw/none",
        "node": "/bin/sh", "entry": "/bin/sh", "version": "1",
    }  # fmt: skip
    (config / "gateway.json").write_text(json.dumps(descriptor))
    (config / "agents.json").write_text("{}")
    (state / "openclaw.json").write_text("{}")
    supervisor: Any = SimpleNamespace(state=lambda: RUNNING)
    return Gateway.from_descriptor(descriptor, supervisor)


def patient(gateway: Gateway, given: Given | None = None, **known: Any) -> Patient:
    """That gateway's, which knows this of it without asking."""
    found = Patient(
        "gw-a", str(Path(gateway.config_dir).parent), given or Given(), Path(gateway.state_dir).parent
    )
    found.__dict__.update(gateway=gateway, **known)
    return found


def codes(findings: Any) -> list[str]:
    return [finding.code for finding in findings]


def given_roster(gateway: Gateway, *agents: str) -> None:
    state = Path(gateway.state_dir)
    entries = {
        name: {
            "name": name,
            "workspace": str(state / "workspaces" / name),
            "agentDir": str(state / "agents" / name / "agent"),
        }
        for name in agents
    }
    Path(gateway.roster).write_text(json.dumps(entries))
    for name in agents:
        (state / "workspaces" / name).mkdir()
        (state / "agents" / name / "agent").mkdir(parents=True)


# How it tells


def test_what_cannot_be_looked_at_is_a_finding_and_stops_nothing() -> None:
    def breaks(_patient: Patient) -> Iterator[Finding]:
        yield Finding("clock-wrong", "It was said before it broke.")
        raise KeyError("x")

    def finds(_patient: Patient) -> Iterator[Finding]:
        yield Finding("unit-disabled", "It is found all the same.")

    found = _doctor.examine(Patient("gw-a", "/nowhere", Given()), {"this": breaks, "that": finds})
    assert codes(found) == ["clock-wrong", "check-failed", "unit-disabled"] or codes(found) == [
        "check-failed",
        "unit-disabled",
    ]
    assert "KeyError" in next(finding for finding in found if finding.code == "check-failed").evidence


def test_what_another_one_explains_is_left_out() -> None:
    found = _doctor.causes(
        [Finding("config-drifted", ""), Finding("endpoint-off", ""), Finding("disk-full", "")]
    )
    assert codes(found) == ["endpoint-off", "disk-full"]


def test_each_code_can_be_told() -> None:
    findings = [_doctor.told(Finding(code, "It is so.", "evidence"), "gw-a") for code in CODES]
    for told in findings:
        assert "{" not in told["fix"], told
    lines = _doctor.table(_doctor.sorted_by_weight(findings))
    assert len(lines) == 3 * len(CODES)
    assert lines[0].startswith("error") and lines[-3].startswith("note")


def test_severities_and_the_exit() -> None:
    findings = [{"severity": severity, "code": severity} for severity in ("warning", "note")]
    assert _doctor.counted(findings) == {"error": 0, "warning": 1, "note": 1}
    assert _doctor.failing(findings, "error") == []
    assert _doctor.failing(findings, "warning") == ["warning"]
    assert _doctor.failing(findings, "note") == ["note", "warning"]
    assert _doctor.failing(findings, "never") == []


def test_a_finding_with_a_fix_of_its_own_is_not_for_the_playbook() -> None:
    told = _doctor.told(Finding("secret-missing", "", fix="do this"), "gw-a")
    assert (told["fix"], told["remedies"]) == ("do this", [])


# The machine


@pytest.mark.parametrize(
    ("blocks", "free", "files", "free_files", "found"),
    [
        (100, 50, 100, 50, []),
        (100, 11, 100, 50, []),
        (100, 10, 100, 50, ["disk-full"]),
        (100, 50, 100, 9, ["inodes-full"]),
        # A file system that does not count inodes.
        (100, 50, 0, 0, []),
    ],
)
def test_fullness(blocks: int, free: int, files: int, free_files: int, found: list[str]) -> None:
    told = os.statvfs_result((4096, 4096, blocks, free, free, files, free_files, free_files, 0, 255))
    assert codes(_doctor_machine._fullness("/x", told)) == found


@pytest.mark.parametrize(
    ("machine", "found"),
    [(100, []), (110, []), (139, []), (71, []), (141, ["clock-wrong"]), (69, ["clock-wrong"])],
)
def test_the_clock_beside_what_asking_takes(machine: float, found: list[str]) -> None:
    assert codes(_doctor_machine.clock(machine, 100, 110)) == found


def test_what_opens_an_address_is_not_shown() -> None:
    assert _doctor.plain("https://user:word@h.example/x?token=1") == "https://h.example/x"
    assert _doctor.plain(None) == "(none)"


class Names(threading.Thread):
    """A DNS server that answers some kinds of questions."""

    def __init__(self, *kinds: int) -> None:
        super().__init__(daemon=True)
        self.kinds = kinds
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def run(self) -> None:
        while True:
            question, asker = self.socket.recvfrom(4096)
            kind = question[question.index(b"\0", 12) + 2]
            if kind in self.kinds:
                self.socket.sendto(question[:2] + b"\x81\x80", asker)


def test_a_server_that_drops_questions_for_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor_machine, "_ANSWER_SECONDS", 0.2)
    deaf, good = Names(1), Names(1, 28)
    for server in (deaf, good):
        server.start()
        assert _doctor_machine._answers("127.0.0.1", "app.example", 1, server.port)
    assert not _doctor_machine._answers("127.0.0.1", "app.example", 28, deaf.port)
    assert _doctor_machine._answers("127.0.0.1", "app.example", 28, good.port)


@pytest.mark.parametrize(
    ("environment", "looked_up"),
    [
        ({}, ["app.example", "inner.example", "m.example", "plain.example", "more.example"]),
        (
            {"HTTPS_PROXY": "http://user:word@way.example:3128"},
            ["app.example", "plain.example", "way.example", "more.example"],
        ),
        ({"http_proxy": "way.example:3128"}, ["app.example", "way.example", "more.example"]),
        (
            {"https_proxy": "http://way.example:3128", "HTTP_PROXY": "http://10.0.0.1", "NO_PROXY": "10.0.0.0/8 *.example.org, inner.example"},
            ["app.example", "inner.example", "way.example", "more.example"],
        ),
        (
            {"https_proxy": "http://way.example:3128", "no_proxy": ".example:443,plain.example"},
            ["app.example", "inner.example", "m.example", "plain.example", "more.example"],
        ),
        ({"https_proxy": "http://way.example:3128", "no_proxy": "*"},
         ["app.example", "inner.example", "m.example", "plain.example", "more.example"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("runs", [True, False])
def test_names_that_a_proxy_looks_up(
    gateway: Gateway,
    units: dict[str, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    looked_up: list[str],
    runs: bool,
) -> None:
    urls = (
        "https://m.example/v1",
        "https://inner.example/v1",
        "http://plain.example/v1",
        "http://127.0.0.1:1/",
    )
    providers = {str(number): {"baseUrl": url} for number, url in enumerate(urls)}
    Path(gateway.config).write_text(json.dumps({"models": {"providers": providers}}))
    given = Given(coach_api_url="https://app.example/", dns_hosts=["more.example"])
    asked = patient(gateway, given, state=RUNNING if runs else ENDED)
    words = [f"{name}={value}" for name, value in environment.items()]
    units[gateway.unit] = {"Environment": "" if runs else " ".join(f'"{word}"' for word in words)}
    if runs:
        process = asked.root / "proc" / "1"
        process.mkdir(parents=True)
        (process / "environ").write_text("\0".join(["A=b", *words, ""]))
    asks: list[str] = []
    found = {"addresses": [], "error": "", "seconds": 0.0}
    monkeypatch.setattr(_doctor_machine, "resolve", lambda host, _seconds: (asks.append(host), found)[1])
    assert list(_doctor_machine.names(asked)) == []
    assert asks == sorted(looked_up)


def test_localhost_that_leads_where_nobody_listens(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(0, 0, 0, "", ("::1", 0)), (0, 0, 0, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(_doctor_machine.socket, "getaddrinfo", lambda *_given, **_more: both)
    monkeypatch.setattr(_doctor_machine, "_listens", lambda address, _port: address == "127.0.0.1")
    asked = patient(gateway, Given(coach_api_url="http://localhost:8000/api/"))
    assert codes(_doctor_machine.localhost(asked)) == ["localhost-is-ipv6"]
    assert (
        codes(_doctor_machine.localhost(patient(gateway, Given(coach_api_url="http://127.0.0.1:8000/"))))
        == []
    )
    monkeypatch.setattr(_doctor_machine, "_listens", lambda _address, _port: True)
    assert codes(_doctor_machine.localhost(asked)) == []


# The gateway


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/system.slice/x", "sys/fs/cgroup/system.slice/x/memory.events"),
        ("5:cpu,memory:/x", "sys/fs/cgroup/memory/x/memory.oom_control"),
    ],
)
def test_processes_that_the_kernel_has_ended(tmp_path: Path, line: str, file: str) -> None:
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "cgroup").write_text(f"1:name=systemd:/x\n{line}\n")
    assert _doctor_words._killed(7, tmp_path) == 0
    (tmp_path / file).parent.mkdir(parents=True)
    for count in (0, 3):
        (tmp_path / file).write_text(f"under_oom 0\noom_kill {count}\n")
        assert _doctor_words._killed(7, tmp_path) == count


def test_a_busy_gateway_is_not_taken_for_a_stuck_one() -> None:
    words = 'failed error="another OpenClaw process owns state-lifecycle"'
    tidies = [
        f"2026-11-27T03:0{minute}:31+00:00 [x] Idle shared-state database cleanup {words}"
        for minute in range(3)
    ]
    sweep = f"2026-11-27T03:00:31+00:00 [plugins] memory-core: dreaming sweep failed for workspace x: {words}"
    turn = f"2026-11-27T03:00:31+00:00 turn {words}"
    assert _doctor_words.stuck_words(["something else", *tidies[:2]]) == []
    assert _doctor_words.stuck_words(tidies) == tidies
    # One for each agent, all at night.
    assert _doctor_words.stuck_words([sweep] * 5) == []
    assert _doctor_words.stuck_words([sweep, turn]) == [sweep, turn]


REFUSED = (
    "2026-11-27T02:40:24.996+00:00 [model-fallback/decision] model fallback decision: decision=candidate_failed "
    "requested=acme/one candidate=acme/one reason=auth next=none detail=401 no"
)


def test_a_key_that_its_provider_has_refused_since_it_was_written(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["something else", REFUSED, REFUSED.replace("reason=auth", "reason=timeout"), REFUSED]
    monkeypatch.setattr(_doctor_words, "_said", lambda _gateway: lines)
    asked = patient(gateway, state=RUNNING)
    (moment, again) = _doctor_words.refusals(lines)["acme"]
    assert moment == again
    # A provider of before, whose key is gone.
    assert codes(_doctor_words.said(asked)) == []
    key = Path(gateway.state_dir) / "provider-acme.key"
    key.write_text("sk-none")
    for written, found in ((moment + 1, []), (moment - 1, ["provider-refuses-key"])):
        os.utime(key, (written, written))
        assert codes(_doctor_words.said(asked)) == found
    (finding,) = _doctor_words.said(asked)
    assert finding.evidence == "2 times within an hour, the last time at 2026-11-27T02:40:24+00:00"


STALLED = (
    "{when} [diagnostic] stalled session: sessionId=0e1f sessionKey=agent:coach-anna:openresponses-user:user-7 state=processing "
    "age=151s queueDepth=1 reason=blocked_tool_call classification=blocked_tool_call activeWorkKind=tool_call "
    "lastProgress=tool:exec:started lastProgressAge=150s activeTool=exec activeToolCallId=c1 activeToolAge=150s recovery=none"
)


OUTCOME = (
    "{when} [diagnostic] stuck session recovery outcome: status=aborted action=abort_embedded_run sessionId=0e1f "
    "sessionKey=agent:coach-anna:openresponses-user:user-7 activeSessionId=0e1f activeWorkKind=embedded_run"
)


@pytest.mark.parametrize(
    ("line", "ago", "told"),
    [
        (STALLED, 30, "for 151 s, blocked_tool_call in exec"),
        (STALLED, 100, None),
        (
            "{when} [diagnostic] stuck session: sessionId=0e1f sessionKey=agent:coach-anna:main state=idle age=240s queueDepth=2 "
            "reason=queued_work_without_active_run classification=stale_session_state recovery=checking",
            30,
            "for 240 s, queued_work_without_active_run",
        ),
        (STALLED.replace("stalled session", "long-running session"), 30, None),
        ("{when} [diagnostic] stuck session recovery: sessionId=0e1f sessionKey=agent:coach-anna:main age=240s", 30, None),
        (f"{STALLED}\n{OUTCOME}", 30, None),
        (f"{STALLED}\n{OUTCOME.replace('aborted', 'skipped')}", 30, "for 151 s, blocked_tool_call in exec"),
        (f"{STALLED.replace('{when}', '2026-11-27T02:40:24.996+00:00')}\n{OUTCOME.replace('aborted', 'failed')}", 30,
         "for 151 s, blocked_tool_call in exec"),
        (f"{OUTCOME}\n{STALLED}", 30, "for 151 s, blocked_tool_call in exec"),
        (f"{STALLED}\n{OUTCOME.replace('user-7', 'user-8')}", 30, "for 151 s, blocked_tool_call in exec"),
    ],
)  # fmt: skip
def test_a_conversation_that_does_not_go_on(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, line: str, ago: float, told: str | None
) -> None:
    when = datetime.fromtimestamp(time.time() - ago, UTC).isoformat(timespec="milliseconds")
    words = ["something else", *line.format(when=when).splitlines() * 2]
    monkeypatch.setattr(_doctor_words, "_said", lambda _gateway: words)
    found = list(_doctor_words.said(patient(gateway, state=RUNNING)))
    assert [(one.code, one.agent, one.evidence) for one in found] == (
        [("session-stalled", "coach-anna", told)] if told else []
    )


JOBS: list[tuple[dict[str, Any], str, str]] = [
    ({"state": {"lastRunStatus": "ok"}}, "", ""),
    ({}, "", ""),
    (
        {"state": {"lastRunStatus": "error", "consecutiveErrors": 4, "lastErrorReason": "auth", "lastError": "sk-none"}},
        "job-failing",
        "'evening': it failed 4 times in a row, the last time for 'auth'",
    ),
    ({"enabled": False, "state": {"lastRunStatus": "error"}}, "", ""),
    (
        {
            "enabled": False,
            "state": {
                "lastRunStatus": "error", "consecutiveErrors": 10, "lastErrorReason": "timeout",
                "autoDisabled": {"reason": "consecutive-failures", "consecutiveErrors": 10},
            },
        },
        "job-given-up",
        "'evening': it failed 10 times in a row, the last time for 'timeout'",
    ),
    (
        {
            "enabled": False,
            "state": {
                "lastRunStatus": "error", "consecutiveErrors": 1, "lastErrorReason": "timeout", "lastError": "schedule error: no such zone",
                "autoDisabled": {"reason": "schedule-errors", "consecutiveErrors": 3},
            },
        },
        "job-given-up",
        "'evening': when it is to run could not be worked out, 3 times in a row",
    ),
    (
        {"enabled": False, "schedule": {"kind": "at"}, "state": {"lastRunStatus": "error", "consecutiveErrors": 1, "lastErrorReason": "format"}},
        "job-given-up",
        "'evening': it failed, the last time for 'format'",
    ),
    ({"enabled": False, "schedule": {"kind": "at"}, "state": {"lastRunStatus": "ok"}}, "", ""),
    ({"enabled": False, "schedule": {"kind": "at"}}, "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("job", "code", "told"), JOBS)
def test_a_job_that_fails(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, job: dict[str, Any], code: str, told: str
) -> None:
    jobs = [{"name": "good", "agentId": "coach-a"}, {"name": "evening", "agentId": "coach-b", **job}]

    def rpc(method: str, params: Any = None) -> dict[str, Any]:
        if method == "cron.status":
            return {"enabled": True}
        assert method == "cron.list" and params["includeDisabled"]
        offset = params["offset"]
        return {"jobs": jobs[offset : offset + 1], "hasMore": offset + 1 < len(jobs)}

    monkeypatch.setattr(Gateway, "rpc", lambda _self, *asked: rpc(*asked))
    found = [
        (one.code, one.agent, one.evidence) for one in _doctor_words.jobs(patient(gateway, token_taken=True))
    ]
    assert found == ([(code, "coach-b", told)] if code else [])


@pytest.mark.parametrize(
    ("wanted", "enabled", "found"),
    [
        ({}, True, []),
        ({}, False, ["jobs-off"]),
        ({"cron": {"enabled": True}}, False, ["jobs-off"]),
        ({"cron": {"enabled": False}}, False, []),
    ],
)
def test_a_scheduler_that_is_off(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any], enabled: bool, found: list[str]
) -> None:
    monkeypatch.setattr(
        Gateway, "rpc", lambda _self, method, *_more: {"enabled": enabled} if method == "cron.status" else {}
    )
    monkeypatch.setattr(_doctor_words.ConfigFile, "applied", wanted)
    assert codes(_doctor_words.jobs(patient(gateway, token_taken=True))) == found


def test_an_openclaw_that_is_gone(gateway: Gateway) -> None:
    asked = patient(gateway)
    assert codes(_doctor_gateway.descriptor(asked)) == []
    file = Path(gateway.config_dir) / "gateway.json"
    file.write_text(file.read_text().replace('"/bin/sh"', '"/nowhere/node"'))
    assert set(codes(_doctor_gateway.descriptor(asked))) == {"openclaw-missing"}
    file.unlink()
    assert codes(_doctor_gateway.descriptor(asked)) == ["gateway-missing"]


@pytest.mark.parametrize(
    ("with_token", "without", "found"),
    [
        (400, 401, []),
        (405, 401, ["endpoint-off"] * 2),
        (404, 404, ["endpoint-off"] * 2),
        (400, 400, ["endpoint-open"] * 2),
    ],
)
def test_endpoints(gateway: Gateway, with_token: int, without: int, found: list[str]) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(with_token if self.headers.get("authorization") else without)
            self.end_headers()

        def log_message(self, *_words: Any) -> None:
            """Be quiet."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        object.__setattr__(gateway, "port", server.server_address[1])
        assert codes(_doctor_gateway.endpoints(patient(gateway, token_taken=True))) == found
        server.shutdown()


def test_a_gateway_without_its_guard(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = patient(gateway, token_taken=True)
    loaded: list[str] = []
    monkeypatch.setattr(Gateway, "rpc", lambda *_given: {"plugins": {"loaded": loaded}})
    assert codes(_doctor_gateway.guard(asked)) == []
    (Path(gateway.config_dir) / "sandbox.json").write_text(json.dumps(SANDBOX))
    assert codes(_doctor_gateway.guard(asked)) == ["guard-missing"]
    loaded.append("claw-fleet-guard")
    assert codes(_doctor_gateway.guard(asked)) == []


def test_a_gateway_that_the_app_does_not_know(gateway: Gateway) -> None:
    assert codes(_doctor_gateway.app(patient(gateway, Given(app=None)))) == []
    assert codes(_doctor_gateway.app(patient(gateway, Given(app={})))) == ["gateway-unknown"]


def test_tokens_are_compared_by_hash_and_never_told(gateway: Gateway) -> None:
    other = {"token_sha256": "ab" * 32, "url": "http://m/gw-a"}
    found = list(_doctor_gateway.app(patient(gateway, Given(app=other, url="http://m/gw-a/"))))
    assert codes(found) == ["token-mismatch"]
    assert "0f0f0f" not in str(found)


def test_a_token_that_is_gone_is_not_for_the_playbook(gateway: Gateway) -> None:
    Path(gateway.token_file).unlink()
    found = list(_doctor_gateway.secret_files(patient(gateway, ready=True)))
    assert codes(found) == ["secret-missing"] and found[0].fix


def test_settings_are_told_by_name_alone() -> None:
    before, after = {"a": {"b": "secret", "c": 1}, "d": [1]}, {"a": {"b": "other", "c": 1}, "d": [1], "e": 2}
    assert _doctor_gateway.differing(before, after) == ["a.b", "e"]


# Agents


def test_a_gateway_that_lost_sight_of_its_roster(gateway: Gateway) -> None:
    given_roster(gateway, "coach-anna", "coach-ben")
    entries = json.loads(Path(gateway.roster).read_text())
    for served, converged, found in (
        (entries, True, []),
        (entries, False, ["agent-not-served"]),
        ({"coach-anna": entries["coach-anna"]}, True, ["agent-not-served"]),
        ({**entries, "coach-old": {}}, True, ["agent-not-served"]),
    ):
        asked = patient(gateway, served=Served(True, converged, {"main": {}, **served}, []))
        assert codes(_doctor_agents.served(asked)) == found
    assert codes(_doctor_agents.served(patient(gateway, served=None))) == []


def test_credentials_that_are_not_hers(gateway: Gateway) -> None:
    given_roster(gateway, "coach-anna")
    place = Path(gateway.state_dir) / "credentials" / "coach-anna"
    place.mkdir()
    (place / ".credentials.json").write_text(json.dumps({"agent_id": "coach-ben"}))
    assert codes(_doctor_agents.keys(patient(gateway))) == ["key-broken"]


def test_a_key_that_is_about_to_be_promoted_is_no_fault(gateway: Gateway) -> None:
    given_roster(gateway, "coach-anna")
    place = Path(gateway.state_dir) / "credentials" / "coach-anna"
    place.mkdir()
    for name, key in ((".credentials.json", "old"), (".credentials.json.pending", "new")):
        data = {
            "agent_id": "coach-anna",
            "api_key": key,
            "api_url": "http://a/",
            "key_id": "1",
            "key_generation": 1,
        }
        (place / name).write_text(json.dumps(data))
    for key, found in (("old", []), ("new", []), ("other", ["key-mismatch"])):
        rows = [{"agent_id": "coach-anna", "key_sha256": hashlib.sha256(key.encode()).hexdigest()}]
        findings = list(_doctor_agents.keys(patient(gateway, Given(rows=rows))))
        assert codes(findings) == found


def test_whose_directories_there_are(gateway: Gateway) -> None:
    given_roster(gateway, "coach-anna")
    state = Path(gateway.state_dir)
    for name in ("main", "coach-paused", "coach-gone", "coach-nobody"):
        (state / "workspaces" / name).mkdir()
    (Path(gateway.config_dir) / "manifest.json").write_text(
        json.dumps({"agents": {}, "removing": {"coach-gone": "1"}})
    )
    rows = [
        {"agent_id": "coach-paused", "wanted": "paused"},
        {"agent_id": "coach-nobody", "wanted": "removed"},
    ]
    found = list(_doctor_agents.strangers(patient(gateway, Given(rows=rows))))
    assert [(finding.code, finding.agent) for finding in found] == [
        ("workspace-without-agent", "coach-nobody")
    ]


def test_databases(gateway: Gateway) -> None:
    given_roster(gateway, "coach-anna")
    main = Path(gateway.state_dir) / "state" / "openclaw.sqlite"
    hers = Path(gateway.state_dir) / "agents" / "coach-anna" / "agent" / "openclaw-agent.sqlite"
    main.parent.mkdir()
    asked = patient(gateway, state=RUNNING)
    assert codes(_doctor_agents.stores(asked)) == []
    with closing(sqlite3.connect(main)) as open_one, closing(sqlite3.connect(hers)) as open_two:
        for store in (open_one, open_two):
            store.execute("PRAGMA journal_mode=wal")
            store.execute("CREATE TABLE told (words TEXT)")
            store.executemany("INSERT INTO told VALUES (?)", [("x" * 3000,)] * 50)
            store.commit()
            store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = sorted(path.name for path in main.parent.iterdir())
        assert codes(_doctor_agents.stores(asked)) == []
        assert sorted(path.name for path in main.parent.iterdir()) == before
        with main.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 8192)
        assert codes(_doctor_agents.stores(asked)) == ["store-corrupt"]
    hers.write_bytes(b"nothing of the kind")
    assert [finding.agent for finding in _doctor_agents.stores(asked)][-1] == "coach-anna"


def test_a_link_in_the_way(gateway: Gateway) -> None:
    given_roster(gateway, "coach-anna")
    state = Path(gateway.state_dir)
    (state / "credentials" / "coach-anna").symlink_to(state / "agents")
    (state / "other").hardlink_to(gateway.token_file)
    found = [
        finding for finding in _doctor_agents.owners(patient(gateway)) if finding.code == "link-in-the-way"
    ]
    assert [finding.evidence for finding in found] == ["it is a file with 2 links", "it is a symbolic link"]


# What the gateway knows


ENDED = UnitState("failed", "failed", 0, "exit-code", 200)
ENDING = UnitState("deactivating", "stop-sigterm", 1, "success", 0)
NEXT = UnitState("activating", "auto-restart", 0, "exit-code", 200)


@pytest.mark.parametrize("state", [ENDED, ENDED._replace(exit_status=78), NEXT, RUNNING._replace(pid=0)])
@pytest.mark.parametrize("left", ["no directory", "an empty directory", "what OpenClaw makes by itself"])
def test_a_state_that_is_not_there_is_all_that_is_told(
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    units: dict[str, dict[str, str]],
    state: UnitState,
    left: str,
) -> None:
    given_roster(gateway, "coach-anna", "coach-ben")
    config, place = Path(gateway.config_dir), Path(gateway.state_dir)
    written = {name: [hashlib.sha256(b"mine").hexdigest()] for name in ("AGENTS.md", "SOUL.md")}
    (config / "manifest.json").write_text(json.dumps({"agents": {"coach-anna": written}}))
    (config / "sandbox.json").write_text(json.dumps(SANDBOX))
    (config / "config.applied.json").write_text(
        json.dumps({"config": {"agents": {"ownership": "fleet"}}, "started_with": "", "previous": None})
    )
    asked = _of_one_that_ended(gateway, monkeypatch, units, state)
    assert "state-missing" not in codes(_doctor_round.look(asked, machine=False))
    shutil.rmtree(place)
    if left != "no directory":
        place.mkdir(mode=0o755)
    if left == "what OpenClaw makes by itself":
        (place / "logs").mkdir()
    (found,) = _doctor_round.look(_of_one_that_ended(gateway, monkeypatch, units, state), machine=False)
    assert (found.code, CODES[found.code].remedies) == ("state-missing", ())
    assert str(place) in found.evidence


def _of_one_that_ended(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, units: dict[str, dict[str, str]], state: UnitState
) -> Patient:
    """With an app that knows two coaches and the token, sandboxes of hers, and a proxy in front of it."""
    object.__setattr__(gateway, "supervisor", SimpleNamespace(state=lambda: state, words=lambda _since: ""))
    units[gateway.unit] = {"ActiveState": state.active, "SubState": state.sub, "NRestarts": "9"} | {
        "FragmentPath": "/etc/systemd/system/openclaw-gateway@.service", "DropInPaths": "", "NeedDaemonReload": "no",
    }  # fmt: skip
    monkeypatch.setattr(_doctor_gateway, "unit", _doctor.unit)
    monkeypatch.setattr(_doctor_words, "unit", _doctor.unit, raising=False)
    monkeypatch.setattr(_doctor_words, "_said", lambda _gateway: [])
    monkeypatch.setattr(_doctor_ways, "Containers", Engine)
    monkeypatch.setattr(_doctor_ways, "_may_use", lambda *_given: True)
    monkeypatch.setattr(_doctor_ways.shutil, "which", lambda *_given, **_more: "/usr/bin/docker")
    sandbox = Sandbox.of(SANDBOX)
    Engine.answers, Engine.images = True, {"claw-sandbox:new": "sha256:new"}
    Engine.containers = [
        Container(
            "coach-anna", "c1", "sha256:new", {MARK: sandbox.mark}, not Path(gateway.state_dir).exists()
        )
    ]
    entries = json.loads(Path(gateway.roster).read_text())
    for name, entry in entries.items():
        entry |= sandbox.entry(gateway, name)
    Path(gateway.roster).write_text(json.dumps(entries))
    key = {"key_sha256": "ab" * 32, "key_generation": 1, "key_wanted_generation": 1}
    rows = [
        {"agent_id": name, "wanted": "running", "status": "active", "generation": 1, "observed_generation": 1,
         "reason": "", **key}
        for name in ("coach-anna", "coach-ben")
    ]  # fmt: skip
    url = "http://m/gw-a"
    token = {"token_sha256": hashlib.sha256(b"0f" * 24).hexdigest()}
    return patient(gateway, Given(app={"url": url, **token}, rows=rows, url=url, proxy_port=8080, patience=0))


def test_a_gateway_that_was_never_in_force_has_no_state_to_miss(gateway: Gateway) -> None:
    state, applied = Path(gateway.state_dir), Path(gateway.config_dir) / "config.applied.json"
    for name in ("token", "openclaw.json"):
        (state / name).unlink()
    for name in ("workspaces", "agents", "credentials"):
        (state / name).rmdir()
    gateway.require_state()
    applied.write_text("{}")
    with pytest.raises(
        GatewayError, match="is on a volume of its own, mount that and start openclaw-gateway@gw-a"
    ):
        gateway.require_state()
    (state / "token").write_text("0f" * 24)
    gateway.require_state()


# Ways in and out


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """What systemd knows, by unit; it runs what is not named."""
    known: dict[str, dict[str, str]] = {}
    runs = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "running",
        "UnitFileState": "enabled",
        "Result": "success",
    }

    def unit(name: str, *_properties: str) -> dict[str, str]:
        return runs | known.get(name, {})

    for module in (_doctor, _doctor_ways, _doctor_machine):
        monkeypatch.setattr(module, "unit", unit)
    return known


STOPPED = {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"}
ABSENT = {"LoadState": "not-found", "ActiveState": "inactive"}


def test_units_that_do_not_run_or_are_not_there(gateway: Gateway, units: dict[str, dict[str, str]]) -> None:
    for state, tunnel, egress in (
        ({}, [], []),
        (STOPPED, ["tunnel-down"] * 2, ["egress-down"] * 3),
        (ABSENT, [], []),
        ({"UnitFileState": "disabled"}, ["unit-disabled"] * 2, ["unit-disabled"] * 3),
    ):
        units.update(dict.fromkeys((*_doctor_ways._TUNNEL, *_doctor_ways._EGRESS), state))
        assert codes(_doctor_ways.tunnel(patient(gateway))) == tunnel
        assert codes(_doctor_ways.egress(patient(gateway))) == egress


def test_a_unit_whose_files_changed_since_it_was_started(
    units: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "claw-tunnel.service"
    file.touch()
    written = int(time.time()) - 60
    os.utime(file, (written, written))
    for known, found in (
        ({"ActiveEnterTimestamp": f"@{written}"}, []),
        ({"ActiveEnterTimestamp": f"@{written - 1}"}, ["unit-outdated"]),
        ({"ActiveEnterTimestamp": f"@{written - 1}", "Type": "oneshot"}, []),
        ({"ActiveEnterTimestamp": f"@{written}", "NeedDaemonReload": "yes"}, ["unit-outdated"]),
        ({"ActiveEnterTimestamp": ""}, []),
    ):
        units["claw-tunnel.service"] = {"FragmentPath": str(file), "DropInPaths": f"{file}.none", **known}
        assert codes(_doctor.stopped("claw-tunnel.service", "tunnel-down", "The tunnel")) == found


@pytest.mark.parametrize(
    ("status", "found"), [(200, []), (502, ["proxy-leads-nowhere"]), (404, ["proxy-leads-nowhere"])]
)
def test_a_proxy_that_does_not_lead_to_the_gateway(
    gateway: Gateway, units: dict[str, dict[str, str]], status: int, found: list[str]
) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/gw-a/healthz" else 500)
            self.end_headers()

        def log_message(self, *_words: Any) -> None:
            """Be quiet."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        given = Given(proxy_port=server.server_address[1])
        assert codes(_doctor_ways.proxy_leads(patient(gateway, given, ready=True))) == found
        # Of a gateway that is away, or a proxy that does not run, other checks tell.
        assert codes(_doctor_ways.proxy_leads(patient(gateway, given, ready=False))) == []
        units["claw-proxy.service"] = STOPPED
        assert codes(_doctor_ways.proxy_leads(patient(gateway, given, ready=True))) == []
        server.shutdown()


def test_rules_that_the_kernel_does_not_have(
    gateway: Gateway, units: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Path(gateway.state_dir).parent / "opt/claw/egress/rules"
    program.parent.mkdir(parents=True)
    for status, found in ((0, []), (1, ["egress-rules-missing"])):
        program.write_text(f"#!/bin/sh\nexit {status}\n")
        program.chmod(0o755)
        assert codes(_doctor_ways.egress(patient(gateway))) == found


def test_files_of_the_fleet(gateway: Gateway) -> None:
    given_roster(gateway, "coach-anna")
    place, asked = Path(gateway.state_dir) / "workspaces/coach-anna", patient(gateway)
    written = {
        name: [hashlib.sha256(name.encode()).hexdigest()] for name in ("AGENTS.md", "SOUL.md", "USER.md")
    }
    (Path(gateway.config_dir) / "manifest.json").write_text(json.dumps({"agents": {"coach-anna": written}}))
    for name in written:
        (place / name).write_text(name)
    assert codes(_doctor_agents.files(asked)) == []
    (place / "SOUL.md").unlink()
    assert codes(_doctor_agents.files(asked)) == [], "what is hers she may take away"
    (place / "USER.md").unlink()
    (place / "AGENTS.md").write_text("mine")
    assert codes(_doctor_agents.files(asked)) == ["file-conflict", "file-missing"]
    shutil.rmtree(place)
    assert codes(_doctor_agents.files(asked)) == [], "that is told of the directory"


@pytest.fixture
def machine(gateway: Gateway, units: dict[str, dict[str, str]], tmp_path: Path) -> Patient:
    """A machine whose root is tmp_path."""
    asked = patient(gateway)
    asked.root = tmp_path
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    return asked


WHOLE = sealed("[Service]\nMemoryMax=1G\n")


def test_units_that_somebody_changed(
    machine: Patient, units: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    place = tmp_path / "etc/systemd/system"
    egress = place / "claw-egress.service"
    for name in ("claw-egress.service", "claw-podman@.service", "claw-reconciler.timer"):
        (place / name).write_text(WHOLE)
    # Somebody's own, and what is switched off.
    for name in ("claw-extra.service", "claw-egress-exporter.service", "claw-egress.service.bak"):
        (place / name).write_text("[Service]\n")
    (place / "claw-tunnel.service").symlink_to("/dev/null")
    assert list(_doctor_machine.edited_units(machine)) == []
    for other in (WHOLE.replace("1G", "2G"), f"{WHOLE}Nice=5\n", "[Service]\nMemoryMax=1G\n", WHOLE[:-9], ""):
        egress.write_text(other)
        (found,) = _doctor_machine.edited_units(machine)
        assert (found.code, found.unit) == ("unit-edited", egress.name) and "claw.fleet.site`" in found.fix
    units["claw-egress.service"] = {"UnitFileState": "disabled", "ActiveState": "inactive"}
    assert list(_doctor_machine.edited_units(machine)) == [], "nobody writes it any more"
    units.clear()
    egress.unlink()
    (place / "claw-podman@.service").write_text("")
    (place / "claw-reconciler.timer").write_text("")
    engine, timer = _doctor_machine.edited_units(machine)
    assert (engine.unit, timer.unit) == ("claw-podman@.service", "claw-reconciler.timer")
    assert "claw.fleet.reconciler`" in timer.fix
    other = Finding("unit-outdated", "It is so.", unit="claw-proxy.service")
    hers = [
        Finding("unit-outdated", "It is so.", unit=name)
        for name in ("claw-reconciler.timer", "claw-podman@gw-a.service")
    ]
    causes = [engine, timer, other]
    assert _doctor.causes([*causes, *hers]) == causes, "one unit does not explain another's"


@pytest.mark.parametrize(
    "place", ["etc/systemd/system", "etc/systemd/system.control", "run/systemd/system.control"]
)
def test_units_that_somebody_added_to(machine: Patient, tmp_path: Path, place: str) -> None:
    added = tmp_path / place / "claw-tunnel-watch.service.d"
    added.mkdir(parents=True)
    (tmp_path / place / "claw-extra.service.d").mkdir()
    (tmp_path / place / "claw-extra.service.d" / "mine.conf").write_text("")
    assert list(_doctor_machine.edited_units(machine)) == []
    (added / "override.conf").write_text("[Service]\n")
    assert codes(_doctor_machine.edited_units(machine)) == ["unit-overridden"]


def test_sandboxes_that_do_not_reach_the_proxy(gateway: Gateway, units: dict[str, dict[str, str]]) -> None:
    program = Path(gateway.state_dir).parent / "opt/claw/egress/way_out.py"
    program.parent.mkdir(parents=True)
    for status, found in ((0, []), (1, ["egress-cut-off"])):
        program.write_text(f"import sys; sys.exit({status})")
        assert codes(_doctor_ways.egress(patient(gateway))) == found
    # What could not be asked is told as that.
    program.write_text("import sys; print('no bridge', file=sys.stderr); sys.exit(2)")
    with pytest.raises(SupervisorError, match="no bridge"):
        list(_doctor_ways.egress(patient(gateway)))
    units.update(dict.fromkeys(_doctor_ways._EGRESS, STOPPED))
    program.write_text("import sys; sys.exit(1)")
    assert set(codes(_doctor_ways.egress(patient(gateway)))) == {"egress-down"}


TRIAL = "claw-firewall-trial.service"


@pytest.mark.parametrize(
    ("holds", "check", "trial", "found"),
    [
        (0, 0, "inactive", []),
        (1, 1, "inactive", ["firewall-missing"]),
        # Another one was tried in vain, and then somebody took the one before away.
        (1, 2, "failed", ["firewall-missing"]),
        (2, 2, "inactive", ["firewall-missing"]),
        (0, 2, "inactive", ["firewall-unproven"]),
        (1, 2, "active", []),
        (2, 2, "activating", []),
        (0, 2, "deactivating", []),
    ],
)
def test_a_firewall_that_the_kernel_does_not_have(
    gateway: Gateway, units: dict[str, dict[str, str]], holds: int, check: int, trial: str, found: list[str]
) -> None:
    place = Path(gateway.state_dir).parent
    program, wanted = place / "opt/claw/machine/firewall", place / "etc/claw-machine/firewall.wanted.nft"
    for path in (program, wanted):
        path.parent.mkdir(parents=True)
        path.touch()
    program.write_text(f"#!/bin/sh\n[ $1 = holds ] && exit {holds}\n[ $1 = check ] && exit {check}\nexit 3\n")
    program.chmod(0o755)
    units[TRIAL] = {"ActiveState": trial}
    told = list(_doctor_ways.firewall(patient(gateway)))
    assert codes(told) == found
    if holds == 2 and told:
        assert "claw.fleet.site" in told[0].fix and _doctor.told(told[0], "gw-a")["remedies"] == []


def test_a_firewall_of_which_nothing_is_wanted_yet(
    gateway: Gateway, units: dict[str, dict[str, str]]
) -> None:
    program = Path(gateway.state_dir).parent / "opt/claw/machine/firewall"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n[ $1 = holds ] || exit 2\n")
    program.chmod(0o755)
    units[TRIAL] = ABSENT
    assert codes(_doctor_ways.firewall(patient(gateway))) == []
    program.write_text("#!/bin/sh\necho Usage >&2; exit 3\n")
    with pytest.raises(SupervisorError, match="Usage"):
        list(_doctor_ways.firewall(patient(gateway)))


@pytest.fixture
def way(gateway: Gateway) -> Path:
    """The settings of a quick tunnel to the gateway."""
    place = Path(gateway.state_dir).parent / "etc/claw-tunnel"
    (place / "gateways.d").mkdir(parents=True)
    names = ("metrics", "proof_dir", "api_url", "api_path", "auth_header", "auth_prefix", "ca_path")
    (place / "tunnel.json").write_text(json.dumps(dict.fromkeys(names, "")))
    (place / "gateways.d" / "gw-a.json").write_text("{}")
    return place


def test_a_unit_that_ends_at_every_start_does_not_run(
    gateway: Gateway, units: dict[str, dict[str, str]]
) -> None:
    units["claw-tunnel-watch.service"] = {
        "ActiveState": "activating",
        "SubState": "auto-restart",
        "Result": "exit-code",
    }
    assert codes(_doctor_ways.tunnel(patient(gateway))) == ["tunnel-down"]
    units["claw-tunnel-watch.service"] = {
        "ActiveState": "activating",
        "SubState": "start",
        "Result": "success",
    }
    assert codes(_doctor_ways.tunnel(patient(gateway))) == []


def test_a_unit_that_was_just_started_is_looked_at_until_it_is_steady(
    gateway: Gateway, units: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = {"ActiveState": "active", "ActiveEnterTimestamp": f"@{int(time.time())}"}
    units["claw-tunnel.service"] = started

    def ends(_seconds: float) -> None:
        units["claw-tunnel.service"] = started | {
            "ActiveState": "activating",
            "SubState": "auto-restart",
            "Result": "exit-code",
        }

    clock = SimpleNamespace(sleep=ends, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(_doctor, "time", clock)
    assert codes(_doctor_ways.tunnel(patient(gateway))) == ["tunnel-down"]
    units["claw-tunnel.service"] = started | {"ActiveEnterTimestamp": f"@{int(time.time()) - 60}"}
    assert codes(_doctor_ways.tunnel(patient(gateway))) == [], "that was long ago"


def test_where_the_tunnel_leads(
    gateway: Gateway, way: Path, units: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    leads: list[Any] = ["now.example.com"]

    def hostname(_self: Any, _wanted: str) -> str:
        led = leads[0]
        if isinstance(led, Exception):
            raise led  # pylint: disable=raising-bad-type
        return str(led)

    monkeypatch.setattr(_doctor_ways.Cloudflared, "hostname", hostname)
    units["claw-tunnel-watch.service"] = {"StatusText": "The app reaches gw-a at https://now.example.com"}
    for url, found in (("https://now.example.com/gw-a", []), ("https://old.example.com/gw-a", ["url-stale"])):
        assert codes(_doctor_ways.tunnel_leads(patient(gateway, Given(app={"url": url})))) == found
    monkeypatch.setattr(_doctor_ways, "_PATIENCE_SECONDS", 0)
    units["claw-tunnel-watch.service"] = {
        "StatusText": "gw-a: the app answers 401: it does not take this machine's token"
    }
    assert codes(_doctor_ways.tunnel_leads(patient(gateway))) == ["url-untold"]
    units["claw-tunnel-watch.service"] = {"StatusText": "The app reaches gw-a at https://now.example.com"}
    assert codes(_doctor_ways.tunnel_leads(patient(gateway))) == []
    leads[0] = NotYet("no connection")
    assert codes(_doctor_ways.tunnel_leads(patient(gateway))) == ["tunnel-unregistered"]
    units["claw-tunnel.service"] = {"ActiveState": "activating"}
    assert codes(_doctor_ways.tunnel_leads(patient(gateway))) == ["tunnel-unregistered"]
    units["claw-tunnel.service"] = {"ActiveState": "failed"}
    assert codes(_doctor_ways.tunnel_leads(patient(gateway))) == [], "that is told of the machine"


NOW, FORMER = "https://now.example.com", "https://former.example.com"
STALE = Given(app={"url": f"{FORMER}/gw-a"})


@pytest.fixture
def watcher(
    way: Path, units: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[float]]:
    """A tunnel that leads from NOW; given what its watcher says, second by second, returns the seconds that are waited."""
    monkeypatch.setattr(_doctor_ways.Cloudflared, "hostname", lambda _self, _wanted: "now.example.com")

    def says(*words: str) -> list[float]:
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            units["claw-tunnel-watch.service"] = {"StatusText": words[min(len(waited), len(words) - 1)]}

        # Its own clock alone: other threads go on by the right one.
        monkeypatch.setattr(_doctor_ways, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: sum(waited)))
        units["claw-tunnel-watch.service"] = {"StatusText": words[0]}
        return waited

    return says


@pytest.mark.parametrize(
    "before", ["", "gw-a: where it is is being found out", f"The app reaches gw-a at {FORMER}"]
)
def test_an_address_that_is_being_told_is_waited_for(
    gateway: Gateway, watcher: Callable[..., list[float]], before: str
) -> None:
    waited = watcher(before, before, f"The app reaches gw-a at {NOW}")
    # What the app has by now the controller asks it.
    assert codes(_doctor_ways.tunnel_leads(patient(gateway, STALE))) == ["url-stale"]
    assert sum(waited) == 2


def test_an_address_that_the_app_has_is_not_waited_for(
    gateway: Gateway, watcher: Callable[..., list[float]]
) -> None:
    waited = watcher("gw-b: the app answers 401: it does not take this machine's token")
    good = Given(app={"url": f"{NOW}/gw-a/"})
    assert codes(_doctor_ways.tunnel_leads(patient(gateway, good))) == []
    assert waited == []


@pytest.mark.parametrize(
    "says",
    [
        f"gw-b: {NOW} leads to somebody else",
        f"gw-b: where it is is being found out; xgw-a: {NOW} leads to somebody else",
        f"The app reaches gw-a at {NOW}.org, {FORMER}",
        "",
    ],
)
def test_a_watcher_that_does_not_speak_of_the_address_is_waited_for_so_long(
    gateway: Gateway, watcher: Callable[..., list[float]], says: str
) -> None:
    waited = watcher(says)
    assert codes(_doctor_ways.tunnel_leads(patient(gateway, STALE))) == ["url-stale"]
    assert sum(waited) == _doctor_ways._PATIENCE_SECONDS


@pytest.mark.parametrize("given", [STALE, Given(app={"url": f"{NOW}/gw-a"}), Given()])
def test_a_watcher_that_goes_on_having_trouble(
    gateway: Gateway, watcher: Callable[..., list[float]], given: Given
) -> None:
    waited = watcher("gw-b: no connection; gw-a: the app answers 401")
    found = _doctor.examine(patient(gateway, given), {"the tunnel": _doctor_ways.tunnel_leads})
    assert codes(found) == ["url-untold"] and "gw-a: the app answers 401" in found[0].evidence
    assert sum(waited) == _doctor_ways._PATIENCE_SECONDS


def test_an_address_that_was_told_to_the_app_by_somebody_else(
    gateway: Gateway, watcher: Callable[..., list[float]]
) -> None:
    waited = watcher(f"The app reaches gw-a, gw-b at {FORMER}, {NOW}")
    assert codes(_doctor_ways.tunnel_leads(patient(gateway, STALE))) == ["url-stale"]
    assert waited == []


class Engine:
    """The engine of sandboxes, as the test has it."""

    images: dict[str, str]
    containers: list[Container]
    answers = True

    def __init__(self, _gateway: Gateway, _where: str) -> None:
        if not self.answers:
            raise ContainersError("no container engine answers")

    def image_id(self, name: str) -> str:
        return self.images.get(name, "")

    def all(self) -> list[Container]:
        return self.containers


def test_sandboxes(
    gateway: Gateway, units: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given_roster(gateway, "coach-anna")
    (Path(gateway.config_dir) / "sandbox.json").write_text(json.dumps(SANDBOX))
    sandbox = Sandbox.of(SANDBOX)
    entries = json.loads(Path(gateway.roster).read_text())
    entries["coach-anna"] |= sandbox.entry(gateway, "coach-anna")
    Path(gateway.roster).write_text(json.dumps(entries))
    monkeypatch.setattr(_doctor_ways, "Containers", Engine)
    may, client = [True], ["/usr/bin/docker"]
    monkeypatch.setattr(_doctor_ways, "_may_use", lambda *_given: may[0])
    monkeypatch.setattr(_doctor_ways.shutil, "which", lambda *_given, **_more: client[0])
    fresh = Container("coach-anna", "c1", "sha256:new", {MARK: sandbox.mark})

    def found(images: dict[str, str], *containers: Container) -> list[str]:
        Engine.images, Engine.containers = images, list(containers)
        return codes(_doctor.examine(patient(gateway), {"the sandboxes": _doctor_ways.sandboxes}))

    here = {"claw-sandbox:new": "sha256:new"}
    assert found(here, fresh) == []
    assert found(here, fresh._replace(image_id="sha256:old")) == ["sandbox-stale"]
    assert found(here, fresh._replace(environment={MARK: "former"})) == ["sandbox-stale"]
    assert found(here, fresh._replace(lost=True)) == ["sandbox-stale"]
    assert found({}, fresh) == ["sandbox-image-missing"]
    units["claw-sandbox-workspaces.service"] = STOPPED
    assert found(here, fresh) == ["sandbox-watch-down"]
    units.clear()
    Engine.answers = False
    assert found(here, fresh) == ["sandbox-without-engine"]
    Engine.answers = True
    client[0] = ""
    monkeypatch.setattr(_doctor_ways.shutil, "which", lambda *_given, **_more: None)
    assert found(here, fresh) == ["sandbox-without-engine"]
    monkeypatch.setattr(_doctor_ways.shutil, "which", lambda *_given, **_more: "/usr/bin/docker")
    may[0] = False
    assert found(here, fresh) == ["sandbox-without-engine"]
    may[0] = True
    entries["coach-anna"]["sandbox"]["docker"]["image"] = "claw-sandbox:old"
    Path(gateway.roster).write_text(json.dumps(entries))
    assert found(here, fresh) == ["sandbox-stale"]


def test_the_socket_of_an_engine(tmp_path: Path) -> None:
    place = tmp_path / "docker.sock"
    user = getpass.getuser()
    assert not _doctor_ways._may_use(user, str(place))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        assert _doctor_ways._may_use(user, str(place))
        place.chmod(0o000)
        assert not _doctor_ways._may_use(user, str(place))


def test_systemd_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = subprocess.CompletedProcess([], 1, "", "Failed to connect to bus")
    monkeypatch.setattr(_doctor.subprocess, "run", lambda *_given, **_more: refused)
    found = _doctor.examine(Patient("gw-a", "/nowhere", Given()), {"the tunnel": _doctor_ways.tunnel})
    assert codes(found) == ["check-failed"] and "Failed to connect to bus" in found[0].evidence


def test_a_gateway_that_is_starting_is_waited_for(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor, "_POLL_SECONDS", 0)
    starting = UnitState("activating", "auto-restart", 0, "exit-code", 1)
    ways = {
        # It needed a second start.
        (starting, RUNNING._replace(pid=5), starting, RUNNING): True,
        tuple(RUNNING._replace(pid=pid) for pid in (5, 6, 7, 8)): False,
        (starting, starting._replace(active="failed")): False,
        # It was told to start anew, and let its turns end first.
        (ENDING, ENDING, starting, RUNNING): True,
        (ENDING, ENDED): False,
    }
    for states, ready in ways.items():
        told = iter(states)
        object.__setattr__(gateway, "supervisor", SimpleNamespace(state=lambda told=told: next(told)))
        asked = patient(gateway)
        monkeypatch.setattr(Gateway, "ready", lambda _self, asked=asked: asked.state.pid == RUNNING.pid)
        assert asked.ready is ready
        assert asked.state == states[-1]


def test_a_gateway_that_lets_its_turns_end(gateway: Gateway, units: dict[str, dict[str, str]]) -> None:
    object.__setattr__(gateway, "supervisor", SimpleNamespace(state=lambda: ENDING))
    given = Given(proxy_port=8080, patience=0)
    found = _doctor.examine(patient(gateway, given), {"the gateway's process": _doctor_gateway.process})
    assert [(one.code, CODES[one.code].severity, CODES[one.code].remedies) for one in found] == [
        ("gateway-ending", "note", ())
    ]
    units["claw-proxy.service"] = {"ActiveState": "deactivating", "SubState": "stop-sigterm"}
    assert codes(_doctor_ways.proxy(patient(gateway, given))) == []
