"""A day in the life of a fleet: coaches come, pause, come back and go while others speak."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .fleet import ROOT, Fleet, until


def predictable(diffs: list[tuple[str, str, object]]) -> list[tuple[str, str, str]]:
    """Diffs without what nobody can know beforehand: the id and the hash of a key that is yet to be made."""
    return [
        (host, task, re.sub(r"('key_(?:id|sha256)': )'[^']*'", r"\1'...'", str(diff)))
        for host, task, diff in diffs
    ]


@pytest.fixture(scope="module")
def dora(fleet: Fleet) -> str:
    """A fourth coach, made in the admin, not yet provisioned."""
    with fleet.admin() as admin:
        admin.add("coach-dora", "Dora", town="Dresden")
    return "coach-dora"


def test_check_predicts_what_the_run_does_and_writes_nothing(fleet: Fleet, dora: str) -> None:
    files, rows, heard = fleet.files(), fleet.rows(), fleet.heard_until_now()
    asked = len(fleet.requests_to_django())
    predicted = fleet.provision(dora, "--check", "--diff")
    assert predicted.rc == 0, predicted.output
    assert fleet.files() == files
    assert fleet.rows() == rows
    assert fleet.heard_until_now() == heard
    assert not [line for line in fleet.requests_to_django()[asked:] if not line.startswith("GET ")]
    assert "Dora" in str(predicted.diffs())

    # The run itself, while another coach's long turn is under way.
    pids = {name: fleet.pid(name) for name in ("gw-a", "gw-b")}
    with ThreadPoolExecutor() as pool:
        long_turn = pool.submit(fleet.ask, "coach-anna", "slow:45", "long")
        until("the long turn to reach the provider", lambda: fleet.heard("slow:45", after=heard))
        play = fleet.provision(dora, "--diff", "-vvv")
        assert not long_turn.done(), "the turn ended before the play; it proves nothing"
        reply = long_turn.result()
    assert play.rc == 0, play.output
    assert sorted(play.changed) == sorted(predicted.changed)
    assert predictable(play.diffs()) == predictable(predicted.diffs())
    assert fleet.seen(play.output) == []
    assert reply.status == 200
    assert len(reply.arrivals) >= 45 and reply.arrivals[-1] >= 44
    assert {name: fleet.pid(name) for name in pids} == pids
    assert fleet.row(dora)["status"] == "active"
    assert "Dora" in fleet.ask(dora, "who are you?").text


def test_pause_resume_remove_and_back_again(fleet: Fleet, dora: str) -> None:
    gateway, pk = fleet.row(dora)["gateway"], fleet.row(dora)["pk"]
    fleet.ask(dora, "My dog is called Quaxi.")
    key = fleet.credentials(dora)["api_key"]

    with fleet.admin() as admin:
        admin.act("pause", pk)
        assert fleet.provision(dora).rc == 0
        assert fleet.row(dora)["status"] == "paused"
        before = fleet.heard_until_now()
        assert fleet.turn(gateway, dora).status == 400
        assert fleet.ask(dora, "are you there?", key=key).status == 409
        assert fleet.heard(after=before) == []

        admin.act("resume", pk)
        assert fleet.provision(dora).rc == 0
        assert fleet.row(dora)["status"] == "active"
        assert "Quaxi" in fleet.ask(dora, "recall").text

        admin.act("remove", pk)
        assert fleet.provision(dora).rc == 0
        row = fleet.row(dora)
        assert (row["status"], row["key_sha256"], row["gateway"]) == ("removed", "", None)
        assert fleet.turn(gateway, dora).status == 400
        with fleet.api(key) as api:
            assert api.get("/clients/").status_code == 401
        aside = fleet.sh(f"ls /var/lib/claw/{gateway}/removed").split()
        assert [name for name in aside if name.startswith(f"{dora}-")]
        for left in ("workspaces", "credentials", "agents"):
            assert dora not in fleet.sh(f"ls /var/lib/claw/{gateway}/{left}").split()

        # The gateway had her memory open a moment ago, and may not be restarted for her.
        pid = fleet.pid(gateway)
        admin.act("provision", pk)
        again = fleet.provision(dora)
        assert again.rc == 0, again.output
        assert fleet.row(dora)["status"] == "active"
        assert fleet.pid(gateway) == pid
        assert fleet.credentials(dora)["api_key"] != key
        assert "Quaxi" not in fleet.ask(dora, "recall").text


def test_two_asks_that_begin_a_conversation_at_once_are_both_answered(fleet: Fleet) -> None:
    key = fleet.credentials("coach-anna")["api_key"]
    with ThreadPoolExecutor() as pool:
        for number in range(5):
            asks = [
                pool.submit(fleet.ask, "coach-anna", text, f"begun-{number}", key)
                for text in ("hello", "are you there?")
            ]
            replies = [ask.result() for ask in asks]
            assert [reply.status for reply in replies if reply.text] == [200, 200], replies


def test_a_new_key_and_the_old_one_refused(fleet: Fleet) -> None:
    old = fleet.credentials("coach-ben")["api_key"]
    with fleet.admin() as admin:
        admin.act("rotate_key", fleet.row("coach-ben")["pk"])
    play = fleet.provision("coach-ben", "--diff", "-vvv")
    assert play.rc == 0, play.output
    assert fleet.seen(play.output) == []
    assert old not in play.output
    new = fleet.credentials("coach-ben")["api_key"]
    assert new != old
    with fleet.api(new) as api:
        assert api.get("/clients/").status_code == 200
    with fleet.api(old) as api:
        until("the old key to be refused", lambda: api.get("/clients/").status_code == 401, 15)


@pytest.mark.parametrize(
    ("agent_id", "headers", "status"),
    [
        ("nobody", {}, 400),
        (None, {}, 400),
        ("", {}, 400),
        ("main", {}, 400),
        ("MAIN", {}, 400),
        ("coach-anna", {"token": "0" * 48}, 401),
    ],
)
def test_nobody_else_answers(
    fleet: Fleet, agent_id: str | None, headers: dict[str, str], status: int
) -> None:
    gateway = fleet.row("coach-anna")["gateway"]
    before = fleet.heard_until_now()
    assert fleet.turn(gateway, agent_id, **headers).status == status
    assert fleet.heard(after=before) == []


def test_a_template_of_this_deployment_is_found_first(fleet: Fleet, tmp_path: Path) -> None:
    """`files/templates` beside the ansible.cfg in use goes before the collection's own, for new coaches."""
    (tmp_path / "ansible.cfg").write_text((ROOT / "ansible.cfg").read_text())
    (tmp_path / "files" / "templates").mkdir(parents=True)
    (tmp_path / "files" / "templates" / "SOUL.md.j2").write_text("SOULMARK-ours for {{ coach.name }}\n")
    (tmp_path / "files" / "templates" / "TOOLS.md.j2").write_text("TOOLSMARK-ours\n")
    environment = {
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
    }
    with fleet.admin() as admin:
        admin.add("coach-tilda", "Tilda")
    play = fleet.provision(None, environment=environment)
    assert play.rc == 0, play.output
    before = fleet.heard_until_now()
    assert "SOULMARK-ours" in fleet.ask("coach-tilda", "who are you?").text
    assert "TOOLSMARK-ours" in fleet.heard(after=before)[-1]["system"]
    # Those who are settled keep what they have, also of a file that is the fleet's.
    fleet.ask("coach-anna", "who are you?")
    assert "TOOLSMARK-ours" not in fleet.heard("companion of Anna", after=before)[-1]["system"]


def test_a_gateway_that_is_down_is_told_to_those_who_wait(fleet: Fleet) -> None:
    gateway = fleet.row("coach-ben")["gateway"]
    unit = f"openclaw-gateway@{gateway}.service"
    with fleet.admin() as admin:
        admin.act("provision", fleet.row("coach-ben")["pk"])
    fleet.sh(f"systemctl stop {unit}")
    try:
        play = fleet.provision("coach-ben")
        assert play.rc != 0
        row = fleet.row("coach-ben")
        assert row["status"] == "error" and gateway in row["reason"], row
    finally:
        fleet.sh(f"systemctl start {unit}")
    play = fleet.provision("coach-ben")
    assert play.rc == 0, play.output
    assert fleet.row("coach-ben")["status"] == "active"
