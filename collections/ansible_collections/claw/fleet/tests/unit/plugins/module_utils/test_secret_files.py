# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that a running gateway is to read anew; the gateway here does as a real one was seen to do."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _durable, _gateway_secrets
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayError
from ansible_collections.claw.fleet.plugins.module_utils._gateway_secrets import (
    SecretFiles,
    fingerprint,
    marked,
    take,
)
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import UnitState
from ansible_collections.claw.fleet.tests.unit.plugins.offline import offline_gateway

OLD, NEW = "0a" * 24, "1b" * 24


class Running:
    """A supervisor of something that runs."""

    def state(self) -> UnitState:
        return UnitState("active", "running", 7, "success", 0)

    def start(self) -> None:
        raise AssertionError("nobody asked for a start")

    def words(self, since: float) -> str:
        return "some words"


class Process:
    """A gateway that has read its files, and reads them again when something about secrets changes in its config."""

    def __init__(self, place: Path) -> None:
        gateway = offline_gateway(place)
        self.state = Path(gateway.state_dir)
        self.config = Path(gateway.config)
        self.faults: list[tuple[int, dict[str, Any]]] = []
        self.patches = 0
        self.converged = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
                status, answer = outer.answer(self.path, self.headers.get("Authorization") or "", body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = handle_any

            def log_message(self, *args: Any) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        self.gateway: Gateway = dataclasses.replace(
            gateway, port=self.server.server_port, supervisor=Running()
        )
        providers = {
            name: {"source": "file", "path": str(self.state / file), "mode": "singleValue"}
            for name, file in (("gwtoken", "token"), ("provider-x", "provider-x.key"))
        }
        self.files = SecretFiles(self.gateway)
        self.files.have(self.files.token, OLD, check=False)
        self.files.have(self.state / "provider-x.key", "sk-1", check=False)
        self.config.write_text(json.dumps({"secrets": {"providers": providers}}))
        self.read()

    def read(self) -> None:
        """Read the files, as at a start."""
        self.token = (self.state / "token").read_text()
        self.key = (self.state / "provider-x.key").read_text()

    def answer(self, path: str, authorization: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/readyz":
            return 200, {}
        if authorization != f"Bearer {self.token}":
            return 401, {"error": {"message": "Unauthorized"}}
        if path == "/v1/responses":
            return 400, {"error": {"message": "no agent"}}
        if body["method"] == "config.get":
            applied = "h" if self.converged else "g"
            found = {
                "valid": True,
                "hash": str(self.patches),
                "configRevisionHash": "h",
                "appliedConfigHash": applied,
            }
            return 200, {"ok": True, "payload": found}
        if self.faults:
            status, error = self.faults.pop(0)
            return status, {"ok": False, "error": error}
        assert body["params"]["baseHash"] == str(self.patches)
        assert body["params"]["replacePaths"] == ["secrets.providers.fleet.allowlist"]
        config = json.loads(self.config.read_text())
        config["secrets"]["providers"] |= json.loads(body["params"]["raw"])["secrets"]["providers"]
        config["meta"] = {"theirs": True}
        self.config.write_text(json.dumps(config))
        self.patches += 1
        self.read()
        return 200, {"ok": True, "payload": {"ok": True}}


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    assert take(process.gateway, check=False) is True, "it carries no mark yet"
    yield process
    process.server.shutdown()
    process.server.server_close()


def test_four_times(process: Process) -> None:
    key = process.state / "provider-x.key"
    assert take(process.gateway, check=True) is take(process.gateway, check=False) is False
    assert take(process.gateway, check=True, instead={key: b"sk-2"}) is True
    assert (process.key, process.patches) == ("sk-1", 1)
    process.files.have(key, "sk-2", check=False)
    assert take(process.gateway, check=True) is take(process.gateway, check=False) is True
    assert process.key == "sk-2"
    assert take(process.gateway, check=True) is take(process.gateway, check=False) is False
    assert process.patches == 2


def test_the_token_changes_and_the_one_before_is_proven_to_be_refused(process: Process) -> None:
    process.files.replace_token(NEW, check=False)
    assert process.files.read(process.files.former) == OLD
    # Whoever asks in between is answered, by the one the process runs with.
    assert process.gateway.served().valid
    assert take(process.gateway, check=False) is True
    assert process.token == NEW and not process.gateway.accepts(OLD)
    assert not process.files.former.exists()


def test_killed_before_the_former_token_went_it_is_proven_by_the_next_run(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.files.replace_token(NEW, check=False)
    with monkeypatch.context() as patch:
        patch.setattr(_durable, "remove", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            take(process.gateway, check=False)
    assert process.files.former.exists()
    assert take(process.gateway, check=False) is False, "it was read already"
    assert not process.files.former.exists()


def test_a_process_that_takes_both_is_not_believed(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    process.files.replace_token(NEW, check=False)
    with monkeypatch.context() as patch:
        patch.setattr(Gateway, "accepts", lambda self, token: True)
        with pytest.raises(GatewayError, match="still takes its former token") as caught:
            take(process.gateway, check=False)
    assert OLD not in str(caught.value) and NEW not in str(caught.value)
    assert process.files.read(process.files.former) == OLD


def test_what_passes_is_waited_for_and_what_does_not_is_said(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gateway_secrets, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(_gateway_secrets, "_PATIENCE_SECONDS", 0.5)
    process.files.have(process.state / "provider-x.key", "sk-2", check=False)
    process.faults = [
        (400, {"message": "config changed since last load; re-run config.get and retry"}),
        (503, {"message": "busy", "retryAfterMs": 1}),
        (400, {"message": "invalid config: no"}),
    ]
    with pytest.raises(GatewayError, match="invalid config: no"):
        take(process.gateway, check=False)
    assert process.key == "sk-1"
    process.converged = False
    with pytest.raises(GatewayError, match="has not read its secrets anew"):
        take(process.gateway, check=False)


def test_a_file_that_is_missing_is_left_to_who_changes_the_config(process: Process) -> None:
    process.files.remove(process.state / "provider-x.key")
    assert take(process.gateway, check=True) is take(process.gateway, check=False) is False
    assert process.key == "sk-1"


def test_the_mark_tells_contents_apart_and_shows_none(tmp_path: Path) -> None:
    gateway = offline_gateway(tmp_path)
    files = SecretFiles(gateway)
    config: dict[str, Any] = {
        "secrets": {"providers": {"t": {"source": "file", "path": gateway.token_file}}},
        "a": 1,
    }
    assert fingerprint(config, files.state) == "" == fingerprint({"a": 1}, files.state)
    files.have(files.token, OLD, check=False)
    first = fingerprint(config, files.state)
    assert first != fingerprint(config, files.state, {files.token: NEW.encode()}) != ""
    assert OLD not in json.dumps(marked(config, first)) and marked(marked(config, first), "") == config
    assert marked({"a": 1}, "") == {"a": 1}
