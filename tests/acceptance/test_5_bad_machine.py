"""What a machine and people's hands on it may hold ready: the run says what and where, nothing that is served
changes, and when it is cured the next run does what was wanted.

Not here: a clock that is wrong, because a machine of the bench has the kernel's clock, and because nothing on a machine
compares times with anybody else's (how Django's are taken: the unit tests of the client); and a Python that is too old,
of which Debian has none (the unit tests of the preflight).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from .faults import Behind
from .fleet import API, ROOT, Fleet, Play
from .test_5_races import rename

pytestmark = pytest.mark.fire

GATEWAY, COACH = "gw-a", "coach-rita"
CONFIG, STATE = f"/etc/claw/{GATEWAY}", f"/var/lib/claw/{GATEWAY}"
NAMES = count(1)


@dataclass(frozen=True)
class Fault:
    """How to break something on the machine, by shell; words of the message; how to cure it, as the message says."""

    how: str
    words: list[str]
    cure: str
    then: str = ""
    """What the gateway needs beside the cure."""
    everybodys: bool = False
    """Whether it is in the way of all coaches of the gateway, so that it is told beside each of them."""


def full(directory: str) -> tuple[str, str]:
    """The directory on a small disk that is full, and how to have it back."""
    return (
        f"mkdir -p /run/full && mount -t tmpfs -o size=1m tmpfs /run/full && cp -a {directory}/. /run/full/ && "
        f"chown --reference={directory} /run/full && chmod --reference={directory} /run/full && "
        f"mount --bind /run/full {directory} && ! dd if=/dev/zero of={directory}/fill bs=4k 2>/dev/null",
        f"umount {directory} && umount /run/full",
    )


FAULTS = {
    "a full disk under the fleet's files": Fault(
        full(CONFIG)[0], [f"cannot write {CONFIG}/", "No space left on device"], full(CONFIG)[1]
    ),
    "a full disk under the workspaces": Fault(
        full(f"{STATE}/workspaces")[0],
        [f"cannot write {STATE}/workspaces/{COACH}/", "No space left on device"],
        full(f"{STATE}/workspaces")[1],
    ),
    "a file system that is read-only": Fault(
        f"mount --bind {CONFIG} {CONFIG} && mount -o remount,bind,ro {CONFIG}",
        [f"{CONFIG}/", "Read-only file system"],
        f"umount {CONFIG}",
    ),
    "a state directory of somebody else": Fault(
        f"chown root:root {STATE}",
        [f"{STATE}", "Permission denied"],
        f"chown claw-{GATEWAY}:claw-{GATEWAY} {STATE}",
        everybodys=True,
    ),
    "a link for the workspace": Fault(
        f"mv {STATE}/workspaces/{COACH} {STATE}/aside && ln -s ../aside {STATE}/workspaces/{COACH}",
        [f"{STATE}/workspaces/{COACH} is not a directory", "move it away and run again"],
        f"rm {STATE}/workspaces/{COACH} && mv {STATE}/aside {STATE}/workspaces/{COACH}",
    ),
    "a link for the credentials": Fault(
        f"cd {STATE}/credentials/{COACH} && mv .credentials.json aside && ln -s aside .credentials.json",
        [f"{STATE}/credentials/{COACH}/.credentials.json", "symbolic link", "links are not followed"],
        f"cd {STATE}/credentials/{COACH} && mv aside .credentials.json",
    ),
    "a link for the config": Fault(
        f"cd {STATE} && cp -p openclaw.json aside && ln -sf aside openclaw.json",
        [f"{STATE}/openclaw.json", "symbolic link", "links are not followed"],
        f"cd {STATE} && mv aside openclaw.json",
    ),
    "a config with a key that OpenClaw does not know": Fault(
        f'cd {STATE} && cp -p openclaw.json aside && sed -i \'0,/{{/s//{{ "colour": "red",/\' openclaw.json',
        ["colour", "nothing was written", f"{STATE}/openclaw.json"],
        f"cd {STATE} && mv aside openclaw.json",
    ),
    "a config that is no JSON": Fault(
        f"cd {STATE} && cp -p openclaw.json aside && echo '}}' >> openclaw.json",
        [f"{STATE}/openclaw.json is not JSON", "mend it"],
        f"cd {STATE} && mv aside openclaw.json",
    ),
    "a roster that is gone": Fault(
        f"rm {CONFIG}/agents.json",
        [f"{CONFIG}/agents.json is gone", f"`cp -p {CONFIG}/agents.json.previous {CONFIG}/agents.json`"],
        f"cp -p {CONFIG}/agents.json.previous {CONFIG}/agents.json",
        then=f"systemctl restart openclaw-gateway@{GATEWAY}.service",
    ),
    "a roster that is cut off": Fault(
        f"cp -p {CONFIG}/agents.json {CONFIG}/aside && truncate -s 20 {CONFIG}/agents.json",
        [f"{CONFIG}/agents.json does not hold a roster", f"`cp -p {CONFIG}/agents.json.previous"],
        f"mv {CONFIG}/aside {CONFIG}/agents.json",
    ),
    "a manifest that is cut off": Fault(
        f"cp -p {CONFIG}/manifest.json {CONFIG}/aside && truncate -s 20 {CONFIG}/manifest.json",
        [f"{CONFIG}/manifest.json does not hold a manifest", "Restore it from a backup; or remove it"],
        f"mv {CONFIG}/aside {CONFIG}/manifest.json",
    ),
}


def provision(fleet: Fleet, *arguments: str, **more: Any) -> Play:
    return fleet.provision(None, "--limit", GATEWAY, *arguments, **more)


@pytest.fixture(scope="module")
def rita(fleet: Fleet) -> Iterator[int]:
    """A coach of whom something new is wanted each time; her pk."""
    with fleet.admin() as admin:
        admin.add(COACH, "Rita")
        fleet.orm(
            f"CompanionProfile.objects.filter(agent_id={COACH!r})"
            f".update(gateway=Gateway.objects.get(name={GATEWAY!r}))"
        )
        play = provision(fleet)
        assert play.rc == 0, play.output
        pk = fleet.row(COACH)["pk"]
        yield pk
        admin.act("remove", pk)
    assert provision(fleet).rc == 0


def wish(fleet: Fleet) -> str:
    """Want a new name of her."""
    name = f"Rita {next(NAMES)}"
    rename(fleet, COACH, name)
    return name


def others(fleet: Fleet) -> dict[str, Any]:
    return {agent_id: row for agent_id, row in fleet.rows().items() if agent_id != COACH}


def statuses(fleet: Fleet) -> dict[str, str]:
    return {agent_id: row["status"] for agent_id, row in others(fleet).items()}


@contextmanager
def nothing_served_changes(fleet: Fleet, *, but_rows: bool = False, but_her_name: str = "") -> Iterator[None]:
    """The gateway goes on with what it had, in the same process, and nobody else's row is touched."""
    served, pid, rows = fleet.served(GATEWAY), fleet.pid(GATEWAY), others(fleet)
    yield
    now = fleet.call(GATEWAY, "agents.list")["payload"]["agents"]
    names = {agent_id: entry["name"] for agent_id, entry in served.items()}
    if but_her_name:
        names[COACH] = but_her_name
    assert {agent["id"]: agent["name"] for agent in now if agent["id"] != "main"} == names
    assert fleet.pid(GATEWAY) == pid
    assert but_rows or others(fleet) == rows


def told(play: Play) -> str:
    """The output on one line, as it is wrapped and quoted."""
    return " ".join(play.output.replace("\\\\n", " ").replace("''", "'").split())


def converges(fleet: Fleet, name: str) -> None:
    """The next run does what was wanted."""
    play = provision(fleet)
    assert play.rc == 0, play.output
    row = fleet.row(COACH)
    assert (row["status"], row["observed_generation"]) == ("active", row["generation"])
    assert fleet.served(GATEWAY)[COACH]["name"] == name


@pytest.mark.parametrize("what", FAULTS)
def test_it_is_named_and_harms_nobody_and_its_cure_is_enough(fleet: Fleet, rita: int, what: str) -> None:
    fault = FAULTS[what]
    name = wish(fleet)
    before = statuses(fleet)
    with nothing_served_changes(fleet, but_rows=fault.everybodys):
        fleet.sh(fault.how)
        try:
            play = provision(fleet)
        finally:
            fleet.sh(fault.cure)
        assert play.rc != 0
        assert [words for words in fault.words if words not in told(play)] == [], play.output
        row = fleet.row(COACH)
        assert row["status"] == "error" and fault.words[0] in row["reason"], row
    if fault.then:
        fleet.sh(fault.then)
    converges(fleet, name)
    assert statuses(fleet) == before


def test_without_its_manifest_the_fleet_overwrites_nothing_it_does_not_know(fleet: Fleet, rita: int) -> None:
    name = wish(fleet)
    user = f"{STATE}/workspaces/{COACH}/USER.md"
    before = fleet.sh(f"cat {user}")
    fleet.sh(f"rm {CONFIG}/manifest.json")
    with nothing_served_changes(fleet, but_her_name=name):
        play = provision(fleet)
        assert play.rc == 0, play.output
        assert "USER.md in its workspace is not what the fleet wrote and was left alone" in told(play)
        assert fleet.sh(f"cat {user}") == before
    fleet.sh(f"cd {STATE}/workspaces/{COACH} && rm AGENTS.md IDENTITY.md USER.md")
    converges(fleet, name)
    assert name in fleet.sh(f"cat {user}")
    assert provision(fleet).changed == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "{{ coach.vars.town if coach.agent_id == 'coach-rita' else '' }}",
            ["USER.md.j2 cannot be rendered for this coach", "town", "Give her that value in Django"],
        ),
        ("one\n{% if %}", ["USER.md.j2, line 2", "Correct the template"]),
    ],
)
def test_a_template_that_does_not_render(
    fleet: Fleet, rita: int, tmp_path: Path, text: str, words: list[str]
) -> None:
    name = wish(fleet)
    (tmp_path / "ansible.cfg").write_text((ROOT / "ansible.cfg").read_text())
    (tmp_path / "files" / "templates").mkdir(parents=True)
    (tmp_path / "files" / "templates" / "USER.md.j2").write_text(text)
    environment = {
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
    }
    with nothing_served_changes(fleet):
        play = provision(fleet, environment=environment)
        assert play.rc != 0
        assert [part for part in words if part not in told(play)] == [], play.output
        row = fleet.row(COACH)
        assert row["status"] == "error" and words[0] in row["reason"], row
    converges(fleet, name)


def test_a_port_that_somebody_else_listens_on(fleet: Fleet) -> None:
    port = 19444
    fleet.sh(
        f"systemd-run --quiet --unit=squatter --property=User=nobody python3 -m http.server {port} --bind 127.0.0.1"
    )
    files = fleet.files()
    try:
        play = fleet.play("playbooks/site.yml", "--limit", GATEWAY, gateway_port=port)
        assert play.rc != 0
        assert f"gateway_port {port} cannot be used" in told(play)
        assert "user nobody listens on it. Give each gateway of a machine a port of its own" in told(play)
        assert (play.changed, fleet.files()) == ([], files)
    finally:
        fleet.sh("systemctl stop squatter")


def test_a_coach_whom_another_gateway_claims_first(fleet: Fleet, faulty: Behind) -> None:
    with fleet.admin() as admin:
        admin.add("coach-zoe", "Zoe")
    row = fleet.row("coach-zoe")
    with (
        ThreadPoolExecutor(1) as pool,
        faulty.server.gate(f"POST .*/{row['pk']}/claim/ ") as gate,
    ):
        run = pool.submit(
            fleet.provision, inventory=faulty.inventory, coaches_api_url=f"{faulty.server.url}{API}/"
        )
        gate.wait()
        claimed = json.loads(gate.body)["gateway"]
        other = "gw-b" if claimed == "gw-a" else "gw-a"
        fleet.orm(
            f"CompanionProfile.objects.filter(pk={row['pk']})"
            f".update(gateway=Gateway.objects.get(name={other!r}))"
        )
        gate.opened.set()
        play = run.result()
    assert play.rc != 0
    assert "coach-zoe" in told(play) and other in told(play)
    assert fleet.row("coach-zoe")["gateway"] == other
    assert "coach-zoe" not in fleet.served(claimed)
    play = fleet.provision()
    assert play.rc == 0, play.output
    assert fleet.row("coach-zoe")["status"] == "active"
    assert "coach-zoe" in fleet.served(other)
    with fleet.admin() as admin:
        admin.act("remove", row["pk"])
    assert fleet.provision().rc == 0


def test_a_service_token_that_expires_in_the_middle(fleet: Fleet, faulty: Behind, rita: int) -> None:
    name = wish(fleet)
    faulty.server.expires_after = f"PATCH .*/{rita}/status/"
    play = provision(fleet, inventory=faulty.inventory, coaches_api_url=f"{faulty.server.url}{API}/")
    assert play.rc != 0
    assert "answered 401" in told(play) and "Check api_token against Django's service tokens" in told(play)
    assert fleet.coach_list.service_token not in play.output
    row = fleet.row(COACH)
    assert row["observed_generation"] < row["generation"]
    converges(fleet, name)
