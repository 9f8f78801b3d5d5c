"""It runs by itself: a control node, which is the gateways' own machine, provisions by its timer alone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from .fleet import INVENTORY, Fleet, Play, until

pytestmark = pytest.mark.fire

UNIT = "claw-reconciler.service"
NOW = "/run/claw-reconciler/now"
PROMISE_SECONDS = 120
WORST_EXPOSURE = 2.0
GATEWAY = "gw-b"


class Control:
    """The control node."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.inventory = [fleet.state / "control" / "node.json", INVENTORY]

    def set_up(self, *arguments: str) -> Play:
        """Run the playbook."""
        return self.fleet.play("playbooks/reconciler.yml", *arguments, inventory=self.inventory)

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.fleet.sh(f"systemctl show -P {name} {UNIT}").strip()

    def at_rest(self) -> bool:
        """Whether no pass is under way and none is asked for."""
        asked = self.fleet.machine.file(NOW).exists
        return not asked and self.show("ActiveState") in ("inactive", "failed")

    def run_now(self) -> str:
        """Ask for a run and wait for its end; how it ended."""
        until("the reconciler to be at rest", self.at_rest)
        before = self.show("InvocationID")
        self.fleet.sh(f"touch {NOW}")
        until("the run to end", lambda: self.show("InvocationID") != before and self.at_rest(), 300)
        return self.show("Result")

    def journal(self) -> str:
        """What the last pass said."""
        return self.fleet.sh(
            f"journalctl -o cat --no-pager _SYSTEMD_INVOCATION_ID={self.show('InvocationID')}"
        )

    def take_away(self) -> None:
        """Leave the machine as it was."""
        units = " ".join(f"claw-reconciler.{kind}" for kind in ("timer", "path", "service"))
        self.fleet.sh(f"systemctl disable --now {units} 2>/dev/null || true")
        self.fleet.sh(
            "rm -rf /etc/systemd/system/claw-reconciler.* /etc/claw-reconciler /opt/claw/reconciler"
        )
        self.fleet.sh("rm -rf /var/lib/claw-reconciler /var/cache/claw-reconciler /run/claw-reconciler")
        self.fleet.sh("systemctl daemon-reload; systemctl reset-failed; userdel claw-reconciler || true")


@pytest.fixture(scope="module")
def made(fleet: Fleet) -> Iterator[tuple[Control, Play]]:
    """The control node, and the play that made it."""
    control = Control(fleet)
    try:
        yield control, control.set_up("-vvv", "--diff")
    finally:
        control.take_away()


@pytest.fixture(scope="module")
def control(made: tuple[Control, Play]) -> Control:
    """The control node, at work."""
    node, play = made
    assert play.rc == 0, play.output
    return node


def test_no_secret_is_shown_while_it_is_made(fleet: Fleet, made: tuple[Control, Play]) -> None:
    _control, play = made
    assert play.rc == 0, play.output
    assert fleet.seen(play.output) == []
    key = (fleet.state / "id_ed25519").read_text().splitlines()[1]
    assert key not in play.output
    token = fleet.coach_list.service_token
    places = "/etc/claw-reconciler /etc/systemd /opt/claw/reconciler /var/lib/claw-reconciler /var/cache/claw-reconciler"
    homes = fleet.sh(f"grep -rlF -e '{token}' -e '{key}' {places}").split()
    assert sorted(homes) == [
        f"/etc/claw-reconciler/credentials/{name}" for name in ("service-token", "ssh-key")
    ]
    told = fleet.sh(f"stat -c '%U %a' {' '.join(homes)} /etc/claw-reconciler/credentials").splitlines()
    assert told == ["root 600", "root 600", "root 700"]
    assert token not in fleet.sh("journalctl --no-pager")


def test_again_nothing_changes(control: Control) -> None:
    again = control.set_up()
    assert again.rc == 0, again.output
    assert again.changed == []


def test_a_pass_with_nothing_to_do_is_short_and_writes_nothing(fleet: Fleet, control: Control) -> None:
    until("the reconciler to be at rest", control.at_rest)
    assert control.run_now() == "success", control.journal()
    fleet.sh(f"systemctl start {UNIT}")
    files, heard, asked = fleet.files(), fleet.heard_until_now(), len(fleet.requests_to_django())
    fleet.sh(f"systemctl start {UNIT}")
    began, ended = (
        int(control.show(f"ExecMain{what}TimestampMonotonic")) / 1e6 for what in ("Start", "Exit")
    )
    assert ended - began < 5
    made = fleet.requests_to_django()[asked:]
    assert made and not [line for line in made if not line.startswith("GET ")], made
    assert fleet.files() == files
    assert fleet.heard_until_now() == heard
    assert control.journal() == "", "a pass that does nothing says nothing"


def test_it_comes_by_itself_and_not_with_everybody_else(control: Control) -> None:
    told = control.fleet.sh(
        "systemctl show -P RandomizedDelayUSec -P ActiveState claw-reconciler.timer"
    ).split()
    assert "active" in told and "0" not in told, "each has a delay of its own"


def test_a_click_is_an_answering_agent_within_two_minutes(
    fleet: Fleet, control: Control, say: Callable[[str], None]
) -> None:
    with fleet.admin() as admin:
        admin.add("coach-rike", "Rike")
        began = time.monotonic()
        admin.act("provision", fleet.row("coach-rike")["pk"])
    until("her agent", lambda: fleet.row("coach-rike")["status"] == "active", PROMISE_SECONDS)
    assert "Rike" in fleet.ask("coach-rike", "who are you?").text
    seconds = time.monotonic() - began
    say(f"from the click to the answer: {seconds:.0f} s")
    assert seconds < PROMISE_SECONDS


def test_it_is_hardened_while_it_works(fleet: Fleet, control: Control) -> None:
    until("the reconciler to be at rest", control.at_rest)
    fleet.sh(f"touch {NOW}")
    until("a run", lambda: "ansible-playbook" in fleet.sh("ps -u claw-reconciler -o args= || true"))
    told = fleet.sh(f"systemd-analyze security --no-pager {UNIT}")
    assert control.show("ActiveState") == "activating"
    score = re.search(r"exposure level for \S+: ([0-9.]+)", told)
    assert score and float(score.group(1)) <= WORST_EXPOSURE, told
    token = fleet.coach_list.service_token
    assert token not in fleet.sh(
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' || true"
    )
    until("the run to end", control.at_rest, 120)
    assert control.show("Result") == "success", control.journal()


def test_a_run_that_is_killed_loses_nothing(fleet: Fleet, control: Control) -> None:
    pk = fleet.row("coach-rike")["pk"]
    until("the reconciler to be at rest", control.at_rest)
    with fleet.admin() as admin:
        admin.add("coach-mila", "Mila")
        admin.act("rotate_key", pk)
    fleet.sh(f"touch {NOW}")
    until("the run to have begun", lambda: fleet.row("coach-mila")["status"] == "provisioning", 60)
    fleet.sh(f"systemctl kill --signal=KILL {UNIT}")
    until("the run to be dead", control.at_rest)
    assert control.show("Result") == "signal", "the run was not killed; this proves nothing"
    until(
        "both agents",
        lambda: not {fleet.row(name)["status"] for name in ("coach-mila", "coach-rike")} - {"active"},
        120,
    )
    for agent_id, name in (("coach-mila", "Mila"), ("coach-rike", "Rike")):
        row = fleet.row(agent_id)
        assert (row["observed_generation"], row["key_generation"]) == (
            row["generation"],
            row["key_wanted_generation"],
        )
        assert name in fleet.ask(agent_id, "who are you?").text
    until("the reconciler to be at rest", control.at_rest)
    assert control.show("Result") == "success", control.journal()
    again = fleet.provision()
    assert (again.rc, again.changed) == (0, [])


def test_whoever_cannot_be_provisioned_is_shown_in_django_and_by_the_unit(
    fleet: Fleet, control: Control
) -> None:
    in_the_way = " ".join(f"/var/lib/claw/{name}/workspaces/coach-vera" for name in ("gw-a", "gw-b"))
    until("the reconciler to be at rest", control.at_rest)
    fleet.sh(f"for place in {in_the_way}; do ln -s /srv $place; done")
    try:
        with fleet.admin() as admin:
            admin.add("coach-vera", "Vera")
        assert control.run_now() == "exit-code"
        assert control.show("ActiveState") == "failed"
        row = fleet.row("coach-vera")
        assert row["status"] == "error" and "is not a directory" in row["reason"], row
        assert "coach-vera" in control.journal()
    finally:
        fleet.sh(f"rm {in_the_way}")
    with fleet.admin() as admin:
        admin.act("provision", fleet.row("coach-vera")["pk"])
    assert control.run_now() == "success", control.journal()
    assert fleet.row("coach-vera")["status"] == "active"
    assert "Vera" in fleet.ask("coach-vera", "who are you?").text


def test_two_runs_at_once_do_no_harm(fleet: Fleet, control: Control) -> None:
    ids = ["coach-anna", "coach-mila", "coach-rike"]
    until("the reconciler to be at rest", control.at_rest)
    with fleet.admin() as admin:
        admin.act("rotate_key", *(fleet.row(agent_id)["pk"] for agent_id in ids))
    fleet.sh(f"touch {NOW}")
    by_hand = fleet.provision()
    until("the reconciler to be at rest", control.at_rest, 120)
    assert by_hand.rc == 0, by_hand.output
    assert control.show("Result") == "success", control.journal()
    for agent_id in ids:
        row = fleet.row(agent_id)
        assert (row["status"], row["observed_generation"]) == ("active", row["generation"]), row
        assert fleet.ask(agent_id, "who are you?").status == 200
    again = fleet.provision()
    assert (again.rc, again.changed) == (0, [])


def test_a_gateway_that_refused_its_config_is_reported(fleet: Fleet, control: Control) -> None:
    unit, config = f"openclaw-gateway@{GATEWAY}.service", f"/var/lib/claw/{GATEWAY}/openclaw.json"
    until("the reconciler to be at rest", control.at_rest)
    fleet.sh(f"systemctl stop {unit} && cp -a {config} {config}.kept && echo '{{ broken' > {config}")
    try:
        fleet.sh(f"systemctl start {unit}")
        status = f"systemctl show -P ExecMainStatus {unit}"
        until("the gateway to exit with 78", lambda: fleet.sh(status).strip() == "78", 60)
        assert control.run_now() == "exit-code"
        assert control.show("ActiveState") == "failed"
        assert f"{GATEWAY} is failed" in control.journal()
        assert "78: it refuses its config" in control.journal()
        fleet.machine.run(f"systemctl start {UNIT}")
        assert GATEWAY in control.journal(), "it is not forgotten by a pass that has nothing new to do"
    finally:
        fleet.sh(f"mv {config}.kept {config} && systemctl reset-failed {unit} && systemctl start {unit}")
    assert control.run_now() == "success", control.journal()
    assert control.show("ActiveState") == "inactive"


def test_who_came_for_this_goes(fleet: Fleet, control: Control) -> None:
    ids = ["coach-mila", "coach-rike", "coach-vera"]
    with fleet.admin() as admin:
        admin.act("remove", *(fleet.row(agent_id)["pk"] for agent_id in ids))
    assert control.run_now() == "success", control.journal()
    assert {fleet.row(agent_id)["status"] for agent_id in ids} == {"removed"}
