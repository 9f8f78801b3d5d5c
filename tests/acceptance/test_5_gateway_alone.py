"""A gateway without coaches: it starts, serves nobody, takes its first coach and outlives its last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .fleet import INVENTORY, Fleet
from .test_5_doctor import codes, look

NAME = "gw-c"


@pytest.fixture(scope="module")
def inventory(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The demo's inventory and one gateway more, on the same machine."""
    hosts = yaml.safe_load((INVENTORY / "hosts.yml").read_text())
    like = dict(hosts["all"]["children"]["gateways"]["hosts"]["gw-b"] or {})
    like["gateway_port"] = 19300
    extra = tmp_path_factory.mktemp("inventory") / "0-more.yml"
    extra.write_text(yaml.safe_dump({"all": {"children": {"gateways": {"hosts": {NAME: like}}}}}))
    return [extra, INVENTORY]


@pytest.fixture(scope="module")
def alone(fleet: Fleet, inventory: list[Path]) -> Iterator[str]:
    """The gateway, up, without coaches."""
    play = fleet.play("playbooks/site.yml", "-vvv", "--diff", inventory=inventory)
    assert play.rc == 0, play.output
    assert fleet.seen(play.output) == [], "a secret was shown while it was made"
    yield NAME


def test_it_starts_and_answers_nobody(fleet: Fleet, alone: str) -> None:
    assert fleet.machine.service(f"openclaw-gateway@{alone}").is_running
    before = fleet.heard_until_now()
    for agent_id in (None, "", "main", "nobody", "coach-anna"):
        assert fleet.turn(alone, agent_id).status == 400, agent_id
    assert fleet.turn(alone, "coach-anna", token="0" * 48).status == 401
    assert fleet.heard(after=before) == []


def test_the_app_does_not_know_it_yet(
    fleet: Fleet, alone: str, inventory: list[Path], tmp_path: Path
) -> None:
    def forget() -> None:
        fleet.orm(f"Gateway.objects.filter(name={alone!r}).delete()")

    forget()
    play, found = look(fleet, tmp_path, gateway=alone, among=inventory)
    assert codes(found) == ["gateway-unknown"], play.output
    play, found = look(fleet, tmp_path, "--tags", "fix", gateway=alone, among=inventory)
    assert (codes(found), play.rc) == ([], 0), play.output
    forget()
    # As its page says, although it has no coach.
    play = fleet.provision(None, "--limit", alone, inventory=inventory)
    assert play.rc == 0 and len(play.changed) == 1, play.output
    play, found = look(fleet, tmp_path, gateway=alone, among=inventory)
    assert (codes(found), play.rc) == ([], 0), play.output


def test_it_is_not_silently_dead(fleet: Fleet, alone: str, inventory: list[Path]) -> None:
    unit = f"openclaw-gateway@{alone}"
    fleet.sh(f"systemctl kill --signal=KILL --kill-whom=main {unit} && systemctl stop {unit}")
    play = fleet.provision(None, "--limit", alone, inventory=inventory)
    assert play.rc != 0
    assert f"{alone} could serve nobody, because gateway {alone} is" in " ".join(play.output.split())
    fleet.sh(f"systemctl reset-failed {unit}; systemctl start {unit}")
    play = fleet.provision(None, "--limit", alone, inventory=inventory)
    assert (play.rc, play.changed) == (0, []), play.output


def test_its_first_run_is_predicted(fleet: Fleet, alone: str, inventory: list[Path]) -> None:
    with fleet.admin() as admin:
        admin.add("coach-first", "Frida")
    files = fleet.files()
    predicted = fleet.provision(None, "--check", "--diff", inventory=inventory)
    assert predicted.rc == 0, predicted.output
    assert fleet.files() == files
    play = fleet.provision(None, "--diff", inventory=inventory)
    assert play.rc == 0, play.output
    assert sorted(play.changed) == sorted(predicted.changed)
    assert fleet.row("coach-first")["gateway"] == alone
    assert "Frida" in fleet.ask("coach-first", "who are you?").text


def test_the_last_coach_may_pause_and_go(fleet: Fleet, alone: str, inventory: list[Path]) -> None:
    pid, pk = fleet.pid(alone), fleet.row("coach-first")["pk"]
    with fleet.admin() as admin:
        for action, status in (("pause", "paused"), ("resume", "active"), ("remove", "removed")):
            admin.act(action, pk)
            play = fleet.provision("coach-first", inventory=inventory)
            assert play.rc == 0, play.output
            assert fleet.row("coach-first")["status"] == status
            assert fleet.pid(alone) == pid
            assert (
                fleet.machine.run(
                    'curl -sf http://127.0.0.1:19300/readyz || python3 -c "import urllib.request as u;'
                    "u.urlopen('http://127.0.0.1:19300/readyz')\""
                ).rc
                == 0
            )
    assert fleet.turn(alone, "coach-first").status == 400
