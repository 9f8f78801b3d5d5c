"""The running fleet as the tests see it: plays, Django, the provider's memory, the machine, the way in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_runner
import httpx
import testinfra
from clawbench import hosts
from clawbench.coachlist import ADMIN, API, CoachList

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "inventories" / "demo"
FLEET_FILES = (
    "/etc/claw /etc/nginx /etc/systemd/system /opt/claw /var/lib/claw/*/openclaw.json /var/lib/claw/*/token"
)
ADMIN_CALL = """
import json, sys, urllib.error, urllib.request
gateway = json.load(open(f"/etc/claw/{sys.argv[1]}/gateway.json"))
request = urllib.request.Request(
    f"http://127.0.0.1:{gateway['port']}/api/v1/admin/rpc",
    sys.argv[2].encode(),
    {"authorization": "Bearer " + open(gateway["token_file"]).read().strip(), "content-type": "application/json"},
)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    answer = opener.open(request, timeout=60)
except urllib.error.HTTPError as refusal:
    answer = refusal
print(answer.read().decode())
"""
"""Run on the machine with a gateway's name and {method, params}: what the gateway's admin call answers."""
AGENT_FILES = "/var/lib/claw/*/workspaces /var/lib/claw/*/credentials"


def until(what: str, condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until the condition is true; fail with what was waited for."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        pause.wait(0.2)


@dataclass
class Play:
    """What a run of a playbook did."""

    rc: int
    output: str
    results: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """(host, task, result), in order; loops as one."""

    @property
    def changed(self) -> list[str]:
        """Tasks that said `changed`, as `host: task`."""
        return [f"{host}: {task}" for host, task, result in self.results if result.get("changed")]

    def result(self, host: str, task: str) -> dict[str, Any]:
        """The result of a task on a host."""
        found = [result for where, what, result in self.results if where == host and what.endswith(task)]
        assert found, f"no task {task!r} on {host}; there were {[what for _, what, _ in self.results]}"
        return found[-1]

    def diffs(self) -> list[tuple[str, str, Any]]:
        """Every diff that was shown: (host, task, diff)."""
        return [
            (host, task, result["diff"])
            for host, task, result in self.results
            if result.get("diff") and result.get("changed")
        ]


@dataclass
class Reply:
    """An answer that was streamed."""

    status: int
    text: str
    arrivals: list[float]
    """When each delta came, seconds since the request."""
    body: str = ""


class Fleet:
    """One demo in a state directory of its own."""

    def __init__(self, state: Path, machine: str = "machine1") -> None:
        """``machine``: whose files and services are looked at."""
        self.state = state
        self._machine = machine
        self.coach_list = CoachList(state)
        self.bench = hosts.Bench(state.name.strip("."), state)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "CLAW_DEMO_STATE": str(self.state), "PATH": path}

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run make, as a person does."""
        return subprocess.run(
            ["make", *words], cwd=ROOT, env=self.environment, text=True, capture_output=True, check=False
        )

    # Plays

    def play(
        self,
        playbook: str,
        *arguments: str,
        inventory: list[Path] | None = None,
        environment: dict[str, str] | None = None,
        cwd: Path = ROOT,
        **extra: Any,
    ) -> Play:
        """Run a playbook over SSH, as an operator does.

        Args:
            playbook: a path under the repository, or a collection's playbook by name.
            arguments: words for ansible-playbook, such as `--check`.
            extra: variables, as `-e` gives them.
        """
        with tempfile.TemporaryDirectory(prefix="claw-play-") as private:
            run = ansible_runner.run(
                private_data_dir=private,
                project_dir=str(cwd),
                playbook=str(cwd / playbook) if "/" in playbook else playbook,
                inventory=[str(path) for path in inventory or [INVENTORY]],
                envvars={
                    **self.environment,
                    "ANSIBLE_CONFIG": str(cwd / "ansible.cfg"),
                    **(environment or {}),
                },
                cmdline=" ".join(arguments) or None,
                extravars=extra,
                quiet=True,
            )
            output = re.sub(r"\x1b\[[0-9;]*m", "", run.stdout.read())
            results = [
                (event["event_data"]["host"], event["event_data"]["task"], event["event_data"]["res"])
                for event in run.events
                if event["event"] in ("runner_on_ok", "runner_on_failed")
            ]
            return Play(rc=int(run.rc), output=output, results=results)

    def done(self, playbook: str, *arguments: str, **more: Any) -> Play:
        """A run that has to succeed; all as for `play`."""
        play = self.play(playbook, *arguments, **more)
        assert play.rc == 0, play.output
        return play

    def provision(self, coach: str | None = None, *arguments: str, **more: Any) -> Play:
        """Run provision-coach for one coach or for all; `more` as for `play`."""
        if coach:
            more["coach"] = coach
        return self.play("playbooks/provision-coach.yml", *arguments, **more)

    # Django

    def api(self, token: str | None = None) -> httpx.Client:
        """Django's API; by default with the fleet's service token."""
        return httpx.Client(
            base_url=self.coach_list.url + API,
            headers={"Authorization": f"Bearer {token or self.coach_list.service_token}"},
            timeout=120,
            trust_env=False,
        )

    def rows(self) -> dict[str, dict[str, Any]]:
        """Every coach of the list, by agent id."""
        with self.api() as api:
            page = api.get("/internal/coaches/", params={"page_size": 1000}).raise_for_status().json()
        assert page["next"] is None
        return {row["agent_id"]: row for row in page["results"]}

    def row(self, agent_id: str) -> dict[str, Any]:
        """One coach's row."""
        return self.rows()[agent_id]

    def orm(self, statement: str) -> str:
        """Run a statement where the models are at hand: for rows that no form would let in."""
        head = "from claw_fleet.coachlist.models import *; "
        printed: str = self.coach_list.manage("shell", "--no-imports", "-c", head + statement)
        return printed

    @contextmanager
    def admin(self) -> Iterator[Admin]:
        """The admin, signed in."""
        with httpx.Client(
            base_url=self.coach_list.url, timeout=60, trust_env=False, follow_redirects=True
        ) as http:
            admin = Admin(http)
            admin.sign_in(ADMIN, self.coach_list.admin_password)
            yield admin

    def requests_to_django(self) -> list[str]:
        """The access log's request lines, oldest first: `GET /api/...`."""
        log = (self.state / "gunicorn.log").read_text()
        return re.findall(r'"((?:GET|POST|PUT|PATCH|DELETE) \S+) HTTP', log)

    # The provider

    @property
    def provider(self) -> str:
        url: str = self.bench.facts()["provider"]["control_url"]
        return url

    def heard(self, contains: str = "", after: int = 0) -> list[dict[str, Any]]:
        """What the provider was sent, oldest first."""
        params: dict[str, str | int] = {"contains": contains, "after": after}
        answer = httpx.get(f"{self.provider}/_requests", params=params, trust_env=False).raise_for_status()
        found: list[dict[str, Any]] = answer.json()["requests"]
        return found

    def heard_until_now(self) -> int:
        """The number of the newest request."""
        return max((request["number"] for request in self.heard()), default=0)

    # The machine

    @property
    def machine(self) -> Any:
        """The machine, as root, by testinfra."""
        return testinfra.get_host(f"docker://{self.bench.container(self._machine)}")

    def sh(self, command: str) -> str:
        """Run a shell line on the machine as root."""
        done = self.machine.run(command)
        assert done.rc == 0, f"{command}: {done.stderr}"
        return str(done.stdout)

    def reboot(self) -> None:
        """Stop the machine with all that runs on it, start it, and wait until it is up.

        Not `docker restart`: that keeps the root file system which systemd has made read-only at its end.
        """
        subprocess.run(["docker", "stop", "-t", "60", self.bench.container(self._machine)], check=True)
        hosts.create(self.bench, [self._machine], provider=True)

    def pid(self, gateway: str) -> str:
        """The gateway's process."""
        return self.sh(f"systemctl show -P MainPID openclaw-gateway@{gateway}.service").strip()

    def files(self) -> str:
        """Every file that the fleet may write, with inode, owner, mode, time and size."""
        return self.sh(
            f"find {FLEET_FILES} {AGENT_FILES} -not -name lock -printf '%p %i %u %m %T@ %s\\n' 2>/dev/null | sort"
        )

    def call(self, gateway: str, method: str, **params: Any) -> dict[str, Any]:
        """A gateway's answer to an admin call: {ok, payload} or {ok, error}."""
        body = json.dumps({"method": method, "params": params})
        answer: dict[str, Any] = json.loads(
            self.machine.check_output("python3 -c %s %s %s", ADMIN_CALL, gateway, body)
        )
        return answer

    def config(self, gateway: str) -> dict[str, Any]:
        """The config that a gateway runs with, as it tells it."""
        found: dict[str, Any] = self.call(gateway, "config.get")["payload"]
        return found

    def served(self, gateway: str) -> dict[str, Any]:
        """The agents that a gateway serves, by its own word."""
        config = self.config(gateway)
        assert config["valid"] and config["configRevisionHash"] == config["appliedConfigHash"], config
        entries = config["sourceConfig"]["agents"]["entries"]
        return {name: entry for name, entry in entries.items() if name != "main"}

    def reloads(self) -> int:
        """How often the gateways have read a changed roster or config, by their own logs."""
        return int(self.sh("cat /var/lib/claw/*/logs/gateway*.log | grep -c 'config change detected'"))

    def token(self, gateway: str) -> str:
        """The gateway's token, from its one home."""
        return self.sh(f"cat /var/lib/claw/{gateway}/token").strip()

    def credentials(self, agent_id: str) -> dict[str, str]:
        """What is in a coach's credentials file."""
        gateway = self.row(agent_id)["gateway"]
        path = f"/var/lib/claw/{gateway}/credentials/{agent_id}/.credentials.json"
        found: dict[str, str] = json.loads(self.sh(f"cat {path}"))
        return found

    def secrets(self) -> dict[str, str]:
        """Everything that must never be seen, by what it is."""
        settings = dict(
            line.split("=", 1)
            for line in (self.state / "coachlist.env").read_text().splitlines()
            if "=" in line and not line.startswith("#")
        )
        found = {name: settings[name] for name in ("COACHLIST_SERVICE_TOKENS", "COACHLIST_ENCRYPTION_KEYS")}
        # Of the keys those that the fleet puts there: OpenClaw's own are random bytes, and no lines of text.
        lines = self.sh(
            'cd /var/lib/claw && grep -H . */token */provider-*.key; grep -rHo \'"api_key": *"[^"]*\' */credentials'
        )
        for line in lines.splitlines():
            where, _colon, value = line.partition(":")
            found[where] = value.rpartition('"')[2]
        assert len(found) > 5 and all(len(value) > 5 for value in found.values()), found.keys()
        return found

    def seen(self, text: str, secrets: dict[str, str] | None = None) -> list[str]:
        """Which secrets stand in a text: those of now, or of another time."""
        return [where for where, value in (secrets or self.secrets()).items() if value in text]

    # Turns

    def ask(self, agent_id: str, text: str, session: str = "main", key: str | None = None) -> Reply:
        """Ask a coach's agent through Django, as her app does."""
        with self.api(key or self.credentials(agent_id)["api_key"]) as api:
            return _stream(api, "/ask/", {"input": text, "session": session}, {})

    def way_in(self, gateway: str, token: str | None = None) -> httpx.Client:
        """The proxy in front of a gateway, with its token or another."""
        address = self.bench.facts()["hosts"][self._machine]
        return httpx.Client(
            base_url=f"http://{address}:8080/{gateway}",
            headers={"Authorization": f"Bearer {token or self.token(gateway)}"},
            timeout=120,
            trust_env=False,
        )

    def turn(self, gateway: str, agent_id: str | None, text: str = "hello", **headers: str) -> Reply:
        """A turn through the proxy, past Django."""
        named = {"x-openclaw-agent-id": agent_id} if agent_id is not None else {}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        token = sent.pop("token", None)
        with self.way_in(gateway, token) as http:
            body = {"model": "openclaw", "input": text, "stream": True}
            return _stream(http, "/v1/responses", body, {**named, **sent})


def _stream(http: httpx.Client, path: str, body: dict[str, Any], headers: dict[str, str]) -> Reply:
    began = time.monotonic()
    said: list[str] = []
    arrivals: list[float] = []
    with http.stream("POST", path, json=body, headers=headers) as answer:
        if answer.status_code != httpx.codes.OK:
            return Reply(answer.status_code, "", [], answer.read().decode(errors="replace"))
        lines = []
        for line in answer.iter_lines():
            lines.append(line)
            if line.startswith("data:") and "output_text.delta" in line:
                said.append(json.loads(line[5:])["delta"])
                arrivals.append(time.monotonic() - began)
        return Reply(answer.status_code, "".join(said), arrivals, "\n".join(lines))


class Admin:
    """Django's admin by its own forms."""

    LIST = "/admin/coachlist/companionprofile/"

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def sign_in(self, user: str, password: str) -> None:
        """Sign in."""
        page = self._post("/admin/login/?next=/admin/", {"username": user, "password": password})
        assert "Log out" in page.text

    def add(self, agent_id: str, name: str, **variables: str) -> None:
        """Add a coach with the form."""
        form = {"agent_id": agent_id, "name": name, "vars": json.dumps(variables)}
        page = self._post(f"{self.LIST}add/", form)
        assert "was added successfully" in page.text, _errors(page.text)

    def act(self, action: str, *pks: int) -> str:
        """Choose an action of the list for some coaches; returns what the admin says."""
        form = {"action": action, "_selected_action": [str(pk) for pk in pks]}
        return self._post(self.LIST, form).text

    def _post(self, path: str, form: dict[str, Any]) -> httpx.Response:
        page = self.http.get(path).raise_for_status()
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert found, f"no form at {path}"
        form = {**form, "csrfmiddlewaretoken": found.group(1)}
        return self.http.post(path, data=form, headers={"Referer": str(page.url)}).raise_for_status()


def _errors(page: str) -> str:
    return " ".join(re.findall(r'<ul class="errorlist[^>]*>(.*?)</ul>', page, re.DOTALL))
