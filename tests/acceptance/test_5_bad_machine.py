"""What a machine and people's hands on it may hold ready: the run says what and where, nothing that is served
changes, and when it is cured the next run does what was wanted.

A machine of the bench has the kernel's clock, so one that is wrong is wrong for the fleet's own processes alone. The Python
that is too old is Debian's PyPy, which is one of 3.9.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from clawbench.coachlist import API

from .faults import Behind
from .fleet import INVENTORY, ROOT, Fleet, Play
from .test_5_races import rename

pytestmark = pytest.mark.fire

GATEWAY, COACH = "gw-a", "coach-rita"
CONFIG, STATE = f"/etc/claw/{GATEWAY}", f"/var/lib/claw/{GATEWAY}"
ASIDE = "/root/aside"
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


def another_clock(directory: str, seconds: int) -> str:
    """Shell that makes a Python, DIRECTORY/python, whose processes have a clock that is this much ahead."""
    return f"""mkdir -p {directory} && cat >{directory}/python <<'END' && chmod 0755 {directory} {directory}/python
#!/bin/sh
PYTHONPATH={directory} exec /usr/bin/python3 "$@"
END
echo 'import time; now = time.time; time.time = lambda: now() + {seconds}' >{directory}/sitecustomize.py"""


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


def wish_with_a_key(fleet: Fleet, pk: int) -> str:
    """Want a new name and another key of her."""
    with fleet.admin() as admin:
        admin.act("rotate_key", pk)
    return wish(fleet)


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
    converged(fleet, name)


def converged(fleet: Fleet, name: str) -> None:
    """What was wanted is done, and she answers with the key that Django knows."""
    row = fleet.row(COACH)
    assert (row["status"], row["observed_generation"]) == ("active", row["generation"])
    assert row["key_generation"] == row["key_wanted_generation"]
    assert fleet.served(GATEWAY)[COACH]["name"] == name
    assert fleet.ask(COACH, "still there?").status == 200


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


def with_python(place: Path, python: str) -> list[Path]:
    """An inventory by which the gateway's machine runs modules with this Python."""
    hosts = {GATEWAY: {"ansible_python_interpreter": python}}
    (place / "hosts.yml").write_text(json.dumps({"gateways": {"hosts": hosts}}))
    return [INVENTORY, place / "hosts.yml"]


def test_a_python_that_is_too_old(fleet: Fleet, rita: int, tmp_path: Path) -> None:
    name = wish(fleet)
    install = "apt-get install -qq -y --no-install-recommends pypy3"
    fleet.sh(f"command -v pypy3 || {{ apt-get update -qq && {install}; }} >/dev/null 2>&1")
    words = "gw-a runs modules with Python 3.9.", "Give ansible_python_interpreter: /usr/bin/python3"
    inventory = with_python(tmp_path, "/usr/bin/pypy3")
    with nothing_served_changes(fleet, but_rows=True):
        for playbook in ("playbooks/provision-coach.yml", "playbooks/site.yml"):
            play = fleet.play(playbook, "--limit", GATEWAY, inventory=inventory)
            assert play.rc != 0
            assert [part for part in words if part not in told(play)] == [], play.output
        assert words[0] in fleet.row(COACH)["reason"]
    converges(fleet, name)


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_is_an_hour_wrong(fleet: Fleet, rita: int, tmp_path: Path, seconds: int) -> None:
    name = wish(fleet)
    fleet.sh(another_clock(ASIDE, seconds))
    inventory = with_python(tmp_path, f"{ASIDE}/python")
    try:
        with nothing_served_changes(fleet):
            play = fleet.play("playbooks/site.yml", "--limit", GATEWAY, inventory=inventory)
            assert play.rc != 0
            words = "ahead of" if seconds > 0 else "behind"
            assert re.search(rf"is (36|35)\d\d\.\d s {words} the controller's", told(play)), play.output
            assert "Set the one that is wrong" in told(play)
            assert play.changed == []
        # Whose key and name is new is nothing that clocks decide.
        with fleet.admin() as admin:
            admin.act("rotate_key", rita)
        play = provision(fleet, inventory=inventory)
        assert play.rc == 0, play.output
        converged(fleet, name)
    finally:
        fleet.sh(f"rm -r {ASIDE}")
    again = provision(fleet)
    assert (again.rc, again.changed) == (0, [])


PROVIDER: dict[str, Any] = {
    "api": "openai-responses",
    "base_url": "https://api.example.com/v1",
    "api_key": "sk-of-acme",
    "models": ["m"],
}
PROVIDERS: dict[str, tuple[dict[str, Any], str]] = {
    "an api that there is none of": ({"api": "openai-guesses"}, "api is 'openai-guesses'; it must be one of"),
    "an address that is none": ({"base_url": "api.example.com"}, "base_url is 'api.example.com'; it must be a URL"),
    "no key": ({"api_key": ""}, "api_key is empty; give the key that the provider issued"),
    "no models": ({"models": []}, "models must be a list of ids"),
}  # fmt: skip


@pytest.mark.parametrize("what", PROVIDERS)
def test_a_provider_that_is_invalid(fleet: Fleet, what: str) -> None:
    wrong, words = PROVIDERS[what]
    files = fleet.files()
    with nothing_served_changes(fleet):
        play = fleet.play(
            "playbooks/site.yml", "--limit", GATEWAY, gateway_providers={"acme": {**PROVIDER, **wrong}}
        )
    assert play.rc != 0
    assert "gateway_providers.acme cannot be used" in told(play) and words in told(play), play.output
    assert PROVIDER["api_key"] not in play.output
    assert (play.changed, fleet.files()) == ([], files)
    again = fleet.play("playbooks/site.yml", "--limit", GATEWAY)
    assert (again.rc, again.changed) == (0, []), again.output


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
    for moved in ((f"-egateway_port={port}",), ()):
        play = fleet.play("playbooks/site.yml", "--limit", GATEWAY, *moved)
        assert play.rc == 0, play.output
        assert fleet.ask("coach-anna", "still there?").status == 200


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


ANSWERS = {"a key": "/set-key/", "a status": "/status/"}


def provision_behind(fleet: Fleet, faulty: Behind) -> Play:
    """Provision all by the list behind the server that fails; it must have failed by then."""
    play = fleet.provision(inventory=faulty.inventory, coaches_api_url=f"{faulty.server.url}{API}/")
    assert faulty.server.befallen.left == 0, "nothing befell any answer; this proves nothing"
    return play


@pytest.mark.parametrize("fault", ["late", "half"])
@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_of_djangos_that_is_late_or_cut_off_is_asked_for_again(
    fleet: Fleet, faulty: Behind, rita: int, what: str, fault: str
) -> None:
    name = wish_with_a_key(fleet, rita)
    faulty.server.befall(ANSWERS[what], fault, 1)
    play = provision_behind(fleet, faulty)
    assert play.rc == 0, play.output
    converged(fleet, name)


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_of_djangos_without_end_is_not_read(
    fleet: Fleet, faulty: Behind, rita: int, what: str
) -> None:
    name = wish_with_a_key(fleet, rita)
    faulty.server.befall(ANSWERS[what], "huge", 1)
    play = provision_behind(fleet, faulty)
    assert play.rc != 0
    assert "more than 64 MB" in told(play), play.output
    converges(fleet, name)


@pytest.mark.parametrize("fault", ["late", "half", "huge"])
def test_a_claim_whose_answer_does_not_arrive_holds(fleet: Fleet, faulty: Behind, fault: str) -> None:
    with fleet.admin() as admin:
        admin.add("coach-zita", "Zita")
        admin.act("provision", fleet.row("coach-zita")["pk"])
        faulty.server.befall("/claim/", fault, 1)
        play = provision_behind(fleet, faulty)
        claimed = fleet.row("coach-zita")["gateway"]
        assert claimed
        if fault == "huge":
            assert play.rc != 0 and "more than 64 MB" in told(play), play.output
            play = fleet.provision()
        assert play.rc == 0, play.output
        row = fleet.row("coach-zita")
        assert (row["status"], row["gateway"]) == ("active", claimed)
        assert "Zita" in fleet.ask("coach-zita", "who are you?").text
        admin.act("remove", row["pk"])
        assert fleet.provision().rc == 0
        fleet.orm("CompanionProfile.objects.filter(agent_id='coach-zita').delete()")
