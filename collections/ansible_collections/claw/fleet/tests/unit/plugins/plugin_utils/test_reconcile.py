# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the reconciler runs and when it does not, against a real HTTP server and a real ansible-playbook."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import ApiError
from ansible_collections.claw.fleet.plugins.plugin_utils import reconcile
from ansible_collections.claw.fleet.plugins.plugin_utils.reconcile import Places, State, one_pass
from ansible_collections.claw.fleet.tests.unit.plugins.cli import COLLECTIONS
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import (
    TOKEN,
    CoachList,
    hang_up,
    refuse,
    row,
    settled,
)

FULL_EVERY = 600


class Node:
    """A control node: its places, a clock that is set by hand, and plays that only are counted."""

    def __init__(self, place: Path, url: str) -> None:
        self.places = Places(*(place / name for name in ("etc", "state", "run", "credentials")))
        for path in (*self.places, self.places.config / "inventory"):
            path.mkdir(parents=True)
        (self.places.credentials / "service-token").write_text(f"{TOKEN}\n")
        settings = {"django": {"api_url": url, "retries": 0}, "filters": {}, "full_every": FULL_EVERY}
        (self.places.config / "reconciler.json").write_text(json.dumps(settings))
        (self.places.config / "extra-vars.json").write_text("{}")
        self.clock = 1_000_000.0
        self.plays = 0
        self.does: Callable[[], list[str]] = list

    def makes_a_pass(self, seconds: float = 30) -> list[str]:
        """What is wrong after a pass, so many seconds after the last one."""
        self.clock += seconds
        return one_pass(self.places, self._play, lambda: self.clock)

    def runs(self, seconds: float = 30) -> bool:
        """Whether that pass runs the playbook."""
        before = self.plays
        self.makes_a_pass(seconds)
        return self.plays > before

    def _play(self, places: Places) -> list[str]:
        self.plays += 1
        return self.does()


@pytest.fixture
def node(tmp_path: Path, coach_list: CoachList) -> Node:
    return Node(tmp_path, coach_list.url)


def test_with_nothing_to_do_a_pass_is_one_request(node: Node, coach_list: CoachList) -> None:
    coach_list.add(settled(1, "gw-a"), settled(2, "gw-b"))
    assert node.runs(), "nobody knows how the machines are before the first run"
    asked = len(coach_list.requests)
    for _time in range(5):
        assert not node.runs()
    assert len(coach_list.requests) == asked + 5
    assert coach_list.writes == []


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 2},
        {"wanted": "paused", "generation": 2},
        {"key_wanted_generation": 2},
        {"status": "error"},
        {"status": "provisioning"},
    ],
)
def test_whoever_becomes_due_is_run_for_at_once(
    node: Node, coach_list: CoachList, change: dict[str, Any]
) -> None:
    coach_list.add(settled(1, "gw-a"), settled(2, "gw-a"))
    node.makes_a_pass()
    coach_list.rows[2] |= change
    assert node.runs()


def test_a_new_coach_is_run_for_at_once(node: Node, coach_list: CoachList) -> None:
    coach_list.add(settled(1, "gw-a"))
    node.makes_a_pass()
    coach_list.add(row(2))
    assert node.runs()


def test_what_the_run_settles_needs_no_second_one(node: Node, coach_list: CoachList) -> None:
    coach_list.add(row(1))

    def provision() -> list[str]:
        coach_list.add(settled(1, "gw-a"))
        return []

    node.does = provision
    assert node.runs()
    assert not node.runs()


def test_a_click_during_a_run_is_carried_out_by_the_next(node: Node, coach_list: CoachList) -> None:
    coach_list.add(row(1))

    def provision_while_somebody_clicks() -> list[str]:
        coach_list.rows[1] |= {"status": "active", "observed_generation": 1, "generation": 2}
        return []

    node.does = provision_while_somebody_clicks
    node.makes_a_pass()
    assert node.runs()


def test_who_cannot_be_helped_is_tried_again_after_growing_pauses(node: Node, coach_list: CoachList) -> None:
    coach_list.add(settled(1, "gw-a", status="error"))
    node.does = lambda: ["gw-a: coach-1: no"]
    node.makes_a_pass()
    waited, pauses = 0, []
    for _half_minute in range(80):
        waited += 30
        if node.runs(30):
            pauses.append(waited)
            waited = 0
    assert pauses == [30, 60, 120, 240, 480, 600, 600]
    coach_list.rows[1]["generation"] += 1
    assert node.runs(1), "she was changed"
    coach_list.add(row(2))
    assert node.runs(1), "somebody else waits"


def test_a_coach_who_only_waits_for_a_place_is_no_failure(node: Node, coach_list: CoachList) -> None:
    coach_list.add(row(1))
    assert node.makes_a_pass() == []
    assert not node.runs(10)
    assert node.runs(20)
    assert not node.runs(30)


def test_now_and_then_everything_is_looked_at(node: Node, coach_list: CoachList) -> None:
    coach_list.add(settled(1, "gw-a"))
    node.makes_a_pass()
    assert not node.runs(FULL_EVERY - 1)
    assert node.runs(1)


def test_a_clock_that_is_set_back_postpones_nothing(node: Node, coach_list: CoachList) -> None:
    node.makes_a_pass()
    assert node.runs(-3600)
    assert not node.runs()


def test_what_is_wrong_stays_wrong_until_a_run_says_otherwise(node: Node, coach_list: CoachList) -> None:
    coach_list.add(settled(1, "gw-a"))
    node.does = lambda: ["gw-a: it does not run"]
    assert node.makes_a_pass() == ["gw-a: it does not run"]
    assert node.makes_a_pass(10) == ["gw-a: it does not run", "This is tried again in 20 s."]
    node.does = list
    assert node.makes_a_pass(20) == []
    assert node.makes_a_pass(FULL_EVERY - 1) == []
    assert node.plays == 2


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, MemoryError])
def test_a_run_that_was_cut_short_is_made_again(
    node: Node, coach_list: CoachList, end: type[BaseException]
) -> None:
    coach_list.add(settled(1, "gw-a"))
    node.makes_a_pass()

    def die() -> list[str]:
        raise end

    node.does = die
    coach_list.add(row(2))
    with pytest.raises(end):
        node.makes_a_pass()
    coach_list.add(settled(2, "gw-a"))
    node.does = list
    assert node.runs(), "it may have been cut short between a machine and Django"
    assert not node.runs()


def test_a_run_can_be_asked_for(node: Node, coach_list: CoachList) -> None:
    node.makes_a_pass()
    node.places.request.touch()
    assert node.runs(1)
    assert not node.places.request.exists()
    assert not node.runs(1)


def test_a_request_outlives_a_django_that_does_not_answer(node: Node, coach_list: CoachList) -> None:
    node.makes_a_pass()
    node.places.request.touch()
    coach_list.faults = [hang_up]
    with pytest.raises(ApiError, match="got no answer"):
        node.makes_a_pass(1)
    assert not node.places.request.exists(), "or systemd would start passes without end"
    assert node.runs(1)


def test_a_change_of_what_it_was_given_is_a_reason(node: Node, coach_list: CoachList) -> None:
    node.makes_a_pass()
    hosts = node.places.config / "inventory" / "group_vars" / "all.yml"
    hosts.parent.mkdir()
    hosts.write_text("a: 1\n")
    assert node.runs()
    assert not node.runs()
    hosts.unlink()
    assert node.runs()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"owed": ""}'])
def test_a_state_that_cannot_be_read_is_no_state(node: Node, coach_list: CoachList, content: bytes) -> None:
    node.makes_a_pass()
    (node.places.state / "state.json").write_bytes(content)
    assert node.runs()
    assert not node.runs()


def test_there_is_one_pass_at_a_time(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "_LOCK_SECONDS", 0.2)
    with (
        _durable.lock(node.places.state / "lock"),
        pytest.raises(_durable.DurableError, match="still held by process"),
    ):
        node.makes_a_pass()
    assert node.plays == 0


def test_no_secret_is_kept(node: Node, coach_list: CoachList) -> None:
    coach_list.add(row(1, vars={"note": "what a coach wrote"}))
    node.makes_a_pass()
    kept = (node.places.state / "state.json").read_text()
    assert State.load(node.places.state / "state.json").due
    assert TOKEN not in kept and "what a coach wrote" not in kept


def main_says(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """The exit status and the words of the program."""
    for name, path in node.places._asdict().items():
        directory = "configuration" if name == "config" else name
        monkeypatch.setenv(f"{directory.upper()}_DIRECTORY", str(path))
    return reconcile.main(), capsys.readouterr().out


def test_the_program_says_why_there_is_no_list(
    node: Node, coach_list: CoachList, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    coach_list.faults = [refuse(401, "Invalid token.")]
    status, said = main_says(node, monkeypatch, capsys)
    assert status == 1
    assert said.startswith("<3>The list of coaches was not read: GET") and "api_token" in said
    assert TOKEN not in said
    coach_list.faults = [lambda handler: handler.answer(200, {"next": None, "results": [{}]})]
    status, said = main_says(node, monkeypatch, capsys)
    assert status == 1 and "neither a usable pk" in said


def test_the_program_names_the_file_that_is_missing(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (node.places.credentials / "service-token").unlink()
    status, said = main_says(node, monkeypatch, capsys)
    assert status == 1 and "service-token" in said
    (node.places.config / "reconciler.json").write_text("{")
    status, said = main_says(node, monkeypatch, capsys)
    assert status == 1 and "reconciler.json cannot be used" in said


def test_the_program_wants_to_be_started_by_systemd(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CONFIGURATION_DIRECTORY", raising=False)
    assert reconcile.main() == 1
    assert "systemctl start claw-reconciler" in capsys.readouterr().out


PLAY = """
- hosts: gateways
  gather_facts: false
  tasks:
    - name: Nothing is changed
      ansible.builtin.debug:
    - name: A file is there
      ansible.builtin.copy:
        content: "{{ secret }}"
        dest: "{{ place }}/{{ inventory_hostname }}"
        mode: "0600"
    - block:
        - name: It fails
          ansible.builtin.fail:
            msg: first words
          when: inventory_hostname == broken
      rescue:
        - name: It ends
          ansible.builtin.fail:
            msg: last words
"""


needs_ansible = pytest.mark.skipif(
    not Path(sys.executable).with_name("ansible-playbook").exists(),
    reason="this Python has no ansible-playbook",
)


@needs_ansible
@pytest.mark.parametrize("broken", ["", "gw-b"])
def test_a_run_tells_its_changes_and_what_failed(
    node: Node,
    tmp_path: Path,
    broken: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = dict.fromkeys(("gw-a", "gw-b"), here)
    variables = {"place": str(tmp_path), "secret": "a secret", "broken": broken}
    (tmp_path / "play.yml").write_text(PLAY)
    (node.places.config / "inventory" / "hosts.yml").write_text(json.dumps({"gateways": {"hosts": hosts}}))
    (node.places.config / "extra-vars.json").write_text(json.dumps(variables))
    (tmp_path / "ansible.cfg").write_text("[defaults]\nstdout_callback = claw.fleet.reconciler\n")
    monkeypatch.setattr(reconcile, "PLAYBOOK", str(tmp_path / "play.yml"))
    monkeypatch.setenv("ANSIBLE_CONFIG", str(tmp_path / "ansible.cfg"))
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_PATH", str(COLLECTIONS))
    failures = reconcile.run_playbook(node.places)
    assert failures == ([f"{broken}: It ends: last words"] if broken else [])
    said = capsys.readouterr().out.splitlines()
    assert sorted(said) == [f"{name}: A file is there: changed" for name in ("gw-a", "gw-b")]


@needs_ansible
def test_a_run_that_cannot_begin_is_a_failure(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "PLAYBOOK", str(tmp_path / "none.yml"))
    (failure,) = reconcile.run_playbook(node.places)
    assert "ended with status 1" in failure
