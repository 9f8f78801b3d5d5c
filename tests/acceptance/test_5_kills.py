"""Runs that are killed, or that the disk fails, at any of their steps: the next one makes everything good.

A sample of the points here; all of them with `make soak`. What is said of a point, such as `fsync:7`, is in kills.py.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .fleet import Admin, Fleet
from .kills import (
    SEED,
    SOAK,
    WORDS,
    Controller,
    GatewayStriker,
    Inventory,
    Machine,
    Point,
    Say,
    Step,
    Sweep,
    first_round,
    points_of,
    survey,
)

KIM = "coach-kim"
NAMES = ("Kim", "Kimberly")
PROVISION = "playbooks/provision-coach.yml"


@dataclass
class Kim:
    """A coach to try things on, who has an agent, and everything around her that has to stay as it is."""

    fleet: Fleet
    machine: Machine
    admin: Admin
    pk: int
    gateway: str
    before: dict[str, dict[str, Any]]
    """What was on the machine when she came, by gateway."""

    @property
    def row(self) -> dict[str, Any]:
        """Her row, as Django has it now."""
        return self.fleet.row(KIM)

    def hold(self, *, paused: bool = False) -> dict[str, Any]:
        """Look whether all that must always hold after a run does; what there is."""
        rows = self.fleet.rows()
        # One who was removed and comes back may come to another gateway.
        gateway = rows[KIM]["gateway"] or self.gateway
        found = self.machine.probe(gateway)
        before = self.before.setdefault(gateway, found)
        assert found["temporary"] == []
        assert found["foreign"] == []
        assert found["pid"] == before["pid"], "the gateway was restarted"
        assert found["served"] == found["roster"]
        assert _without_her(found["roster"]) == _without_her(before["roster"])
        assert found["removing"] == []
        assert set(found["roster"]) <= set(found["workspaces"]), "an agent without a workspace"
        owned = {"main", *found["roster"], *(name for name, row in rows.items() if row["wanted"] == "paused")}
        if paused:
            owned.add(KIM)
        assert set(found["workspaces"]) <= owned, "a workspace without an owner"
        held = {name: key["sha256"] for name, key in found["keys"].items()}
        assert held == {name: rows[name]["key_sha256"] for name in held}, "a key that Django does not know"
        return found


def _without_her(entries: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in entries.items() if name != KIM}


@pytest.fixture(scope="module")
def kim(fleet: Fleet, machine: Machine) -> Iterator[Kim]:
    """She comes with the first test and is removed after the last."""
    with fleet.admin() as admin:
        if KIM not in fleet.rows():
            admin.add(KIM, NAMES[0])
        admin.act("provision", fleet.row(KIM)["pk"])
        try:
            play = fleet.provision(KIM, **machine.variables)
            assert play.rc == 0, play.output
            row = fleet.row(KIM)
            before = {row["gateway"]: machine.probe(row["gateway"])}
            yield Kim(fleet, machine, admin, row["pk"], row["gateway"], before)
        finally:
            admin.act("remove", fleet.row(KIM)["pk"])
            play = fleet.provision()
        assert fleet.row(KIM)["status"] == "removed", play.output


class KeySteps:
    """A coach's key: a new one, none, and one again; each in the two halves between which Django is asked."""

    MODULE = "agent_key_file"

    def __init__(self, kim: Kim) -> None:
        self.kim = kim
        self._given = kim.machine.keep(self.MODULE)
        self._api_url = kim.fleet.credentials(KIM)["api_url"]

    def steps(self) -> list[Step]:
        """The circle, from a coach with a key to a coach with a key."""
        return [
            Step("a new key pending", self.MODULE, self._prepared, self._wish),
            Step("a new key promoted", self.MODULE, self._promoted, self._register, self._prepared),
            Step("a key removed", self.MODULE, self._removed, self._revoke, self._absent),
            Step("a first key pending", self.MODULE, self._prepared),
            Step("a first key promoted", self.MODULE, self._promoted, self._register, self._prepared),
        ]

    def _wish(self) -> None:
        self.kim.admin.act("rotate_key", self.kim.pk)

    def _prepared(self, state: str = "present") -> dict[str, Any]:
        wanted = {"agents": [self.kim.row], "state": state, "coach_api_url": self._api_url}
        return {**self._given, **wanted, "reveal": False, "registered": None, "revoked": []}

    def _absent(self) -> dict[str, Any]:
        return self._prepared("absent")

    def _pending(self) -> dict[str, Any]:
        key: dict[str, Any] = self.kim.machine.probe(self.kim.gateway)["pending"][KIM]
        return key

    def _register(self) -> None:
        key = self._pending()
        body = {"key_id": key["key_id"], "key_sha256": key["sha256"]}
        body["key_generation"] = self.kim.row["key_wanted_generation"]
        with self.kim.fleet.api() as api:
            api.post(f"/internal/set-key/{KIM}/", json=body).raise_for_status()

    def _promoted(self) -> dict[str, Any]:
        return {**self._prepared(), "agents": [], "registered": {KIM: self.kim.row["key_id"]}}

    def _revoke(self) -> None:
        with self.kim.fleet.api() as api:
            api.delete(f"/internal/set-key/{KIM}/").raise_for_status()

    def _removed(self) -> dict[str, Any]:
        return {**self._prepared(), "agents": [], "registered": {}, "revoked": [KIM]}


class AgentSteps:
    """A coach's agent: removed, added again, updated, paused, resumed.

    She has spoken before she is removed, so that the gateway holds her former database when she comes back.
    """

    MODULE = "openclaw_agent"
    CIRCLE = ("removed", "added", "updated", "paused", "resumed")
    SAMPLE = CIRCLE[:2]

    def __init__(self, kim: Kim) -> None:
        self.kim = kim
        self._given = kim.machine.keep(self.MODULE)
        self._row = self._given["agents"][0]
        self._contents = self._given["contents"][KIM]
        self._name = NAMES[0]

    def steps(self) -> list[Step]:
        """The circle, from a coach who is served to one who is; in a sample a smaller one within it."""
        prepare = {"removed": self._speak, "updated": self._rename}
        wanted = {"removed": "removed", "paused": "paused"}
        return [
            Step(name, self.MODULE, self._wanting(wanted.get(name, "running")), prepare.get(name, _nothing))
            for name in (self.CIRCLE if SOAK else self.SAMPLE)
        ]

    def _wanting(self, wanted: str) -> Callable[[], dict[str, Any]]:
        def arguments() -> dict[str, Any]:
            # Due, so that her files follow her name.
            generation = self._row["generation"] + 1
            row = {**self._row, "name": self._name, "wanted": wanted, "generation": generation}
            contents = {dest: text.replace(NAMES[0], self._name) for dest, text in self._contents.items()}
            return {**self._given, "agents": [row], "contents": {KIM: contents}}

        return arguments

    def _speak(self) -> None:
        assert self.kim.fleet.turn(self.kim.gateway, KIM).status == 200

    def _rename(self) -> None:
        self._name = NAMES[1 - NAMES.index(self._name)]


def _nothing() -> None:
    """What goes before most steps."""


@pytest.fixture(scope="module")
def key_striker(kim: Kim) -> GatewayStriker:
    """Strikes what her key is made with."""

    def look(step: Step) -> dict[str, Any]:
        found = kim.hold()
        assert (KIM in found["pending"]) == step.name.endswith("pending")
        assert (KIM in found["keys"]) == (step.name.startswith("a new") or step.name.endswith("promoted"))
        return found

    return GatewayStriker(kim.machine, look, kim.gateway)


@pytest.fixture(scope="module")
def agent_striker(kim: Kim) -> GatewayStriker:
    """Strikes what her agent is made with."""

    def look(step: Step) -> dict[str, Any]:
        found = kim.hold(paused=step.name == "paused")
        assert (KIM in found["roster"]) == (step.name not in ("removed", "paused"))
        return found

    return GatewayStriker(kim.machine, look, kim.gateway)


@pytest.fixture(scope="module")
def key_steps(kim: Kim) -> list[Step]:
    """Shared, so that their points are counted once."""
    return KeySteps(kim).steps()


@pytest.fixture(scope="module")
def agent_steps(kim: Kim) -> list[Step]:
    """Shared, so that their points are counted once."""
    return AgentSteps(kim).steps()


def test_a_killed_key_file_is_made_good(
    kim: Kim, key_steps: list[Step], key_striker: GatewayStriker, say: Say
) -> None:
    Sweep("agent_key_file", kim.machine, key_steps, say).run(key_striker.kill, samples=1)


def test_a_key_file_on_a_failing_disk_is_made_good(
    kim: Kim, key_steps: list[Step], key_striker: GatewayStriker, say: Say
) -> None:
    sweep = Sweep("agent_key_file on a failing disk", kim.machine, key_steps, say)
    sweep.run(key_striker.fail, samples=1, errors=True)


def test_a_killed_agent_is_made_good(
    kim: Kim, agent_steps: list[Step], agent_striker: GatewayStriker, say: Say
) -> None:
    Sweep("openclaw_agent", kim.machine, agent_steps, say).run(agent_striker.kill, samples=1)


def test_an_agent_on_a_failing_disk_is_made_good(
    kim: Kim, agent_steps: list[Step], agent_striker: GatewayStriker, say: Say
) -> None:
    sweep = Sweep("openclaw_agent on a failing disk", kim.machine, agent_steps, say)
    sweep.run(agent_striker.fail, samples=1, errors=True)


WISHES = {"rotate_key": "active", "remove": "removed", "provision": "active"}
"""What people click, in a circle, and what comes of it."""
SAMPLE = ("rotate_key",)


def _made_good(kim: Kim, wish: str, where: str) -> None:
    # Who is removed already is on no gateway's list, and cannot be asked for by her id.
    coach = None if wish == "remove" else KIM
    rerun = kim.fleet.provision(coach)
    assert rerun.rc == 0, f"{where}; then {rerun.output}"
    again = kim.fleet.provision(coach)
    assert (again.rc, again.changed) == (0, []), f"{where}; then {again.output}"
    assert (kim.row["status"], kim.row["reason"]) == (WISHES[wish], ""), where
    found = kim.hold()
    for where_she_is in ("roster", "workspaces", "keys"):
        assert (KIM in found[where_she_is]) == (wish != "remove"), where
    assert KIM not in found["pending"]


def test_a_play_is_made_good_whose_module_was_killed(
    kim: Kim, key_steps: list[Step], agent_steps: list[Step], say: Say
) -> None:
    begin = first_round("plays")
    if begin is None:
        return
    for steps in (key_steps, agent_steps):
        survey(kim.machine, steps)
    calls = {step.name: step.calls for step in (*key_steps, *agent_steps)}
    # What activation does is little: it asks whether the gateway is ready, lets them speak, and remembers.
    speak = [Point("connect", 1), Point("fsync", 1), Point("fsync", 2), Point("renameat", 1)]
    aims = {
        "rotate_key": [("agent_key_file", points_of(calls["a new key pending"]))],
        "remove": [("openclaw_agent", points_of(calls["removed"]))],
        "provision": [
            ("agent_key_file", points_of(calls["a first key pending"])),
            ("openclaw_agent", points_of(calls["added"])),
            ("agent_activation", speak),
        ],
    }
    choose = random.Random(f"{SEED} plays")  # noqa: S311 - which points, not a secret
    for number in range(1, 21 if SOAK else 2):
        for wish in WISHES if SOAK else SAMPLE:
            module, points = choose.choice(aims[wish])
            point = choose.choice(points)
            if number < begin:
                continue
            kim.admin.act(wish, kim.pk)
            kim.machine.aim(module, point)
            play = kim.fleet.provision(KIM, **kim.machine.variables)
            struck = kim.machine.struck()
            met = "" if struck else " was not met"
            say(f"plays:{number}  {wish}: {module} {point}{met}; CLAW_SEED={SEED}")
            assert (play.rc != 0) == struck, play.output
            _made_good(kim, wish, f"{wish}, {module} {point}: {play.output}")


def test_a_play_is_made_good_whose_controller_was_killed(kim: Kim, say: Say) -> None:
    controller = Controller(kim.fleet)
    choose = random.Random(f"{SEED} controller")  # noqa: S311 - which points, not a secret
    begin = first_round("provision-coach")
    if begin is None:
        return
    # How many calls there are is not known before one of them is not met.
    rounds = itertools.count(begin) if SOAK else [choose.randint(1, 35)]
    for number in rounds:
        met = False
        for wish in WISHES if SOAK else SAMPLE:
            kim.admin.act(wish, kim.pk)
            rc, calls, output = controller.play(PROVISION, number, "-e", f"coach={KIM}")
            say(
                f"provision-coach:{number}  {wish}: {'killed' if rc is None else f'ended by itself at {calls}'}; CLAW_SEED={SEED}"
            )
            assert rc is None or rc == 0, output
            met = met or rc is None
            _made_good(kim, wish, f"{wish}, call {number} of the controller: {output}")
        if not met:
            break


def test_a_list_that_the_controllers_disk_fails_is_read_all_the_same(
    fleet: Fleet, tmp_path: Path, say: Say
) -> None:
    inventory = Inventory(fleet, tmp_path)
    points = inventory.points()
    whole = inventory.read()
    assert whole.rc == 0 and "gw-a" in whole.result["_meta"]["hostvars"]
    choose = random.Random(f"{SEED} inventory")  # noqa: S311 - which points, not a secret
    hit = points if SOAK else choose.sample(points, 4)
    for point in hit:
        inventory.forget()
        run = inventory.read(*point.options)
        where = f"{point}: {run}"
        assert run.killed or any("(INJECTED)" in call for call in run.calls), where
        if run.rc == 0:
            assert run.result == whole.result, where
        elif not run.killed:
            assert WORDS[point.error] in run.said and "Traceback" not in run.said, where
        for _time in range(2):
            again = inventory.read()
            assert again.rc == 0 and again.result == whole.result, f"{where}; then {again}"
        assert "WARNING" not in again.said, f"{where}; then {again}"
    say(f"ansible-inventory: hit at {len(hit)} of {len(points)} points; CLAW_SEED={SEED}")
