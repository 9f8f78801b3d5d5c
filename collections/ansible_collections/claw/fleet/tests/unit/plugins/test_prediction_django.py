# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As test_prediction.py, of tokens and addresses, which machines and Django have to agree on: a check writes nothing on
either side and says what a run then does, and after that there is nothing to do.

A check does not ask whether Django will take what it is told, so what it refuses is not foreseen. Nor is the hash of a
token that is yet to be made.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.claw.fleet.plugins.action import gateway_token, service_token, tunnel_token
from ansible_collections.claw.fleet.plugins.module_utils import _durable, _tunnel
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway
from ansible_collections.claw.fleet.plugins.modules import tunnel_token_file, tunnel_url
from ansible_collections.claw.fleet.tests.unit.plugins.action.test_gateway_token import Machine
from ansible_collections.claw.fleet.tests.unit.plugins.action.test_service_token import FIRST, Killed, sha256
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import TOKEN, CoachList
from ansible_collections.claw.fleet.tests.unit.plugins.offline import offline_gateway
from ansible_collections.claw.fleet.tests.unit.plugins.prediction import (
    Result,
    Run,
    below,
    four_times,
    fresh_place,
    on_this_machine,
    run_module,
    without,
)
from ansible_collections.claw.fleet.tests.unit.plugins.run_action import run_action
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_authorities")]

MADE = "token_sha256"
"""What is known of a token only once it is made."""


def two_times(run: Run, seen: Callable[[], Any]) -> Result:
    """Check and do; for whoever wishes for another token, and gets another one with each run."""
    before = seen()
    predicted = run(True)
    assert seen() == before
    done = run(False)
    assert without(MADE)(done) == without(MADE)(predicted)
    assert done["changed"] and seen() != before
    return done


def says_another(told: Result) -> bool:
    """Whether the diff tells of a secret that takes the place of the one before."""
    return bool(told["diff"]["before"] != told["diff"]["after"])


def age(path: Path) -> None:
    """As after a month."""
    old = time.time() - 31 * 86400
    os.utime(path, (old, old))


# The service token

SERVICE = st.tuples(
    st.sampled_from([0, 30, 30]),
    st.sampled_from(["nothing", "it is old", "a run is killed"]),
    # Before which of its deeds with files.
    st.integers(0, 4),
)


def test_service_token(coach_list: CoachList) -> None:
    @settings(max_examples=40)
    @given(st.lists(SERVICE, min_size=1, max_size=4))
    def holds(steps: list[tuple[int, str, int]]) -> None:
        coach_list.service_tokens.clear()
        coach_list.service_tokens[sha256(FIRST)] = True
        with fresh_place() as place:
            path = place / "service-token"
            path.write_text(FIRST)
            for days, hands, point in steps:
                if hands == "it is old":
                    age(path)
                elif hands == "a run is killed":
                    kill_rotation(coach_list, path, point)
                one_rotation(coach_list, path, days)

    holds()


def rotate(coach_list: CoachList, path: Path, check: bool, days: int) -> Result:
    given = {"api_url": coach_list.url, "path": str(path), "retries": 0, "max_age_days": days}
    return run_action(service_token.ActionModule, given, check_mode=check)


def kill_rotation(coach_list: CoachList, path: Path, point: int) -> None:
    deeds = count()

    def dying(deed: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any, **kwargs: Any) -> Any:
            if next(deeds) == point:
                raise Killed
            return deed(*args, **kwargs)

        return done

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        for name in ("write", "remove"):
            patch.setattr(_durable, name, dying(getattr(_durable, name)))
        rotate(coach_list, path, False, 0)


def one_rotation(coach_list: CoachList, path: Path, days: int) -> None:
    def run(check: bool) -> Result:
        path.with_name("service-token.lock").unlink(missing_ok=True)
        told = rotate(coach_list, path, check, days)
        assert path.with_name("service-token.lock").exists() is not check
        return told

    def seen() -> Any:
        files = below(path.parent, but=("service-token.lock",))
        return files, dict(coach_list.service_tokens), len(coach_list.writes)

    former = path.read_text().strip()
    done = four_times(run, seen, alike=without(MADE)) if days else two_times(run, seen)
    now = path.read_text().strip()
    assert says_another(done) is (now != former)
    assert done[MADE] == sha256(now)
    assert [digest for digest, good in coach_list.service_tokens.items() if good] == [sha256(now)]


# A gateway's token

GATEWAY = st.tuples(
    st.sampled_from([None, None, "ab" * 24, "cd" * 24]),
    st.sampled_from([0, 30, 30]),
    st.sampled_from(["nothing", "it is old", "use", "finish", "Django forgets it"]),
    st.sampled_from([None, "ef" * 24]),
)


def test_gateway_token(coach_list: CoachList) -> None:
    @settings(max_examples=40)
    @given(st.lists(GATEWAY, min_size=1, max_size=4))
    def holds(steps: list[tuple[str | None, int, str, str | None]]) -> None:
        with fresh_place() as place, pytest.MonkeyPatch.context() as patch:
            machine = Machine(place)
            coach_list.gateways["gw-a"] = {"token_sha256": sha256(machine.read("token"))}

            def execute(action: Any, *, task_vars: Any, **words: Any) -> Result:
                return machine.execute(action, **words)

            patch.setattr(gateway_token.ActionModule, "_execute_module", execute)
            for token, days, hands, other in steps:
                if hands == "it is old":
                    age(machine.files.token)
                elif hands == "Django forgets it":
                    coach_list.gateways.clear()
                elif hands != "nothing" and other != machine.read("token"):
                    machine.dies_at = hands
                    with pytest.raises(AnsibleActionFail):
                        replace_token(coach_list, False, other, 0)
                    machine.dies_at = ""
                one_replacement(coach_list, machine, token, days)

    holds()


def replace_token(coach_list: CoachList, check: bool, token: str | None, days: int) -> Result:
    access = {"api_url": coach_list.url, "api_token": TOKEN, "retries": 0}
    given = {**access, "gateway": "gw-a", "token": token, "max_age_days": days}
    return run_action(gateway_token.ActionModule, given, check_mode=check)


def one_replacement(coach_list: CoachList, machine: Machine, token: str | None, days: int) -> None:
    def run(check: bool) -> Result:
        return replace_token(coach_list, check, token, days)

    def seen() -> Any:
        return below(machine.files.state), json.dumps(coach_list.gateways), len(coach_list.writes)

    former = machine.read("token")
    done = four_times(run, seen, alike=without(MADE)) if token or days else two_times(run, seen)
    now = machine.read("token")
    assert now == (token or now)
    assert says_another(done) is (now != former)
    assert done[MADE] == sha256(now)
    for known in coach_list.gateways.values():
        assert known["token_sha256"] == sha256(now)


# The token of a machine's tunnel

TUNNEL = st.tuples(
    st.lists(st.sampled_from(["gw-a", "gw-b", "gw-c"]), unique=True, max_size=2),
    st.sampled_from(
        [
            "nothing",
            "nothing",
            "it is removed",
            "it is revoked",
            "the app forgets it",
            "its scope is edited",
            "its scope is turned round",
        ]
    ),
)


def test_tunnel_token(coach_list: CoachList) -> None:
    @settings(max_examples=40)
    @given(st.lists(TUNNEL, min_size=1, max_size=4))
    def holds(steps: list[tuple[list[str], str]]) -> None:
        coach_list.service_tokens.clear()
        coach_list.scopes.clear()
        with fresh_place() as place:
            for gateways, hands in steps:
                if hands == "it is removed":
                    (place / "token").unlink(missing_ok=True)
                elif hands == "it is revoked":
                    coach_list.service_tokens.update(dict.fromkeys(coach_list.service_tokens, False))
                elif hands == "the app forgets it":
                    coach_list.service_tokens.clear()
                    coach_list.scopes.clear()
                elif hands == "its scope is edited":
                    for scope in coach_list.scopes.values():
                        scope.append("gw-z")
                elif hands == "its scope is turned round":
                    for scope in coach_list.scopes.values():
                        scope.reverse()
                one_tunnel(coach_list, place, gateways)

    holds()


def one_tunnel(coach_list: CoachList, place: Path, gateways: list[str]) -> None:
    action = on_this_machine(tunnel_token.ActionModule, tunnel_token_file)
    access = {"api_url": coach_list.url, "api_token": TOKEN, "retries": 0}
    given = {**access, "name": "tunnel of m", "gateways": gateways, "tunnel_dir": str(place)}

    def run(check: bool) -> Result:
        return run_action(action, given, check_mode=check)

    def behind_it() -> None:
        (place / "gateways.d").mkdir(exist_ok=True)
        for name in gateways:
            (place / "gateways.d" / f"{name}.json").touch()

    def seen() -> Any:
        known = json.dumps([coach_list.service_tokens, coach_list.scopes])
        return below(place), known, len(coach_list.writes)

    done = four_times(
        run,
        seen,
        # Of one that is made anew, because there is none or it was revoked, there is no hash yet.
        alike=lambda told: without(MADE)(told) if told["changed"] else told,
        between=behind_it,
    )
    digest = sha256((place / "token").read_text().strip())
    assert (done[MADE], coach_list.service_tokens[digest]) == (digest, True)
    assert sorted(coach_list.scopes[digest]) == done["gateways"]


# Where a gateway is reached through a tunnel

URL = st.tuples(
    st.sampled_from(["calm-cove.tunnel.test", "wide-bay.tunnel.test"]),
    st.sampled_from(["quick", "named"]),
    st.sampled_from(["up", "up", "up", "down", "without a name", "not at the edge"]),
    st.sampled_from(
        ["nothing", "it is told of another", "it is told of a failure", "it forgets the gateway"]
    ),
)


class World:
    """All that a machine's tunnel has to do with: cloudflared, the way from outside, and the app."""

    def __init__(self, place: Path) -> None:
        self.proof_dir = place / "proof"
        self.proof_dir.mkdir()
        self.hostname = ""
        self.state = "up"
        self.known: dict[str, Any] | None = {"url": "", "probed_at": None, "probe_error": ""}

    def send(
        self, method: str, url: str, *, body: Mapping[str, Any] | None = None, **_more: Any
    ) -> _tunnel.Answer:
        """In the place of `_tunnel.Client.send`."""
        asked = urlsplit(url)
        if asked.hostname == "metrics":
            return self._cloudflared(asked.path)
        if asked.hostname == "app":
            return self._app(method, body)
        assert asked.hostname == self.hostname and method in ("GET", "POST")
        if asked.path.startswith(_tunnel.PROOF_PATH):
            return _tunnel.Answer(200, (self.proof_dir / Path(asked.path).name).read_bytes())
        return _tunnel.Answer(400, b"{}")

    def _cloudflared(self, path: str) -> _tunnel.Answer:
        if self.state == "down":
            raise _tunnel.NotYet("connection refused")
        answers: dict[str, Any] = {
            "/ready": {"readyConnections": int(self.state != "not at the edge")},
            "/quicktunnel": {"hostname": "" if self.state == "without a name" else self.hostname},
            "/config": {"config": {"ingress": [{"hostname": self.hostname}]}},
        }
        return _tunnel.Answer(200, json.dumps(answers[path] | {"status": 200}).encode())

    def _app(self, method: str, body: Mapping[str, Any] | None) -> _tunnel.Answer:
        if self.known is None:
            return _tunnel.Answer(404, b"{}")
        if method == "PUT":
            assert body and body["answered"]
            self.known = {"url": body["url"], "probed_at": "now", "probe_error": ""}
        return _tunnel.Answer(200, json.dumps(self.known).encode())


@settings(max_examples=80)
@given(st.lists(URL, min_size=1, max_size=5))
def test_tunnel_url(steps: list[tuple[str, str, str, str]]) -> None:
    with fresh_place() as place, pytest.MonkeyPatch.context() as patch:
        world, gateway = World(place), offline_gateway(place)
        Path(gateway.token_file).write_text("a" * 48)
        patch.setattr(_tunnel, "Client", lambda *_given, **_more: world)
        patch.setattr(Gateway, "load", lambda _name, _root: gateway)
        given = {"gateway": "gw-a", "tunnel_dir": str(place / "tunnel"), "wait": 0}

        def run(check: bool) -> Result:
            return run_module(tunnel_url, given, check)

        def seen() -> Any:
            return below(place, but=("proof",)), (world.known or {}).get("url")

        before = seen()
        unknown(run(True))
        assert seen() == before
        write_settings(place / "tunnel", world)
        for hostname, kind, state, app in steps:
            world.hostname, world.state = hostname, state
            wanted = {"hostname": hostname if kind == "named" else ""}
            (place / "tunnel" / "gateways.d" / "gw-a.json").write_text(json.dumps(wanted))
            if app == "it forgets the gateway":
                world.known = None
            elif world.known is None:
                world.known = {"url": "", "probed_at": None, "probe_error": ""}
            elif app == "it is told of another":
                world.known["url"] = "https://elsewhere.tunnel.test/gw-a"
            elif app == "it is told of a failure":
                world.known["probe_error"] = "it is away"
            absent = state in ("down", "not at the edge") or (state, kind) == ("without a name", "quick")
            if absent or world.known is None:
                before = seen()
                unknown(run(True))
                assert "failed" in run(False)
                assert seen() == before
                continue
            # That it answered is noted in the app where it was not; a change is another address alone, there and here.
            done = four_times(run, seen)
            assert done["url"] == f"https://{hostname}/gw-a" == world.known["url"]
            assert (world.known["probed_at"], world.known["probe_error"]) == ("now", "")


def test_an_address_that_changes_while_the_app_is_down_is_not_told_after_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fresh_place() as place:
        world, gateway = World(place), offline_gateway(place)
        Path(gateway.token_file).write_text("a" * 48)
        monkeypatch.setattr(_tunnel, "Client", lambda *_given, **_more: world)
        monkeypatch.setattr(Gateway, "load", lambda _name, _root: gateway)
        monkeypatch.setattr(tunnel_url, "_POLL_SECONDS", 0.0)
        write_settings(place / "tunnel", world)
        (place / "tunnel" / "gateways.d" / "gw-a.json").write_text(json.dumps({"hostname": ""}))
        world.hostname, world.state = "one.tunnel.test", "up"
        world.known = {"url": "", "probed_at": None, "probe_error": ""}
        tell = tunnel_url.App.tell

        def down_at_first(self: tunnel_url.App, name: str, url: str) -> dict[str, Any]:
            if world.hostname == "one.tunnel.test":
                world.hostname = "two.tunnel.test"
                raise _tunnel.NotYet("the app does not answer")
            return tell(self, name, url)

        monkeypatch.setattr(tunnel_url.App, "tell", down_at_first)
        done = run_module(tunnel_url, {"gateway": "gw-a", "tunnel_dir": str(place / "tunnel")}, False)
        assert done["url"] == world.known["url"] == "https://two.tunnel.test/gw-a"


def unknown(told: Result) -> None:
    """Where there is no tunnel, or nobody to tell, it is yet to come and what comes is not known: so it is said."""
    assert (told["changed"], told["url"], told["former_url"], len(told["warnings"])) == (True, "", "", 1)


def write_settings(directory: Path, world: World) -> None:
    """As the role does."""
    (directory / "gateways.d").mkdir(parents=True)
    (directory / "token").write_text("the-watchers-token")
    written = {
        "metrics": "metrics:1",
        "proof_dir": str(world.proof_dir),
        "api_url": "http://app/api/",
        "api_path": "internal/gateways/{name}/address/",
        "auth_header": "Authorization",
        "auth_prefix": "Bearer",
        "ca_path": "",
    }
    (directory / "tunnel.json").write_text(json.dumps(written))
