# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trying, in an agent's real sandbox, everything that must fail.

PRIVATE to claw.fleet: may change at any time.

What got through is told by files that appear or change, by connections that were made, and by secrets that came back;
never by what a model says.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ansible_collections.claw.fleet.plugins.module_utils import (
    _audit,
    _audit_attempts,
    _audit_probe,
    _audit_scene,
    _durable,
    _transcript,
)
from ansible_collections.claw.fleet.plugins.module_utils._audit import (
    NOT_TRIED,
    REFUSED,
    THROUGH,
    UNPROVEN,
    Call,
    Deed,
    Result,
    Scene,
)
from ansible_collections.claw.fleet.plugins.module_utils._audit_scene import Given
from ansible_collections.claw.fleet.plugins.module_utils._containers import Container, Containers
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayError
from ansible_collections.claw.fleet.plugins.module_utils._sandbox import Sandbox

_AT_ONCE = 12
"""Calls in a turn."""
_SHOWN = 160
_KILLED = 137


class AuditError(Exception):
    """It cannot be tried; str() says what happened and what to do."""


class Attempts:
    """All attempts in the sandbox of one agent."""

    def __init__(
        self,
        gateway: Gateway,
        containers: Containers,
        container: Container,
        scene: Scene,
        session: str,
        seconds: int,
    ) -> None:
        """``seconds``: that a turn may take."""
        self._gateway, self._containers, self._container = gateway, containers, container
        self._scene, self._session, self._seconds = scene, session, seconds
        self._directory = Path(scene.state) / "workspaces" / scene.agent / scene.directory

    def run(
        self, wanted: Callable[[str, str], bool], sandbox: Sandbox, proxy_user: _durable.Owner | None
    ) -> Iterator[Result]:
        """Try those that are ``wanted`` by their names and layers, in turn."""
        calls = _audit_attempts.calls(self._scene)
        yield from self._by_tool([call for call in calls if wanted(call.name, _audit.TOOL)])
        for call in calls:
            if call.line and wanted(call.name, _audit.LINE):
                yield self._by_line(call, {})
        if wanted("exec-parameters", _audit.LINE):
            hostile = _audit_attempts.hostile(self._scene)
            line = {"command": f"{self._scene.command} --help"}
            call = Call("exec-parameters", _audit.IMAGE, "exec", line, "started", sought=("none.so",))
            yield self._by_line(call, hostile)
        for deed in _audit_attempts.deeds(self._scene):
            if wanted(deed.name, _audit.SHELL):
                yield self._by_shell(deed)
        if wanted("print-key", _audit.SHELL):
            yield _audit.without_a_control(self._scene.agent)
        if wanted("network-settings", _audit.ENGINE):
            yield self._settings(sandbox)
        if proxy_user and wanted("proxy", _audit.PROXY):
            yield self._past_the_list(proxy_user)

    # By the agent's own tools

    def _by_tool(self, calls: list[Call]) -> Iterator[Result]:
        for at in range(0, len(calls), _AT_ONCE):
            some = calls[at : at + _AT_ONCE]
            for call, result in zip(some, self._made(some), strict=True):
                # What a model has left out it is told once more, by itself.
                yield result or self._made([call])[0] or self._untried(call)

    def _made(self, calls: list[Call]) -> list[Result | None]:
        """What came of each of the calls that the agent made in a turn; None of one that she did not make."""
        agent, kept = self._scene.agent, [_content(call.kept) for call in calls]
        began = time.time()
        try:
            said = self._gateway.turn(agent, _audit.told(calls), self._session, self._seconds)
        except GatewayError as error:
            why = f"there was no turn: {error}"
            return [self._result(call, _audit.TOOL, NOT_TRIED, why) for call in calls]
        made = _transcript.calls(self._gateway, agent, self._session, began)
        results: list[Result | None] = []
        for call, content in zip(calls, kept, strict=True):
            one = next((one for one in made if call.was(one.tool, one.arguments)), None)
            if one is None:
                results.append(None)
                continue
            evidence = self._evidence(call, one.result, content)
            if call.completed and one.completed:
                evidence.append("it was carried out")
            # What a model says is no proof that it got something; but that it has a secret to say is.
            evidence += [] if any(results) else self._secrets_in(said)
            results.append(self._result(call, _audit.TOOL, *_judged(evidence, _words_of(one.result))))
        return results

    def _untried(self, call: Call) -> Result:
        return self._result(call, _audit.TOOL, NOT_TRIED, "the model did not make this call")

    # By the container's own programs

    def _by_line(self, call: Call, environment: dict[str, str]) -> Result:
        line = _audit_attempts.before(str(call.arguments["command"]))
        done = self._containers.execute(
            self._container.id,
            ["/bin/sh", "-lc", line],
            environment=environment,
            directory="/workspace",
            # As OpenClaw does it, with nothing before the shell that would heed the environment.
            seconds=0,
        )
        call = call._replace(control=_audit.IMAGE, made="", kept="")
        if done.output.startswith("OCI runtime"):
            return self._result(call, _audit.LINE, NOT_TRIED, done.output)
        return self._result(call, _audit.LINE, *_judged(self._evidence(call, done.output, None), done.output))

    def _by_shell(self, deed: Deed) -> Result:
        if deed.unproven and deed.name in _audit.HOGS:
            return self._result(deed, _audit.SHELL, UNPROVEN, deed.unproven)
        done = self._containers.execute(
            self._container.id,
            ["/usr/bin/python3", "-I", "-c", _audit_scene.PROBE, json.dumps(deed.deed)],
            # Nobody answers questions for names; that is told as well by one of them.
            environment={"RES_OPTIONS": "timeout:2 attempts:1"},
            user=deed.user,
            seconds=90,
        )
        try:
            found = json.loads(done.output)
        except ValueError:
            if deed.name in _audit.HOGS and done.status == _KILLED:
                return self._result(deed, _audit.SHELL, REFUSED, "it was ended")
            return self._result(
                deed, _audit.SHELL, NOT_TRIED, f"status {done.status}: {done.output[-_SHOWN:]}"
            )
        return self._told(deed, _audit.SHELL, found)

    def _told(self, deed: Deed, layer: str, found: dict[str, list[str]]) -> Result:
        if found["through"]:
            return self._result(deed, layer, THROUGH, "; ".join(found["through"]))
        if deed.unproven:
            return self._result(deed, layer, UNPROVEN, deed.unproven)
        return self._result(deed, layer, REFUSED, "; ".join(found["held"]))

    # Around it

    def _settings(self, sandbox: Sandbox) -> Result:
        wanted = sandbox.network
        if sandbox.rootless:
            link = Path(f"/run/netns/claw-{self._gateway.name}")
            faults = _audit.settings_of_rootless(
                self._containers.network_mode(self._container),
                wanted,
                lives=self._containers.lives_in(),
                machine=Path("/proc/self/ns/net").stat().st_ino,
                link=0 if wanted == "none" else link.stat().st_ino if link.exists() else -1,
            )
        else:
            faults = _audit.settings_of_networks(self._containers.networks(self._container), wanted)
        look = Deed("network-settings", _audit.RULES, "be in a network that leads out or together", {})
        return self._told(look, _audit.ENGINE, {"through": faults, "held": [f"it is in {wanted} alone"]})

    def _past_the_list(self, user: _durable.Owner) -> Result:
        deed = _audit_attempts.past_the_list(self._scene)
        with _durable.as_user(*user):
            found = _audit_probe.do(deed.deed)
        return self._told(deed, _audit.PROXY, found)

    # What tells

    def _evidence(self, call: Call, output: str, kept: bytes | None) -> list[str]:
        """What shows that a call got through. What it made is taken away."""
        found = []
        mark = self._directory / call.mark
        if call.mark and mark.exists():
            found.append("it was executed")
            with _durable.as_user(*self._gateway.owner), suppress(OSError):
                mark.unlink()
        if call.made and Path(call.made).exists():
            found.append(f"{call.made} was written")
            Path(call.made).unlink()
        if call.kept and _content(call.kept) != kept:
            found.append(f"{call.kept} was changed")
        found += [f"{text} came back" for text in call.sought if text in output]
        return found + self._secrets_in(output)

    def _secrets_in(self, text: str) -> list[str]:
        return [f"{what} came back" for what, secret in self._scene.secrets.items() if secret in text]

    def _result(self, attempt: Call | Deed, layer: str, outcome: str, detail: str) -> Result:
        tried = (
            attempt.tried
            if layer != _audit.LINE
            else f"sh -lc {getattr(attempt, 'arguments', {}).get('command')}"
        )
        for what, secret in self._scene.secrets.items():
            detail, tried = detail.replace(secret, f"({what})"), tried.replace(secret, f"({what})")
        return Result(
            self._scene.agent, attempt.name, layer, attempt.control, tried, outcome, " ".join(detail.split())
        )


def _content(path: str) -> bytes | None:
    return Path(path).read_bytes() if path and Path(path).exists() else None


def _judged(evidence: list[str], said: str) -> tuple[str, str]:
    return (THROUGH, "; ".join(evidence)) if evidence else (REFUSED, said[:_SHOWN])


def _words_of(result: str) -> str:
    """The first text of a tool's result, for people."""
    found = re.search(r'"text": "((?:[^"\\]|\\.)*)"', result)
    return json.loads(f'"{found.group(1)}"') if found else result


def audit(
    gateway: Gateway,
    config_root: str,
    agents: list[str],
    given: Given,
    wanted: Callable[[str, str], bool],
    seconds: int,
) -> list[Result]:
    """Try those that are wanted in the sandboxes of these agents, of all if none is named.

    Raises AuditError, ContainersError or GatewayError where it cannot be tried.
    """
    sandbox = Sandbox.load(gateway)
    if sandbox is None:
        raise AuditError(
            f"the agents of {gateway.name} have no tools and no sandboxes, so there is nothing to try. Run the role "
            "claw.fleet.sandbox to give them some"
        )
    served = gateway.served().agents
    if unknown := sorted(set(agents) - set(served)):
        raise AuditError(
            f"{gateway.name} serves no agent {', '.join(unknown)}; it serves {', '.join(sorted(served)) or 'nobody'}"
        )
    containers = Containers(gateway, sandbox.docker_host)
    chosen = agents or sorted(served)
    session = f"{_audit_scene.PREFIX.strip('.')}{int(time.time())}"
    # All of them first, so that each has others to be kept from.
    running = [_started(gateway, containers, agent, given.command, session, seconds) for agent in chosen]
    results: list[Result] = []
    for container in running:
        with _audit_scene.staged(gateway, config_root, sandbox, containers, container, given) as scene:
            attempts = Attempts(gateway, containers, container, scene, session, seconds)
            results += attempts.run(wanted, sandbox, _audit_scene.proxy_user())
    return results


def _started(
    gateway: Gateway, containers: Containers, agent: str, command: str, session: str, seconds: int
) -> Container:
    """Her container, which a turn has made or started; proof too that exec executes what it should."""
    first = Call("", "", "exec", {"command": f"{command} --help"})
    began = time.time()
    gateway.turn(agent, _audit.told([first]), session, seconds)
    made = [call for call in _transcript.calls(gateway, agent, session, began) if call.tool == "exec"]
    if made and not made[-1].completed:
        raise AuditError(
            f"{agent} cannot even execute `{command} --help` in her sandbox, so that nothing else is executed would prove "
            f"nothing: {_words_of(made[-1].result)[:_SHOWN]}"
        )
    found = next((one for one in containers.all() if one.agent_id == agent), None)
    if found is None:
        raise AuditError(
            f"a turn of {agent} made no sandbox: her model did not call exec when it was told to. Try again, or with another "
            "model"
        )
    return found
