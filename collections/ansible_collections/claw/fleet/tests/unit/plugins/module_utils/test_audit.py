"""The audit of sandboxes, as far as it is data: what is tried, and how it is told what came of it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import (
    _audit,
    _audit_attempts,
    _audit_probe,
    _audit_scene,
    _transcript,
)
from ansible_collections.claw.fleet.plugins.module_utils._audit import Result, Scene

STATE = "/var/lib/claw/gw"
KEY = "a-key-of-anna-that-is-long"
SCENE = Scene(
    agent="anna",
    directory=".claw-audit-1",
    command="journeyloop",
    credentials="/run/credentials",
    state=STATE,
    canaries={"others' workspace": "c-0", "others' credentials": "c-1", "gateway": "c-2"},
    places={
        "others' workspace": [f"{STATE}/workspaces/ben"],
        "others' credentials": [f"{STATE}/credentials/ben"],
        "gateway": [STATE, "/etc/claw/gw"],
    },
    secrets={"her own key": KEY},
    gateway_files=[f"{STATE}/token"],
    memory=512,
    pids=128,
    file_bytes=100,
    scratch=64,
    scratch_places=("/tmp",),
    memory_free=10_000,
    ports=[("172.29.240.1", 22)],
    peers=[("172.29.240.3", 20001)],
    metadata=[("169.254.169.254", 80)],
    private=[("10.0.0.5", 443)],
    ipv6=[("fe80::1%eth0", 22)],
    dns=["10.0.0.2"],
    dns_answers=True,
    proxy=("172.29.240.1", 3128),
)


def test_everything_is_tried_by_the_agent_and_behind_her_tools() -> None:
    by_tool = {call.name for call in _audit_attempts.calls(SCENE)}
    behind = {call.name for call in _audit_attempts.calls(SCENE) if call.line}
    behind |= {deed.name for deed in _audit_attempts.deeds(SCENE)}
    # What is of the tools alone, and what is only looked at.
    assert set(_audit.NAMES) - by_tool == {"network-settings"}
    assert set(_audit.NAMES) - behind == {"exec-parameters", "other-tools", "network-settings"}
    assert _audit.without_a_control("anna").name == "print-key"


def test_each_call_leaves_a_mark_of_its_own_and_holds_no_secret() -> None:
    calls = _audit_attempts.calls(SCENE)
    marks = [call.mark for call in calls if call.mark]
    assert len(marks) == len(set(marks))
    made = [call.made for call in calls if call.made]
    assert len(made) == len(set(made))
    assert KEY not in json.dumps([call.arguments for call in calls])
    # A deed stands in single quotes in its line.
    assert all("'" not in json.dumps(deed.deed) for deed in _audit_attempts.deeds(SCENE))
    for call in calls:
        tells = call.mark or call.made or call.kept or call.sought or call.completed
        assert tells or call.tool in ("read", "exec"), call


def test_where_nobody_is_nothing_is_proven() -> None:
    silent = Scene(
        **{
            **vars(SCENE),
            "silent": frozenset([*SCENE.metadata, *SCENE.private]),
            "memory_free": 600,
            "peers": [],
        }
    )
    unproven = {deed.name for deed in _audit_attempts.deeds(silent) if deed.unproven}
    assert unproven == {"metadata", "private-ranges", "memory-hog", "other-sandboxes"}
    assert not [deed for deed in _audit_attempts.deeds(SCENE) if deed.unproven]


def test_a_call_is_known_by_what_it_was_made_with() -> None:
    call = next(call for call in _audit_attempts.calls(SCENE) if call.tool == "exec")
    assert call.was("exec", {**call.arguments, "timeoutSeconds": 5})
    assert not call.was("exec", {"command": "journeyloop --help"})
    assert not call.was("read", call.arguments)
    assert f"tool:exec {json.dumps(call.arguments)}" in _audit.told([call])


def result(outcome: str, name: str = "metadata", layer: str = "shell", detail: str = "held") -> Result:
    return Result("anna", name, layer, "the rules", "connect", outcome, detail)


def test_results_are_counted_shown_and_named() -> None:
    results = [
        result("refused"),
        result("refused"),
        result("through", detail="reached"),
        result("not tried", "dns"),
    ]
    assert _audit.counted(results) == {
        "refused": 2,
        "through": 1,
        "not_tried": 1,
        "unproven": 0,
        "not_applicable": 0,
    }
    assert [line.split()[1:5] for line in _audit.table(results)] == [
        ["metadata", "shell", "2", "refused"],
        ["metadata", "shell", "1", "through"],
        ["dns", "shell", "1", "not"],
    ]
    (sentence,) = _audit.sentences(results)
    assert sentence == (
        "anna: metadata by shell got through: connect (reached). What should have held: the rules"
    )
    assert _audit.table([]) == []


def test_what_was_not_tried_is_not_taken_for_refused() -> None:
    refused = result("refused")
    # One that a model would not make, beside one that it made.
    made = [result("not tried", layer="tool", detail="not made"), result("refused", layer="tool")]
    assert _audit.unknown([refused, *made]) == _audit.unknown([]) == []
    (none,) = _audit.unknown([refused, made[0]])
    assert none == "anna: none of 1 calls of tools was made (not made)"
    (one,) = _audit.unknown([refused, *made, result("not tried", "dns", detail="no python3")])
    assert one == "anna: dns by shell could not be tried: connect (no python3)"


@pytest.mark.parametrize(
    ("size", "number"),
    [("512m", 512 << 20), ("1g", 1 << 30), ("64MiB", 64 << 20), ("2048", 2048), ("3kb", 3072)],
)
def test_sizes_in_the_engines_words(size: str, number: int) -> None:
    assert _audit.bytes_of(size) == number


def test_faults_of_networks() -> None:
    icc = "com.docker.network.bridge.enable_icc"
    right = {"Name": "claw-sandbox", "Internal": True, "EnableIPv6": False, "Options": {icc: "false"}}
    assert _audit.settings_of_networks([right], "claw-sandbox") == []
    assert _audit.settings_of_networks([{"Name": "none", "Options": None}], "none") == []
    wrong = {**right, "Internal": False, "EnableIPv6": True, "Options": {}}
    assert len(_audit.settings_of_networks([wrong], "claw-sandbox")) == 3
    assert _audit.settings_of_networks([right], "other") == ["claw-sandbox: it is not other"]


def test_faults_of_a_rootless_engines_network() -> None:
    slirp = "slirp4netns:allow_host_loopback=false,enable_ipv6=false"
    machine, away, elsewhere = 1, 2, 3
    faults = _audit.settings_of_rootless
    assert faults("slirp4netns", slirp, away, machine, away) == []
    assert faults("none", "none", elsewhere, machine, 0) == []
    assert len(faults("host", slirp, away, machine, away)) == 1
    assert len(faults("slirp4netns", slirp, machine, machine, away)) == 1
    assert len(faults("slirp4netns", slirp, elsewhere, machine, away)) == 1
    assert len(faults("slirp4netns", slirp, away, machine, -1)) == 1, "the link is gone"


def test_a_transcript_tells_of_calls() -> None:
    def message(**given: Any) -> dict[str, Any]:
        return {"type": "message", "message": given}

    asked = {"type": "toolCall", "id": "1", "name": "exec", "arguments": {"command": "x"}}
    text = [{"type": "text", "text": "out"}]
    events = [
        {"type": "session"},
        message(role="user", content="tool:exec"),
        message(role="assistant", content=[{"type": "text", "text": "well"}, asked]),
        message(
            role="toolResult", toolCallId="1", toolName="exec", content=text, details={"status": "completed"}
        ),
        # Of a call to no tool the gateway keeps the answer alone.
        message(role="toolResult", toolCallId="2", toolName="gateway", content=text, details={}),
    ]
    first, second = _transcript.of_events(events)
    assert (first.tool, first.arguments, first.completed) == ("exec", {"command": "x"}, True)
    assert "out" in first.result
    assert (second.tool, second.arguments, second.completed) == ("gateway", None, False)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.0.0.5:443", ("10.0.0.5", 443)),
        ("[fd00::5]:80", ("fd00::5", 80)),
        ("db.internal:5432", ("db.internal", 5432)),
    ],
)
def test_a_target(text: str, place: tuple[str, int]) -> None:
    assert _audit_scene.target(text) == place


@pytest.mark.parametrize("text", ["10.0.0.5", "http://x:80", "x:0", "x:70000", ":80"])
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        _audit_scene.target(text)


def test_where_the_machine_listens() -> None:
    assert _audit_scene._place("0100007F:0016") == ("127.0.0.1", 22)
    assert _audit_scene._place("00000000000000000000000001000000:1F90") == ("::1", 8080)
    listening = [("0.0.0.0", 22), ("127.0.0.1", 80), ("::", 443), ("fe80::1", 5)]
    found = _audit_scene.ports_of(listening, ["10.0.0.1", "fe80::1%eth0", "172.29.240.1"], ["172.29.240.1"])
    assert found == [
        ("172.29.240.1", 22),
        ("172.29.240.1", 443),
        ("10.0.0.1", 22),
        ("10.0.0.1", 443),
        ("127.0.0.1", 80),
    ]


# The program that is executed in sandboxes


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, int]]:
    """A server that says the same to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)


def test_a_connection_is_told_from_none() -> None:
    with answering(b"") as (host, port):
        assert _audit_probe.tcp([(host, port)])["through"] == [f"{host}:{port}"]
    assert _audit_probe.tcp([(host, port)])["through"] == []


@pytest.mark.parametrize(
    ("answer", "through"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n\r\n", False),
        (b"HTTP/1.1 503 No\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n\r\n", True),
        (b"HTTP/1.1 403 Forbidden\r\nServer: metadata\r\n\r\n", True),
        (b"HTTP/1.1 200 Connection established\r\n\r\n", True),
        (b"", False),
    ],
)
def test_what_the_proxy_refuses_by_itself_is_refused(answer: bytes, through: bool) -> None:
    with answering(answer) as address:
        found = _audit_probe.proxy(address, [("169.254.169.254", 80), ("fd00::1", 80)])
    assert len(found["through"]) == (4 if through else 0)
    assert len(found["held"]) == (0 if through else 4)


def test_files_are_found_by_path_and_made_where_they_may(tmp_path: Path) -> None:
    there, nowhere = tmp_path / "there", tmp_path / "nowhere"
    there.write_text("x")
    assert _audit_probe.do({"do": "find", "names": [], "paths": [str(nowhere)]})["through"] == []
    found = _audit_probe.do({"do": "find", "names": [], "paths": [str(there), str(tmp_path)]})
    assert found["through"] == [str(there), str(tmp_path)]
    assert _audit_probe.write([str(tmp_path), str(nowhere)])["through"] == [str(tmp_path)]
    assert _audit_probe.link(str(tmp_path), [str(there)])["through"] == [str(there)]
    assert list(tmp_path.iterdir()) == [there]


def test_hogs_without_a_limit_get_through_and_leave_nothing(tmp_path: Path) -> None:
    assert len(_audit_probe.forks(3)["through"]) == 1
    assert len(_audit_probe.memory(1 << 20)["through"]) == 1
    assert len(_audit_probe.file(1 << 20, str(tmp_path))["through"]) == 1
    assert _audit_probe.scratch(1 << 20, [str(tmp_path)])["through"] == [
        f"{tmp_path}: {1 << 20} bytes and more"
    ]
    assert list(tmp_path.iterdir()) == []


def test_sockets_are_found(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        found = _audit_probe.sockets([str(path), str(tmp_path / "none.sock")])
    assert f"{path}: it answers" in found["through"]
    assert found["held"] == [f"{tmp_path}/none.sock: it is not there"]
