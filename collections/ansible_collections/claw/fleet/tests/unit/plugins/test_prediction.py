# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is wished in whatever order: a check writes nothing and says exactly what a run then does, and after
that there is nothing to do. From an empty host on, and with somebody's hands in the files between the runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.action import agent_key, coach_status, gateway_registration
from ansible_collections.claw.fleet.plugins.module_utils import _gateway_config, _removal
from ansible_collections.claw.fleet.plugins.module_utils._activation import Activation
from ansible_collections.claw.fleet.plugins.module_utils._agents import Agents, AgentsError
from ansible_collections.claw.fleet.plugins.module_utils._coach import settled_status
from ansible_collections.claw.fleet.plugins.module_utils._durable import DurableError
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway
from ansible_collections.claw.fleet.plugins.module_utils._gateway_config import ConfigFile
from ansible_collections.claw.fleet.plugins.module_utils._keys import FINAL, Keys
from ansible_collections.claw.fleet.plugins.module_utils._manifest import Manifest
from ansible_collections.claw.fleet.plugins.module_utils._roster import Roster, RosterError
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import UnitState
from ansible_collections.claw.fleet.plugins.module_utils._workspace import OwnedFile
from ansible_collections.claw.fleet.plugins.modules.gateway_secrets import reconcile
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import TOKEN, CoachList, row
from ansible_collections.claw.fleet.tests.unit.plugins.prediction import fresh_gateway, on_disk
from ansible_collections.claw.fleet.tests.unit.plugins.run_action import run_action
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_authorities")]

REFUSALS = (AgentsError, DurableError, RosterError)
COACHES = (1, 2, 3)
OWN = ("lock", "manifest.json", "config.applied.json")
"""What the fleet notes for itself, and which counts as no change of anything."""

Row = dict[str, Any]


def attempt(deed: Callable[[], Any]) -> Any:
    """What comes of it: its result, or the words of its refusal."""
    try:
        return deed()
    except REFUSALS as error:
        return f"{type(error).__name__}: {error}"


def predicted_and_done(gateway: Gateway, deed: Callable[[bool], Any]) -> Any:
    """Check, then do: the check wrote nothing, and said what came of it."""
    before = on_disk(gateway)
    predicted = attempt(lambda: deed(True))
    assert on_disk(gateway) == before
    noted = on_disk(gateway, but=OWN)
    done = attempt(lambda: deed(False))
    assert done == predicted
    nothing = isinstance(done, str) or not done.changed
    assert (on_disk(gateway, but=OWN) == noted) is nothing
    return done


# Agents

WISH = st.fixed_dictionaries(
    {
        "wanted": st.sampled_from(["running", "running", "paused", "removed", None]),
        "name": st.sampled_from(["Anna", "Berta"]),
        "settled": st.booleans(),
        "fault": st.sampled_from([None, None, None, {"step": "key", "reason": "because"}]),
    }
)
WISHES = st.fixed_dictionaries(
    {
        "coaches": st.tuples(*(WISH for _coach in COACHES)),
        "text": st.sampled_from(["one", "two"]),
        "purge": st.sampled_from([False, False, True]),
        "max_removals": st.sampled_from([None, None, 0, 1]),
    }
)
# None: as before, so that there is nothing to do but for what somebody's hands did.
WISHES_OR_AS_BEFORE = WISHES | st.none()
HANDS = (
    "nothing",
    "an owned file is edited",
    "a seed is edited",
    "a file is removed",
    "the workspace is removed",
    "the workspace is opened to others",
    "a link stands for a file",
    "a link stands for a directory",
    "a file stands for the workspace",
    "the roster's mode is changed",
    "a removal is killed",
)


def meddle(gateway: Gateway, what: str, number: int) -> None:
    """Somebody's hands, where there is something to lay them on."""
    home = Path(gateway.state_dir) / "workspaces" / f"coach-{number}"
    if what == "the roster's mode is changed" and Path(gateway.roster).exists():
        Path(gateway.roster).chmod(0o600)
    if what == "a removal is killed":
        kill_removal(gateway, f"coach-{number}")
    if not home.is_dir() or home.is_symlink():
        return
    file = home / "AGENTS.md"
    if what == "an owned file is edited":
        file.write_text("somebody's")
    elif what == "a seed is edited":
        (home / "SOUL.md").write_text("the agent's")
    elif what == "a file is removed":
        file.unlink(missing_ok=True)
    elif what in ("the workspace is removed", "a file stands for the workspace"):
        shutil.rmtree(home)
        if what != "the workspace is removed":
            home.write_text("in the way")
    elif what == "the workspace is opened to others":
        home.chmod(0o755)
    elif what == "a link stands for a file":
        file.unlink(missing_ok=True)
        file.symlink_to("SOUL.md")
    elif what == "a link stands for a directory":
        notes = home / "notes"
        if not notes.is_symlink():
            shutil.rmtree(notes, ignore_errors=True)
            notes.symlink_to("..")


def kill_removal(gateway: Gateway, agent_id: str) -> None:
    """As a run leaves it that is killed after its commit point."""
    entries = Roster(gateway).entries()
    if entries.pop(agent_id, None):
        manifest = Manifest(gateway)
        manifest.removing[agent_id] = _removal.stamp()
        manifest.save()
        Roster(gateway).apply(entries)


def coaches_of(wishes: dict[str, Any]) -> list[Row]:
    rows = []
    for number, wish in zip(COACHES, wishes["coaches"], strict=True):
        if wish["wanted"] is None:
            continue
        coach = row(number, wanted=wish["wanted"], name=wish["name"])
        if wish["settled"]:
            coach |= {"status": settled_status(wish["wanted"]), "observed_generation": 1, "key_generation": 1}
        rows.append(coach | ({"error": wish["fault"]} if wish["fault"] else {}))
    return rows


def files_of(rows: list[Row], text: str) -> dict[str, list[OwnedFile]]:
    return {
        coach["agent_id"]: [
            OwnedFile("SOUL.md", b"a soul", "agent"),
            OwnedFile("AGENTS.md", f"{text} for {coach['name']}".encode(), "fleet"),
            OwnedFile("notes/first.md", b"a note", "fleet"),
        ]
        for coach in rows
    }


@settings(max_examples=40)
@given(
    WISHES,
    st.lists(st.tuples(WISHES_OR_AS_BEFORE, st.sampled_from(HANDS), st.sampled_from(COACHES)), max_size=5),
)
def test_agents(wishes: dict[str, Any], more: list[tuple[dict[str, Any] | None, str, int]]) -> None:
    stamps = count()
    with fresh_gateway() as gateway, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_removal, "stamp", lambda: f"{next(stamps):08d}T000000Z")
        one_run(gateway, wishes)
        for others, hands, number in more:
            wishes = others or wishes
            meddle(gateway, hands, number)
            one_run(gateway, wishes)


def one_run(gateway: Gateway, wishes: dict[str, Any]) -> None:
    rows = coaches_of(wishes)
    files = files_of(rows, wishes["text"])
    options = {name: wishes[name] for name in ("purge", "max_removals")}

    def run(check: bool) -> Any:
        return Agents(gateway).reconcile(rows, files, check=check, **options)

    done = predicted_and_done(gateway, run)
    after = on_disk(gateway)
    for check in (False, True):
        again = attempt(lambda check=check: run(check))
        if isinstance(done, str):
            assert again == done
        else:
            assert (again.changed, again.diff, again.reloads) == (False, [], 0)
        assert on_disk(gateway) == after


# Keys

KEY_WISH = st.fixed_dictionaries(
    {
        "wanted": st.sampled_from(["running", "running", "paused", "removed"]),
        "rotate": st.booleans(),
        "forgotten": st.sampled_from([False, False, True]),
    }
)
KEY_HANDS = ("nothing", "a crash left it pending", "removed", "opened to others", "not readable", "a link")
KEY_STEP = st.tuples(
    st.tuples(*(KEY_WISH for _coach in COACHES)),
    st.sampled_from(["present", "present", "rotated", "absent"]),
    st.sampled_from(["http://one", "http://two"]),
    st.sampled_from(KEY_HANDS),
    st.sampled_from(COACHES),
)


def lay_hands_on_key(keys: Keys, what: str, coach: Row, url: str) -> None:
    place = Path(keys.gateway.state_dir) / "credentials" / coach["agent_id"]
    final = place / FINAL
    if what == "a crash left it pending":
        keys.prepare([coach], state="present", api_url=url)
    elif what != "nothing" and final.is_file() and not final.is_symlink():
        if what == "opened to others":
            final.chmod(0o644)
        elif what == "not readable":
            final.write_text("{")
        else:
            final.unlink()
            if what == "a link":
                final.symlink_to("/dev/null")


class Machine:
    """Does what the module does on the machine, in this process."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.check = False

    def execute(self, *, module_args: dict[str, Any], **_others: Any) -> dict[str, Any]:
        if "registered" in module_args:
            wrong = self.keys.conclude(module_args["registered"], module_args["revoked"])
            return {"wrong": wrong, "changed": True}
        results, changed = self.keys.prepare(
            module_args["agents"],
            state=module_args["state"],
            api_url=module_args["coach_api_url"],
            check=self.check,
        )
        return {"results": results, "changed": changed}


def knowable(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what nobody can know beforehand: id and hash of a key that is yet to be made."""
    made = {
        coach["agent_id"]: action.removeprefix("made key").strip()
        for coach in result["results"]
        for action in coach.get("actions") or []
        if action.startswith("made key")
    }
    known: dict[str, Any] = json.loads(json.dumps(result))
    for coach in known["results"]:
        if coach["agent_id"] in made:
            coach |= {"key_id": "", "key_sha256": "", "actions": ["made key"]}
    for change in known["diff"]:
        if change["after_header"].partition(":")[0] in made:
            change["after"] |= {"key_id": "", "key_sha256": ""}
    return known


def test_keys(coach_list: CoachList) -> None:
    @settings(max_examples=12)
    @given(st.lists(KEY_STEP, min_size=1, max_size=4))
    def holds(steps: list[Any]) -> None:
        coach_list.rows.clear()
        coach_list.add(*(row(number) for number in COACHES))
        with fresh_gateway() as gateway, pytest.MonkeyPatch.context() as patch:
            machine = Machine(Keys(gateway))
            patch.setattr(agent_key.ActionModule, "_execute_module", machine.execute)
            for step in steps:
                one_key_step(coach_list, machine, gateway, *step)

    holds()


def one_key_step(
    coach_list: CoachList,
    machine: Machine,
    gateway: Gateway,
    wishes: tuple[Row, ...],
    state: str,
    url: str,
    hands: str,
    number: int,
) -> None:
    for coach, wish in zip(coach_list.rows.values(), wishes, strict=True):
        coach["wanted"] = wish["wanted"]
        coach["key_wanted_generation"] += wish["rotate"]
        if wish["forgotten"]:
            coach |= {"key_id": "", "key_sha256": "", "key_generation": 0}
    lay_hands_on_key(machine.keys, hands, coach_list.rows[number], url)

    def run(check: bool) -> dict[str, Any]:
        access = {"api_url": coach_list.url, "api_token": TOKEN, "retries": 0, "gateway": "gw-a"}
        coaches = [dict(coach) for coach in coach_list.rows.values()]
        machine.check = check
        return run_action(
            agent_key.ActionModule,
            {**access, "agents": coaches, "state": state, "coach_api_url": url},
            check_mode=check,
        )

    before, writes = on_disk(gateway), len(coach_list.writes)
    predicted = run(True)
    assert (on_disk(gateway), len(coach_list.writes)) == (before, writes)
    done = run(False)
    assert knowable(done) == knowable(predicted)
    if not done["changed"]:
        assert (on_disk(gateway), len(coach_list.writes)) == (before, writes)
    for coach in done["results"]:
        if "error" not in coach:
            assert coach_list.rows[coach["pk"]]["key_sha256"] == coach["key_sha256"]
    if state == "rotated":
        # Whoever says so each time gets a new one each time.
        return
    after, writes = on_disk(gateway), len(coach_list.writes)
    for check in (False, True):
        again = run(check)
        assert (again["changed"], again["diff"]) == (False, [])
        assert (on_disk(gateway), len(coach_list.writes)) == (after, writes)


# The gateway's secrets and its config

SECRETS = st.tuples(
    st.sampled_from([None, "", "a" * 48, "b" * 48]),
    st.dictionaries(st.sampled_from(["one", "two"]), st.sampled_from(["sk-1", "sk-2"])),
    st.sampled_from(["nothing", "token gone", "token empty", "token open", "key open", "stray key"]),
)


@settings(max_examples=40)
@given(st.lists(SECRETS, min_size=1, max_size=6))
def test_secrets(steps: list[tuple[str | None, dict[str, str], str]]) -> None:
    with fresh_gateway() as gateway:
        state = Path(gateway.state_dir)
        for token, keys, hands in steps:
            for path in state.glob("token" if hands.startswith("token") else "*.key"):
                if hands.endswith("open"):
                    path.chmod(0o644)
                elif hands == "token gone":
                    path.unlink()
                elif hands == "token empty":
                    path.chmod(0o600)
                    path.write_text("")
            if hands == "stray key":
                (state / "provider-stray.key").write_text("sk-0")
            before = on_disk(gateway)
            predicted = reconcile(gateway, token, keys, True)
            assert on_disk(gateway) == before
            assert reconcile(gateway, token, keys, False) == predicted
            assert (on_disk(gateway) == before) is not bool(predicted[0])
            after = on_disk(gateway)
            for check in (False, True):
                assert reconcile(gateway, token, keys, check) == ([], predicted[1])
                assert on_disk(gateway) == after
            wanted = {f"provider-{name}.key": key for name, key in keys.items()}
            assert {path.name: path.read_text() for path in state.glob("*.key")} == wanted
            held = (state / "token").read_text()
            assert held == (token or held)
            assert re.fullmatch("[0-9a-f]{48}", held)


CONFIG = st.recursive(
    st.integers(0, 2) | st.lists(st.integers(0, 1), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
CONFIGS = st.dictionaries(st.sampled_from("abc"), CONFIG, min_size=1, max_size=3)


@settings(max_examples=40)
@given(st.lists(st.tuples(CONFIGS, CONFIGS, st.booleans()), min_size=1, max_size=5))
def test_config(steps: list[tuple[dict[str, Any], dict[str, Any], bool]]) -> None:
    with fresh_gateway() as gateway, pytest.MonkeyPatch.context() as patch:
        runs = [False]
        patch.setattr(_gateway_config, "_systemctl", lambda *_: None)
        patch.setattr(Gateway, "start", lambda self: runs.__setitem__(0, True))
        patch.setattr(Gateway, "wait_ready", lambda self, timeout: None)
        state = UnitState("active", "running", 7, "success", 0)
        patch.setattr(
            Gateway, "unit_state", lambda self: state if runs[0] else state._replace(active="inactive")
        )
        file = Path(gateway.config)
        for wanted, foreign, stopped in steps:
            runs[0] = runs[0] and not stopped
            if file.exists():
                # Somebody adds keys of their own, or takes ours away.
                file.write_text(json.dumps({**foreign, "theirs": foreign}))
            before = on_disk(gateway)
            predicted = ConfigFile(gateway, wanted, (), 1).apply(check=True)
            assert on_disk(gateway) == before
            noted = on_disk(gateway, but=OWN)
            done = ConfigFile(gateway, wanted, (), 1).apply(check=False)
            assert done == predicted
            held = json.loads(file.read_bytes())
            assert held == done.after
            assert {name: held[name] for name in wanted} == wanted or _contains(held, wanted)
            if not done.changed:
                assert on_disk(gateway, but=OWN) == noted
            elif "theirs" in done.before:
                assert held["theirs"] == foreign
            after = on_disk(gateway)
            for check in (False, True):
                again = ConfigFile(gateway, wanted, (), 1).apply(check=check)
                assert (again.changed, again.restarted, again.before) == (False, False, again.after)
                assert on_disk(gateway) == after


def _contains(held: Any, wanted: Any) -> bool:
    """Whether everything that is wanted is there; mappings may hold more."""
    if isinstance(wanted, dict):
        return isinstance(held, dict) and all(
            name in held and _contains(held[name], value) for name, value in wanted.items()
        )
    return bool(held == wanted)


# What is written to Django

STATUS_WISH = st.fixed_dictionaries(
    {
        "wanted": st.sampled_from(["running", "paused", "removed"]),
        "status": st.sampled_from(["pending", "provisioning", "activating", "active", "paused", "error"]),
        "gateway": st.sampled_from([None, "gw-a", "gw-b"]),
        "generation": st.integers(1, 2),
        "observed_generation": st.integers(0, 1),
        "reason": st.sampled_from(["", "a reason"]),
    }
)
DEED = st.sampled_from([{}, {"claim": "gw-a"}, {"activating": True}, {"failure": "the run broke"}])


def test_status(coach_list: CoachList) -> None:
    @settings(max_examples=20)
    @given(st.tuples(*(STATUS_WISH for _coach in COACHES)), st.lists(DEED, min_size=1, max_size=3))
    def holds(wishes: tuple[Row, ...], deeds: list[dict[str, Any]]) -> None:
        coach_list.rows.clear()
        coach_list.add(*(row(number, **wish) for number, wish in zip(COACHES, wishes, strict=True)))
        for deed in deeds:
            one_deed(coach_list, deed)

    holds()


def one_deed(coach_list: CoachList, deed: dict[str, Any]) -> None:
    def run(check: bool) -> dict[str, Any]:
        rows = [{**coach, "proposed_gateway": "gw-a"} for coach in coach_list.rows.values()]
        access = {"api_url": coach_list.url, "api_token": TOKEN, "retries": 0}
        return run_action(coach_status.ActionModule, {**access, "coaches": rows, **deed}, check_mode=check)

    before, asked = json.dumps(coach_list.rows), len(coach_list.requests)
    predicted = run(True)
    assert (json.dumps(coach_list.rows), len(coach_list.requests)) == (before, asked)
    done = run(False)
    assert done == predicted
    assert (json.dumps(coach_list.rows) == before) is not done["changed"]
    asked = len(coach_list.requests)
    for check in (False, True):
        again = run(check)
        assert (again["changed"], again["diff"]) == (False, [])
    assert len(coach_list.requests) == asked


REGISTRATION = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["gw-a", "gw-b"]),
        "url": st.sampled_from(["http://m:8080/gw", "http://m:8080/gw/", "http://n/gw"]),
        "token": st.sampled_from(["a" * 48, "b" * 48]),
        "capacity": st.sampled_from([None, 5, 100]),
    }
)


def test_registration(coach_list: CoachList) -> None:
    @settings(max_examples=20)
    @given(st.lists(REGISTRATION, min_size=1, max_size=4))
    def holds(steps: list[dict[str, Any]]) -> None:
        coach_list.gateways.clear()
        for step in steps:
            one_registration(coach_list, step)

    holds()


def one_registration(coach_list: CoachList, step: dict[str, Any]) -> None:
    def run(check: bool) -> dict[str, Any]:
        access = {"api_url": coach_list.url, "api_token": TOKEN, "retries": 0}
        return run_action(gateway_registration.ActionModule, {**access, **step}, check_mode=check)

    new = step["name"] not in coach_list.gateways
    known, writes = json.dumps(coach_list.gateways), len(coach_list.writes)
    predicted = run(True)
    assert (json.dumps(coach_list.gateways), len(coach_list.writes)) == (known, writes)
    done = run(False)
    if new and step["capacity"] is None:
        # Then it is for Django to say.
        done["gateway"]["capacity"] = None
    assert done == predicted
    assert len(coach_list.writes) == writes + done["changed"]
    for check in (False, True):
        again = run(check)
        assert again["changed"] is False
        assert again["diff"]["before"] == again["diff"]["after"]
    assert len(coach_list.writes) == writes + done["changed"]


# First turns


@settings(max_examples=30)
@given(st.lists(st.tuples(*(STATUS_WISH for _coach in COACHES)), min_size=1, max_size=4))
def test_activation(steps: list[tuple[Row, ...]]) -> None:
    with fresh_gateway() as gateway, pytest.MonkeyPatch.context() as patch:
        spoken: list[str] = []
        patch.setattr(Gateway, "wait_ready", lambda self, timeout: None)
        patch.setattr(Gateway, "turn", lambda self, agent_id, *_: spoken.append(agent_id) or "hello")
        activation = Activation(gateway, text="hello", expect=None, timeout=1, parallel=2)
        for wishes in steps:
            rows = [row(number, **wish) for number, wish in zip(COACHES, wishes, strict=True)]
            before, heard = on_disk(gateway), len(spoken)
            predicted = activation.run(rows, check=True)
            assert (on_disk(gateway), len(spoken)) == (before, heard)
            assert activation.run(rows) == predicted
            assert bool(spoken[heard:]) is predicted.changed
            after, heard = on_disk(gateway), len(spoken)
            for check in (False, True):
                assert activation.run(rows, check=check).changed is False
            assert (on_disk(gateway), len(spoken)) == (after, heard)
