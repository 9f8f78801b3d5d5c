# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking an OpenClaw gateway of this machine: how it is, what it serves, whether it would take a config.

PRIVATE to claw.fleet: may change at any time.

Requests go to 127.0.0.1 by `http.client`, which knows no proxy. Errors are `GatewayError`, whose text is a
sentence for people; the gateway's own words are in it.
"""

from __future__ import annotations

import http.client
import json
import os
import pwd
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _config, _durable, _validation
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import (
    Supervisor,
    SupervisorError,
    Systemd,
    UnitState,
)

REDACTED = "__OPENCLAW_REDACTED__"
DEFAULT_CONFIG_ROOT = "/etc/claw"
FORMER = ".former"
"""Behind the name of the token's file: the token before, while the process may still run with it."""
APPLIED = "config.applied.json"
"""In the gateway's config_dir: what the fleet has put into force, so that there is a state to it."""
_LOCAL = "127.0.0.1"
_READY_POLL_SECONDS = 0.25


class GatewayError(Exception):
    """A gateway that is not there, not ready or not willing; str() is a plain sentence."""


class GatewayUnreachable(GatewayError):
    """No HTTP answer: the process is down, starting, or too busy for the timeout."""


class GatewayRefused(GatewayError):
    """An answer that is a refusal. ``status``: HTTP status; ``code``, ``reason``: the gateway's own words;
    ``retry_after``: seconds it asked us to wait, or None."""

    def __init__(self, text: str, status: int, code: str, reason: str, retry_after: float | None) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.reason = reason
        self.retry_after = retry_after


class Served(NamedTuple):
    """What a gateway made of its config.

    ``valid``: the files on disk are a valid config; ``converged``: the running process has applied them;
    ``agents``: the entries it read from the roster, as {id: entry}, secrets redacted, without those that
    stand in the config itself; ``issues``: why they are not valid.
    """

    valid: bool
    converged: bool
    agents: dict[str, Any]
    issues: list[str]


@dataclass(frozen=True)
class Gateway:
    """One gateway of this machine. The fields are those of its descriptor, all paths absolute."""

    name: str
    user: str
    group: str
    unit: str
    port: int
    state_dir: str
    config_dir: str
    config: str
    roster: str
    token_file: str
    tree: str
    node: str
    entry: str
    version: str
    supervisor: Supervisor

    @classmethod
    def load(cls, name: str, config_root: str = DEFAULT_CONFIG_ROOT) -> Gateway:
        """The gateway ``name`` as its descriptor ``<config_root>/<name>/gateway.json`` tells."""
        path = Path(config_root) / name / "gateway.json"
        try:
            data = _durable.read(path)
        except _durable.DurableError as error:
            raise GatewayError(str(error)) from error
        if data is None:
            raise GatewayError(
                f"there is no gateway {name!r} on this machine ({path} is absent); "
                "run the role claw.fleet.gateway for it first"
            )
        try:
            found = json.loads(data)
        except ValueError as error:
            raise GatewayError(f"{path} is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise GatewayError(f"{path} does not hold a JSON object")
        return cls.from_descriptor(found)

    @classmethod
    def from_descriptor(cls, descriptor: Mapping[str, Any], supervisor: Supervisor | None = None) -> Gateway:
        """The gateway of a descriptor, run by systemd unless another supervisor is given."""
        wanted = [field.name for field in fields(cls) if field.name != "supervisor"]
        missing = [name for name in wanted if name not in descriptor]
        if missing:
            raise GatewayError(
                f"the descriptor of gateway {descriptor.get('name')!r} lacks {', '.join(missing)}; "
                "run the role claw.fleet.gateway again"
            )
        values: dict[str, Any] = {name: descriptor[name] for name in wanted}
        return cls(**values, supervisor=supervisor or Systemd(values["unit"]))

    @property
    def owner(self) -> _durable.Owner:
        """The numeric user and group the gateway runs as."""
        try:
            entry = pwd.getpwnam(self.user)
        except KeyError as error:
            raise GatewayError(
                f"the user {self.user} of gateway {self.name} does not exist; run the role claw.fleet.gateway"
            ) from error
        return _durable.Owner(entry.pw_uid, entry.pw_gid)

    @property
    def lock_path(self) -> Path:
        """The lock file of every writer of this gateway's files."""
        return Path(self.config_dir) / "lock"

    @property
    def state_is_gone(self) -> bool:
        """Whether it was in force once, and nothing is left of what it knew: as where that is on a volume that is not mounted."""
        # What OpenClaw makes by itself, where it was started all the same, is nothing of that.
        left = (self.config, self.token_file, f"{self.state_dir}/workspaces")
        return (Path(self.config_dir) / APPLIED).exists() and not any(map(os.path.lexists, left))

    def require_state(self) -> None:
        """Refuse to make anew what may only be out of sight: there would be two of each agent's memory then."""
        if self.state_is_gone:
            raise GatewayError(
                f"What gateway {self.name} knows is not in {self.state_dir}, so nothing was changed. If it is on a volume of its own, "
                f"mount that and start {self.unit}; if it is lost, restore a backup. If there is none, remove {self.config_dir}/{APPLIED} "
                "and run the playbooks site and provision_coach, which make all of it anew."
            )

    def environment(self) -> dict[str, str]:
        """The environment of the gateway's process and of its command line."""
        return {
            "PATH": f"{Path(self.node).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": self.state_dir,
            "OPENCLAW_STATE_DIR": self.state_dir,
            "OPENCLAW_CONFIG_PATH": self.config,
            "OPENCLAW_INCLUDE_ROOTS": self.config_dir,
            "OPENCLAW_SERVICE_REPAIR_POLICY": "external",
        }

    def token(self) -> str:
        """The gateway's bearer token."""
        found = self._secret(self.token_file)
        if not found:
            raise GatewayError(f"{self.token_file} is absent or empty; run the role claw.fleet.gateway again")
        return found

    def unit_state(self) -> UnitState:
        """How the gateway's process is, as its supervisor sees it."""
        try:
            return self.supervisor.state()
        except SupervisorError as error:
            raise GatewayError(str(error)) from error

    def start(self) -> None:
        """Start the gateway; an earlier failure does not count. It is not ready yet when this returns."""
        try:
            self.supervisor.start()
        except SupervisorError as error:
            raise GatewayError(str(error)) from error

    def ready(self) -> bool:
        """Whether the gateway says it is ready."""
        try:
            status, _body = self._request("GET", "/readyz", None, {}, timeout=5)
        except GatewayUnreachable:
            return False
        return status == 200

    def wait_ready(self, timeout: float) -> UnitState:
        """Wait until the gateway is ready, at most ``timeout`` seconds; its state then."""
        deadline = time.monotonic() + timeout
        while True:
            state = self.unit_state()
            # One that is ending may be about to start again; if it is not, it will have ended.
            if not state.running and state.active != "deactivating":
                raise GatewayError(self.describe_end(state))
            if state.active == "active" and self.ready():
                return state
            if time.monotonic() >= deadline:
                raise GatewayError(
                    f"gateway {self.name} is not ready after {timeout:g} s ({state.active}/{state.sub}); "
                    f"look at journalctl -u {self.unit}"
                )
            time.sleep(_READY_POLL_SECONDS)

    def describe_end(self, state: UnitState) -> str:
        """A sentence about a process that is not running."""
        why = " (78: it refuses its config)" if state.exit_status == 78 else ""
        return (
            f"gateway {self.name} is {state.active}: its last process ended with result {state.result}, "
            f"status {state.exit_status}{why}; look at journalctl -u {self.unit}"
        )

    def rpc(self, method: str, params: Mapping[str, Any] | None = None, timeout: float = 30) -> Any:
        """The payload of an admin call, e.g. ``rpc("config.get")``."""
        body = {"method": method, "params": dict(params or {})}
        status, answer = self._authorized("POST", "/api/v1/admin/rpc", body, {}, timeout)
        if status == 200 and isinstance(answer, dict) and answer.get("ok") is True:
            return answer.get("payload")
        raise self._refused(f"refuses {method}", status, answer)

    def served(self) -> Served:
        """What the running gateway made of its config files."""
        found = self.rpc("config.get")
        own = _entries(found.get("parsed"))
        read = _entries(found.get("sourceConfig"))
        applied = found.get("appliedConfigHash")
        return Served(
            valid=found.get("valid") is True,
            converged=applied is not None and found.get("configRevisionHash") == applied,
            agents={name: entry for name, entry in read.items() if name not in own},
            issues=_validation.issues(found, self.config),
        )

    def turn(self, agent_id: str, text: str, session: str, timeout: float) -> str:
        """Say ``text`` to an agent in its session of that name and return what it answers."""
        headers = {
            "x-openclaw-agent-id": agent_id,
            # A bare name is refused where there are several agents: the key must name its agent.
            "x-openclaw-session-key": f"agent:{agent_id}:{session}",
        }
        body = {"model": "openclaw", "input": text}
        status, answer = self._authorized("POST", "/v1/responses", body, headers, timeout)
        if status != 200 or not isinstance(answer, dict) or answer.get("status") != "completed":
            raise self._refused(f"could not run a turn of {agent_id}", status, answer)
        parts = [
            part.get("text") or ""
            for item in answer.get("output") or []
            for part in item.get("content") or []
            if part.get("type") == "output_text"
        ]
        return "".join(parts)

    def words(self, since: float) -> str:
        """The last lines that the process said since then (seconds since the epoch), without its secrets.

        It is asked for where something has failed already, so it never fails itself.
        """
        state = Path(self.state_dir)
        try:
            words = self.supervisor.words(since) or "(nothing)"
            for name in _durable.list_dir(state, root=state.parent):
                secret = (
                    self._secret(str(state / name))
                    if name.startswith("token") or name.endswith(".key")
                    else ""
                )
                words = words.replace(secret, _config.HIDDEN) if secret else words
        except (GatewayError, SupervisorError, _durable.DurableError) as error:
            return f"(it cannot be told: {error})"
        return words

    def validate(self, *, config: bytes | None = None, roster: bytes | None = None) -> list[str]:
        """What OpenClaw has against these file contents (None: the file as it is); empty if nothing.

        The caller holds the gateway's lock.
        """
        try:
            return _validation.validate(self, config, roster)
        except (_validation.NoVerdict, _durable.DurableError) as error:
            raise GatewayError(str(error)) from error

    def accepts(self, token: str) -> bool:
        """Whether the gateway takes this token; no agent is asked."""
        status, _answer = self._request("POST", "/v1/responses", {}, _bearer(token), timeout=30)
        return status != 401

    def hold(self, agent_id: str, seconds: int) -> bool:
        """Have the agent's next turn wait until `release`, that long at most; False if she is at work."""
        return self._runs("PUT", f"hold={agent_id}&seconds={seconds}").get("held") is True

    def release(self, agent_id: str) -> None:
        """End what `hold` began."""
        self._runs("DELETE", f"hold={agent_id}")

    def _runs(self, verb: str, query: str) -> dict[str, Any]:
        """What the fleet's own plugin knows of agents at work."""
        status, answer = self._authorized(verb, f"/claw-fleet/runs?{query}", None, {}, timeout=30)
        if status != 200 or not isinstance(answer, dict):
            raise self._refused("does not say which agents are at work", status, answer)
        return answer

    def _authorized(
        self, verb: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, Any]:
        """The answer to a request with the gateway's token; with the former one where it has not taken the new yet."""
        status, answer = self._request(verb, path, body, {**_bearer(self.token()), **headers}, timeout)
        former = self._secret(self.token_file + FORMER) if status == 401 else ""
        if former:
            status, answer = self._request(verb, path, body, {**_bearer(former), **headers}, timeout)
        return status, answer

    def _secret(self, path: str) -> str:
        try:
            data = _durable.read(path, root=self.state_dir)
        except _durable.DurableError as error:
            raise GatewayError(str(error)) from error
        return (data or b"").decode("ascii", "replace").strip()

    def _refused(self, deed: str, status: int, answer: Any) -> GatewayRefused:
        found = answer.get("error") if isinstance(answer, dict) else None
        found = found if isinstance(found, dict) else {}
        reason = str(found.get("message") or f"HTTP status {status}")
        retry = found.get("retryAfterMs")
        return GatewayRefused(
            f"gateway {self.name} {deed}: {reason}",
            status,
            str(found.get("code") or found.get("type") or ""),
            reason,
            retry / 1000 if isinstance(retry, (int, float)) else None,
        )

    def _request(
        self, verb: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, Any]:
        """Status and decoded JSON body (None if it is not JSON)."""
        connection = http.client.HTTPConnection(_LOCAL, self.port, timeout=timeout)
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(verb, path, data, {**headers, "content-type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise GatewayUnreachable(
                f"gateway {self.name} does not answer on port {self.port}: {error or type(error).__name__}"
            ) from error
        finally:
            connection.close()
        try:
            return response.status, json.loads(content)
        except ValueError:
            return response.status, None


def other_gateway(name: str, port: int | None, config_root: str) -> str:
    """The name of another gateway of this machine that is set up with this port; empty if there is none."""
    for path in sorted(Path(config_root).glob("*/gateway.json")):
        try:
            found = json.loads(_durable.read(path) or b"{}")
        except ValueError:
            # Its own role will say so.
            continue
        if path.parent.name != name and found.get("port") == port:
            return path.parent.name
    return ""


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _entries(config: Any) -> dict[str, Any]:
    agents = config.get("agents") if isinstance(config, dict) else None
    entries = agents.get("entries") if isinstance(agents, dict) else None
    return entries if isinstance(entries, dict) else {}
