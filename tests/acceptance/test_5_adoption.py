"""A machine that somebody set up in the manner of the companion operator, taken over by playbooks/adopt.yml.

The former gateway is the same OpenClaw as the fleet's, with `agents.list`, a unit of its own, memories in the workspace,
sessions in its database, and a key in the workspace whose hash Django knows. What this does not prove: data that another
version of OpenClaw wrote, which that gateway has to migrate before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .cut_short import killed_at_task_after_task
from .fleet import INVENTORY, Fleet, Play, until
from .kills import Say

pytestmark = pytest.mark.fire

NAME = "gw-d"
COACH = "coach-olga"
HOME = "/home/companion"
PORT = 20600
TOKEN = "former-token-0123456789abcdef0123456789abcdef0123"
KEY = "former-key-of-olga-0123456789abcdef"
SITE = ("playbooks/site.yml", "--limit", NAME)
ADOPT = "playbooks/adopt.yml"


@dataclass
class Former:
    """The former gateway: how it is set up, started and asked on the machine."""

    fleet: Fleet

    def set_up(self) -> None:
        """Its user, workspaces, config and unit."""
        told: dict[str, Any] = json.loads(self.fleet.sh("cat /etc/claw/gw-a/gateway.json"))
        workspace = f"{HOME}/openclaw-operator/agents/{COACH}"
        config = {
            "gateway": {
                "mode": "local",
                "port": PORT,
                "bind": "loopback",
                "auth": {"mode": "token", "token": TOKEN},
                "http": {"endpoints": {"responses": {"enabled": True}}},
            },
            "models": {
                "mode": "replace",
                "providers": {
                    "stand-in": {
                        "baseUrl": "http://provider:18080/v1",
                        "apiKey": "no-secret",
                        "api": "openai-completions",
                        "models": [{"id": "stand-in-1", "name": "Stand-in", "input": ["text"]}],
                    }
                },
            },
            "tools": {"deny": ["*"]},
            "discovery": {"mdns": {"mode": "off"}},
            "agents": {
                "defaults": {
                    "model": {"primary": "stand-in/stand-in-1"},
                    "skipBootstrap": True,
                    "heartbeat": {"every": "0m"},
                },
                "list": [
                    {"id": "operator", "default": True, "workspace": f"{HOME}/openclaw-operator/main"},
                    {"id": COACH, "name": "Olga", "workspace": workspace},
                ],
            },
        }
        unit = (
            "[Service]\nUser=companion\n"
            f"ExecStart={told['node']} {told['entry']} gateway --port {PORT} --bind loopback\n"
            f"Environment=HOME={HOME} PATH={Path(told['node']).parent}:/usr/bin:/bin\n"
            "[Install]\nWantedBy=multi-user.target\n"
        )
        self.fleet.sh(
            f"useradd --create-home companion; mkdir -p {workspace} {HOME}/openclaw-operator/main {HOME}/.openclaw"
        )
        for path, content in (
            (f"{workspace}/SOUL.md", "SOULMARK-former"),
            (f"{workspace}/MEMORY.md", "MEMORYMARK-quaxi"),
            (f"{workspace}/.credentials.json", json.dumps({"api_key": KEY, "django_url": "http://x"})),
            (f"{HOME}/.openclaw/openclaw.json", json.dumps(config)),
            ("/etc/systemd/system/openclaw-gateway.service", unit),
        ):
            self.fleet.machine.run("printf %%s %s > %s", content, path)
        self.fleet.sh(
            f"chown -R companion: {HOME}; chmod 600 {workspace}/.credentials.json; systemctl daemon-reload"
        )

    def start(self) -> None:
        """Start it for good and wait until it is ready."""
        self.fleet.sh("systemctl enable --now openclaw-gateway.service")
        ready = f"""python3 -c 'import urllib.request as u; u.urlopen("http://127.0.0.1:{PORT}/readyz", timeout=5)'"""
        until("the former gateway", lambda: self.fleet.machine.run(ready).rc == 0, 120)

    def say(self, pk: int, text: str) -> str:
        """A turn in the session in which Django asks too."""
        code = (
            "import json, sys, urllib.request as u\n"
            "url, token, agent, session, text = sys.argv[1:]\n"
            "headers = {'authorization': 'Bearer ' + token, 'content-type': 'application/json',\n"
            "           'x-openclaw-agent-id': agent, 'x-openclaw-session-key': session}\n"
            "body = json.dumps({'model': 'openclaw', 'input': text}).encode()\n"
            "print(u.urlopen(u.Request(url, body, headers), timeout=60).read().decode())\n"
        )
        done = self.fleet.machine.run(
            "python3 -c %s %s %s %s %s %s",
            code,
            f"http://127.0.0.1:{PORT}/v1/responses",
            TOKEN,
            COACH,
            f"agent:{COACH}:coach-{pk}-main",
            text,
        )
        assert done.rc == 0, done.stderr
        return str(done.stdout)

    def schedule(self, name: str, message: str) -> None:
        """A job of hers, as a person schedules it."""
        told: dict[str, Any] = json.loads(self.fleet.sh("cat /etc/claw/gw-a/gateway.json"))
        job = f"--name {name} --agent {COACH} --cron '0 22 * * *' --session isolated --message '{message}' --no-deliver"
        environment = (
            f"HOME={HOME} OPENCLAW_GATEWAY_TOKEN={TOKEN} PATH={Path(told['node']).parent}:/usr/bin:/bin"
        )
        self.fleet.sh(
            f"cd {HOME} && runuser -u companion -- env {environment} {told['node']} {told['entry']} cron add {job}"
        )

    def files(self) -> str:
        """All that must be as it was: what is hers, but not the database, which closing changes."""
        return self.fleet.sh(
            f"find {HOME} -type f -not -path '*/.openclaw/*' -printf '%p %m %u %T@ %s\\n' | sort"
        )


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The demo's inventory, and the gateway that takes over."""
    hosts = yaml.safe_load((INVENTORY / "hosts.yml").read_text())
    like = dict(hosts["all"]["children"]["gateways"]["hosts"]["gw-b"] or {})
    like |= {"gateway_port": 19600, "adoption_state_dir": f"{HOME}/.openclaw"}
    extra = tmp_path_factory.mktemp("inventory") / "0-adoption.yml"
    extra.write_text(yaml.safe_dump({"all": {"children": {"gateways": {"hosts": {NAME: like}}}}}))
    return [extra, INVENTORY]


@pytest.fixture(scope="module", params=[False, True], ids=["in one go", "killed at task after task"])
def _cut(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def former(fleet: Fleet, inventory: list[Path], _cut: bool) -> Iterator[Former]:
    """The former gateway with its coach, and an empty gateway of the fleet beside it."""
    former = Former(fleet)
    former.set_up()
    former.start()
    play = fleet.play(*SITE, inventory=inventory)
    assert play.rc == 0, play.output
    sha256 = hashlib.sha256(KEY.encode()).hexdigest()
    fleet.orm(
        f"CompanionProfile.objects.create(agent_id='{COACH}', name='Olga', status='active', generation=1, "
        f"observed_generation=1, key_id='k1', key_sha256='{sha256}', key_generation=1, key_wanted_generation=1)"
    )
    former.say(fleet.row(COACH)["pk"], "My dog is called Quaxi.")
    former.schedule("evening", "at midnight")
    yield former
    fleet.sh(f"systemctl disable --now openclaw-gateway.service openclaw-gateway@{NAME}.service")
    # Others look where on the machine a secret is, and know of no gateway but the demo's.
    fleet.sh(f"rm -r /etc/claw/{NAME} /var/lib/claw/{NAME}; userdel --remove companion")
    fleet.orm(f"CompanionProfile.objects.filter(agent_id='{COACH}').delete()")


@pytest.fixture(scope="module")
def predicted(fleet: Fleet, former: Former, inventory: list[Path]) -> Play:
    """The run in check mode that goes before the real one."""
    before, mine, row = former.files(), fleet.files(), fleet.row(COACH)
    play = fleet.play(ADOPT, "--check", "--diff", "-vvv", inventory=inventory)
    assert play.rc == 0, play.output
    assert (former.files(), fleet.files(), fleet.row(COACH)) == (before, mine, row)
    return play


def test_check_mode_names_what_would_be_taken_and_takes_nothing(
    fleet: Fleet, former: Former, predicted: Play
) -> None:
    play = predicted
    assert f"{COACH} has scheduled jobs" in " ".join(play.output.split())
    assert f"/var/lib/claw/{NAME}/workspaces/{COACH}/MEMORY.md" in play.output
    assert f"/var/lib/claw/{NAME}/credentials/{COACH}/.credentials.json" in play.output
    assert KEY not in play.output and TOKEN not in play.output
    assert fleet.machine.service("openclaw-gateway.service").is_running


def test_she_is_taken_over_with_memory_session_and_key(
    fleet: Fleet, former: Former, predicted: Play, inventory: list[Path], _cut: bool, say: Say
) -> None:
    before = former.files()
    cut = _cut and killed_at_task_after_task("adopt", fleet, inventory, ADOPT, say=say)
    play = fleet.play(ADOPT, "--diff", "-vvv", inventory=inventory)
    assert play.rc == 0, play.output
    if cut:
        assert play.changed == []
    else:
        # What follows the copy cannot be foreseen before there is one, and is not among this.
        assert predicted.changed == [task for task in play.changed if task in predicted.changed]
        assert [diff for diff in predicted.diffs() if diff not in play.diffs()] == []
    assert KEY not in play.output and fleet.seen(play.output) == []
    assert former.files() == before

    row = fleet.row(COACH)
    assert (row["gateway"], row["status"], row["key_generation"]) == (NAME, "active", 1)
    assert fleet.credentials(COACH)["api_key"] == KEY
    heard = fleet.heard_until_now()
    reply = fleet.ask(COACH, "recall", key=KEY)
    assert reply.status == 200 and "Quaxi" in reply.text
    (asked,) = fleet.heard(after=heard)
    assert "SOULMARK-former" in json.dumps(asked) and "MEMORYMARK-quaxi" in json.dumps(asked)
    assert not fleet.machine.service("openclaw-gateway.service").is_running
    assert not fleet.machine.service("openclaw-gateway.service").is_enabled

    again = fleet.play(ADOPT, inventory=inventory)
    assert (again.rc, again.changed) == (0, []), again.output


def test_the_way_back(fleet: Fleet, former: Former) -> None:
    pk = fleet.row(COACH)["pk"]
    former.start()
    assert "Quaxi" in former.say(pk, "recall")
