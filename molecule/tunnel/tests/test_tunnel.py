"""Gateways that are reached through a tunnel, while it comes and goes."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import testinfra

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

from clawbench import asking, hosts, tunnel
from clawbench.coachlist import CoachList
from clawbench.hosts import Bench
from clawbench.inventory import MACHINE
from clawbench.shell import until

ROOT = Path(__file__).resolve().parents[3]
STATE = Path(os.environ["CLAW_DEMO_STATE"])
BENCH = Bench.of(STATE)
COACH_LIST = CoachList(STATE)
GATEWAYS = ("gw-a", "gw-b")
WATCHER, TUNNEL = "claw-tunnel-watch.service", "claw-tunnel.service"
HEALED_SECONDS = 15
"""Within which of a tunnel's registration the app has its address, and answers come again."""
AT_ONCE = 6
"""As many questions may wait for their answers."""
STAND_IN = not os.environ.get("CLAW_CLOUDFLARED")
needs_stand_in = pytest.mark.skipif(not STAND_IN, reason="needs an edge that can be told to fail")


@pytest.fixture(scope="module")
def machine() -> Any:
    """The machine, as root."""
    return testinfra.get_host(f"docker://{BENCH.container(MACHINE)}")


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """The coaches as Django has them, by agent id."""
    return {row["agent_id"]: row for row in asking.coaches(COACH_LIST)}


@pytest.fixture(scope="module")
def keys(rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Their keys, by agent id."""
    return {
        agent: json.loads(
            BENCH.ssh(
                MACHINE, f"sudo cat /var/lib/claw/{row['gateway']}/credentials/{agent}/.credentials.json"
            )
        )["api_key"]
        for agent, row in rows.items()
    }


def internal(method: str, path: str, **more: Any) -> httpx.Response:
    """Ask Django with the fleet's own token."""
    with httpx.Client(trust_env=False, timeout=20) as client:
        return client.request(
            method,
            f"{COACH_LIST.url}{asking.API}/internal/{path}",
            headers={"Authorization": f"Bearer {COACH_LIST.service_token}"},
            **more,
        )


def address(gateway: str) -> dict[str, Any]:
    """What Django knows of where it is."""
    found: dict[str, Any] = internal("GET", f"gateways/{gateway}/address/").raise_for_status().json()
    return found


def hostname(machine: Any) -> str:
    """Where the tunnel leads from, by cloudflared itself."""
    found = machine.check_output("python3 -c %s", _QUICK_TUNNEL)
    return str(json.loads(found)["hostname"])


_QUICK_TUNNEL = (
    "import urllib.request as r; print(r.urlopen('http://127.0.0.1:20241/quicktunnel').read().decode())"
)


def registered(name: str) -> float:
    """When the edge took it; 0 where it does not know it."""
    return float(tunnel.ask(BENCH)["registered"].get(name, 0))


def status(machine: Any, unit: str = WATCHER) -> str:
    """The one sentence."""
    return str(machine.check_output("systemctl show -P StatusText %s", unit))


@contextmanager
def edge_fails(**faults: str) -> Iterator[None]:
    """With an edge that does these things."""
    tunnel.ask(BENCH, "PUT", body=faults)
    try:
        yield
    finally:
        tunnel.ask(BENCH, "PUT", body={})


def known_everywhere(machine: Any, seconds: float = HEALED_SECONDS) -> str:
    """Wait until Django has the tunnel's present name for every gateway; that name."""
    name = hostname(machine)
    wanted = {gateway: f"https://{name}/{gateway}" for gateway in GATEWAYS}
    until(
        lambda: {gateway: address(gateway)["url"] for gateway in GATEWAYS} == wanted,
        seconds=seconds,
        what=f"Django's knowing {name}",
        hint=f"Its watcher says: {status(machine)}",
    )
    return name


@dataclass
class Questions:
    """Asked through Django, two a second as long as they are answered, of one coach after the other."""

    keys: dict[str, str]
    answered: list[float] = field(default_factory=list)
    """When those were asked that were answered."""
    refused: list[tuple[float, str]] = field(default_factory=list)

    def ask(self, key: str) -> None:
        began = time.time()
        try:
            with httpx.Client(trust_env=False, timeout=60) as client:
                answer = client.post(
                    f"{COACH_LIST.url}{asking.API}/ask/",
                    headers={"Authorization": f"Bearer {key}"},
                    json={"input": "count:3", "stream": False},
                )
        except httpx.HTTPError as error:
            self.refused.append((began, str(error)))
            return
        if answer.status_code == httpx.codes.OK:
            self.answered.append(began)
        else:
            self.refused.append((began, answer.text))

    @contextmanager
    def going_on(self) -> Iterator[Questions]:
        ended = threading.Event()
        asked: list[threading.Thread] = []

        def go_on() -> None:
            number = 0
            agents = sorted(self.keys)
            while not ended.wait(0.5):
                # A machine that does not keep up would be all that is tried.
                if sum(one.is_alive() for one in asked) >= AT_ONCE:
                    continue
                asked.append(
                    threading.Thread(target=self.ask, args=(self.keys[agents[number % len(agents)]],))
                )
                asked[-1].start()
                number += 1

        asking_on = threading.Thread(target=go_on)
        asking_on.start()
        try:
            yield self
        finally:
            ended.set()
            asking_on.join()
            for one in asked:
                one.join()

    def answered_after(self, moment: float) -> float:
        """Wait for the answer to a question that was asked later than that; how much later it was asked.

        How long an agent takes for it is not the tunnel's doing.
        """
        until(lambda: any(began > moment for began in self.answered), seconds=120, what="an answer")
        return min(began for began in self.answered if began > moment) - moment


@pytest.fixture
def questions(keys: dict[str, str]) -> Iterator[Questions]:
    """Already going on, and answered."""
    with Questions(keys).going_on() as going_on:
        until(lambda: len(going_on.answered) > 3, seconds=60, what="the first answers")
        yield going_on


def test_the_app_reaches_every_gateway_through_the_tunnel(
    machine: Any, rows: dict[str, dict[str, Any]]
) -> None:
    name = known_everywhere(machine)
    for row in rows.values():
        assert asking.turn(BENCH, COACH_LIST, row, "hello")
    assert status(machine) == f"The app reaches gw-a, gw-b at https://{name}"
    for gateway in GATEWAYS:
        found = address(gateway)
        assert found["probed_at"] and found["probe_error"] == ""


@pytest.mark.parametrize("unit", [TUNNEL, WATCHER])
def test_units_are_hardened_while_they_work(machine: Any, unit: str) -> None:
    assert machine.service(unit).is_running
    told = machine.check_output("systemd-analyze security --no-pager %s", unit)
    score = re.search(r"exposure level for \S+: ([0-9.]+)", told)
    assert score
    assert float(score.group(1)) <= 2.0, told
    pid = machine.check_output("systemctl show -P MainPID %s", unit)
    assert machine.check_output("stat -c %%u /proc/%s", pid) != "0"


def test_the_watchers_token_opens_the_address_of_its_gateways_and_nothing_else(machine: Any) -> None:
    token = machine.check_output("cat /etc/claw-tunnel/token")
    mode = machine.file("/etc/claw-tunnel/token")
    assert (mode.user, oct(mode.mode)) == ("root", "0o600")
    headers = {"Authorization": f"Bearer {token}"}
    base = f"{COACH_LIST.url}{asking.API}/internal"
    with httpx.Client(trust_env=False, headers=headers) as client:
        assert client.get(f"{base}/gateways/gw-a/address/").status_code == 200
        for path in ("coaches/", "gateways/", "gateways/gw-a/", "gateways/gw-c/address/"):
            assert client.get(f"{base}/{path}").status_code == 403
        for url in ("https://10.0.0.7/gw-a", "http://one.tunnel.test/gw-a", "https://localhost/gw-a"):
            told = client.put(f"{base}/gateways/gw-a/address/", json={"url": url, "answered": True})
            assert told.status_code == 400, url
    assert token not in machine.check_output("journalctl --no-pager -u %s -u %s", WATCHER, TUNNEL)
    assert token not in machine.check_output("cat /proc/*/cmdline | tr '\\0' ' '")


def test_the_proxy_shows_nothing_else_of_the_tunnel(machine: Any) -> None:
    name = hostname(machine)
    code = (
        "import ssl, sys, urllib.request, urllib.error\n"
        "context = ssl.create_default_context(); context.load_verify_locations('/etc/claw-tunnel/ca.pem')\n"
        "for path in sys.argv[2:]:\n"
        "    try: print(urllib.request.urlopen(f'https://{sys.argv[1]}{path}', context=context).status)\n"
        "    except urllib.error.HTTPError as error: print(error.code)\n"
    )
    paths = (
        "/.well-known/claw-tunnel/",
        "/.well-known/claw-tunnel/../started",
        f"/.well-known/claw-tunnel/{'0' * 32}",
        "/",
    )
    assert machine.check_output("python3 -c %s %s " + " ".join(paths), code, name).split() == ["404"] * len(
        paths
    )


def test_another_address_is_known_and_answers_come_again(machine: Any, questions: Questions) -> None:
    former = hostname(machine)
    machine.check_output("systemctl restart %s", TUNNEL)
    name = known_everywhere(machine)
    assert name != former
    since = registered(name)
    took = time.time() - since
    later = questions.answered_after(since)
    print(
        f"known {took:.1f} s after it was registered; the first question with an answer was asked after {later:.1f} s"
    )
    assert took <= HEALED_SECONDS and later <= HEALED_SECONDS
    # Who asks meanwhile is told so in a sentence.
    assert all("gateway" in words for _began, words in questions.refused)


def test_an_app_that_was_down_is_told_when_it_is_back(machine: Any, questions: Questions) -> None:
    # All of it at once: it would wait for questions that are still under way.
    os.killpg(int((STATE / "gunicorn.pid").read_text()), signal.SIGKILL)
    machine.check_output("systemctl restart %s", TUNNEL)
    time.sleep(60)
    assert "the app does not answer" in status(machine)
    COACH_LIST.up(BENCH.facts()["network_gateway"])
    back = time.time()
    known_everywhere(machine)
    later = questions.answered_after(back)
    print(f"the first question with an answer was asked {later:.1f} s after the app was back")
    assert later <= HEALED_SECONDS


@needs_stand_in
def test_an_address_that_leads_elsewhere_is_never_told(machine: Any) -> None:
    before = {gateway: address(gateway)["url"] for gateway in GATEWAYS}
    with edge_fails(pages="stranger"):
        machine.check_output("systemctl restart %s", TUNNEL)
        until(
            lambda: "does not lead to this machine" in status(machine),
            seconds=20,
            what="the watcher's word of it",
        )
        until(
            lambda: "does not lead to this machine" in address("gw-a")["probe_error"],
            seconds=60,
            what="Django's word of it",
        )
        assert {gateway: address(gateway)["url"] for gateway in GATEWAYS} == before
    known_everywhere(machine)


@needs_stand_in
def test_a_token_that_was_changed_is_read_anew(machine: Any) -> None:
    """As a rotation does: the gateway takes the new one, the watcher was started with the one before."""
    play("playbooks/rotate-gateway-token.yml", "--limit", "gw-a")
    machine.check_output("systemctl restart %s", TUNNEL)
    known_everywhere(machine, 60)


def test_ten_restarts_in_a_row_end_on_the_last_address(machine: Any) -> None:
    for _each in range(10):
        machine.check_output("systemctl restart %s", TUNNEL)
    known_everywhere(machine)


def test_a_watcher_that_is_killed_at_any_moment_has_it_told_in_the_end(machine: Any) -> None:
    for tenths in range(0, 20, 4):
        machine.check_output("systemctl restart %s", TUNNEL)
        time.sleep(tenths / 10)
        machine.check_output("systemctl kill --signal=KILL %s", WATCHER)
        known_everywhere(machine, HEALED_SECONDS + 5)
    nothing_left(machine)


WATCH = "env CREDENTIALS_DIRECTORY=/run/watch-alone timeout --signal=KILL {seconds} {strace} python3 -I /opt/claw/tunnel/watch.py /etc/claw-tunnel"
CALLS = ("connect", "sendto", "write", "unlink")
"""What it changes anything by: what it says to others, and the file of its proof."""


def test_a_watcher_that_is_killed_at_any_call_has_it_told_in_the_end(machine: Any) -> None:
    """All of them with CLAW_SOAK=all, else a few by CLAW_SEED: killed in a pass of its own, then run as it is."""
    machine.check_output("command -v strace || DEBIAN_FRONTEND=noninteractive apt-get install -q -y strace")
    machine.check_output(
        "systemctl stop %s && mkdir -p /run/watch-alone && cd /run/watch-alone && cp /etc/claw-tunnel/token /etc/claw-tunnel/access.json . "
        "&& for name in gw-a gw-b; do cp /var/lib/claw/$name/token gateway-$name; done",
        WATCHER,
    )
    seen = f"strace -f -qq -o /run/watch-alone/calls -e trace={','.join(CALLS)}"
    forget()
    machine.run(WATCH.format(seconds=6, strace=seen))
    called = re.findall(r"^\d+ +(\w+)\(", machine.file("/run/watch-alone/calls").content_string, re.MULTILINE)
    points = [(call, number + 1) for call in CALLS for number in range(called.count(call))]
    assert {call for call, _number in points} == set(CALLS)
    seed = os.environ.get("CLAW_SEED", "1")
    if os.environ.get("CLAW_SOAK") != "all":
        points = random.Random(seed).sample(points, 4)  # noqa: S311 - which points, not a secret
    print(f"{len(points)} of {len(called)} points; CLAW_SEED={seed}")
    for call, number in points:
        machine.check_output("systemctl stop %s", WATCHER)
        forget()
        kill = f"strace -f -qq -o /dev/null -e trace={call} -e inject={call}:signal=KILL:when={number}"
        assert machine.run(WATCH.format(seconds=30, strace=kill)).rc == 137, (call, number)
        machine.check_output("systemctl start %s", WATCHER)
        known_everywhere(machine)
        nothing_left(machine)


def nothing_left(machine: Any) -> None:
    """Wait until no proof is left over; one may be under way."""
    until(
        lambda: machine.check_output("ls -A /run/claw-tunnel/proof") == "",
        seconds=HEALED_SECONDS,
        what="an empty place for proofs",
    )


def forget() -> None:
    """Have Django know other addresses."""
    for gateway in GATEWAYS:
        url = f"https://former.tunnel.test/{gateway}"
        internal(
            "PUT", f"gateways/{gateway}/address/", json={"url": url, "answered": True}
        ).raise_for_status()


def test_long_answers_come_as_they_are_made(
    machine: Any, rows: dict[str, dict[str, Any]], keys: dict[str, str]
) -> None:
    """Of a minute's answer, a word a second: when each word arrives through tunnel and proxy, and beside it without them."""
    arrivals: list[float] = []
    agent = sorted(rows)[0]
    with (
        httpx.Client(trust_env=False, timeout=120) as client,
        client.stream(
            "POST",
            f"{COACH_LIST.url}{asking.API}/ask/",
            headers={"Authorization": f"Bearer {keys[agent]}"},
            json={"input": "slow:60"},
        ) as answer,
    ):
        for line in answer.iter_lines():
            if asking.event_of(line).get("type") == "response.output_text.delta":
                arrivals.append(time.monotonic())
    assert arrivals[-1] - arrivals[0] >= 50
    assert max(later - earlier for earlier, later in itertools.pairwise(arrivals)) < 5


def test_after_a_reboot_the_app_is_told(machine: Any) -> None:
    former = hostname(machine)
    # Not `docker restart`: that keeps the root file system which systemd has made read-only at its end.
    subprocess.run(["docker", "stop", "-t", "60", BENCH.container(MACHINE)], check=True, capture_output=True)
    hosts.create(BENCH, [MACHINE], provider=True)
    until(
        lambda: machine.run("systemctl is-active %s %s", TUNNEL, WATCHER).rc == 0,
        seconds=60,
        what="the units",
    )
    assert known_everywhere(machine, 60) != former


@needs_stand_in
@pytest.mark.parametrize(
    "given,words",
    [
        ({"tunnel_cloudflared_checksums": {"amd64": "0" * 64, "arm64": "0" * 64}}, ["has SHA-256", "0" * 64]),
        ({"tunnel_cloudflared_checksums": {}}, ["There is no checksum of cloudflared"]),
        ({"tunnel_origin": "http://127.0.0.1:18789"}, ["never to a gateway itself"]),
        ({"tunnel_kind": "named", "tunnel_id": "x"}, ["A named tunnel needs tunnel_id"]),
        ({"tunnel_metrics_port": 8080}, ["tunnel_metrics_port is another port"]),
    ],
    ids=["checksum", "no checksum", "origin", "named", "metrics"],
)
def test_what_cannot_be_meant_changes_nothing(machine: Any, given: dict[str, Any], words: list[str]) -> None:
    before = (hostname(machine), address("gw-a")["url"])
    told = role(given)
    assert told.returncode != 0
    said = " ".join(told.stdout.split())
    assert all(word in said for word in words), told.stdout
    assert set(re.findall(r"changed=(\d+)", said)) == {"0"}, told.stdout
    assert (hostname(machine), address("gw-a")["url"]) == before


@needs_stand_in
def test_a_tunnel_that_does_not_start_is_told_with_its_own_words(machine: Any) -> None:
    machine.check_output("systemd-run --unit=squatter python3 -m http.server 20299 --bind 127.0.0.1")
    until(lambda: "20299" in machine.check_output("ss -ltn"), seconds=10, what="another program on the port")
    before = address("gw-a")["url"]
    try:
        told = role({"tunnel_metrics_port": 20299, "tunnel_registered_timeout": 10})
        assert told.returncode != 0
        assert "address already in use" in " ".join(told.stdout.split())
    finally:
        machine.check_output("systemctl stop squatter")
        assert role({}).returncode == 0
    known_everywhere(machine, 60)
    assert before != address("gw-a")["url"]


@needs_stand_in
def test_a_tunnel_of_ones_own(machine: Any, rows: dict[str, dict[str, Any]]) -> None:
    """One with a name, an address of its own for each gateway, and DNS that leads there."""
    tunnel_id, secret = str(uuid.uuid4()), secrets.token_urlsafe(32)
    given = {
        "tunnel_kind": "named",
        "tunnel_id": tunnel_id,
        "tunnel_credentials": {"AccountTag": "a", "TunnelID": tunnel_id, "TunnelSecret": secret},
        "tunnel_hostname": "{{ inventory_hostname }}.tunnel.test",
        "tunnel_registered_timeout": 10,
        "tunnel_dns_zone_id": "a-zone",
        "tunnel_dns_token": "a-token-of-cloudflare",
        "tunnel_dns_api_url": f"http://{hosts.address_of(BENCH, 'edge')}:8081/client/v4",
    }
    quick = hostname(machine)
    before = {gateway: address(gateway)["url"] for gateway in GATEWAYS}
    try:
        # The edge does not know its secret.
        told = role(given)
        said = " ".join(told.stdout.split())
        assert told.returncode != 0
        assert "Invalid tunnel secret" in said and "The one before runs again" in said
        assert hostname(machine) != quick
        assert all(host.endswith(f"/{gateway}") for gateway, host in before.items())

        tunnel.ask(BENCH, "PUT", "/tunnels", {tunnel_id: secret})
        told = role(given)
        assert told.returncode == 0, told.stdout
        wanted = {gateway: f"https://{gateway}.tunnel.test/{gateway}" for gateway in GATEWAYS}
        until(
            lambda: {gateway: address(gateway)["url"] for gateway in GATEWAYS} == wanted,
            seconds=HEALED_SECONDS,
            what="Django's knowing the names",
            hint=status(machine),
        )
        assert asking.turn(BENCH, COACH_LIST, next(iter(rows.values())), "hello")
        records = tunnel.ask(BENCH, "GET", "/client/v4/zones/a-zone/dns_records?name=gw-a.tunnel.test")[
            "result"
        ]
        assert [record["content"] for record in records] == [f"{tunnel_id}.cfargotunnel.com"]

        again = role(given)
        assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}, again.stdout
        for output in (told.stdout, again.stdout, machine.check_output("cat /proc/*/cmdline | tr '\\0' ' '")):
            assert secret not in output and "a-token-of-cloudflare" not in output
        assert (
            machine.run("grep -r a-token-of-cloudflare /etc /run/claw-tunnel /var/lib/claw /var/log").rc == 1
        )
        assert machine.file(f"/etc/claw-tunnel/{_credentials(machine)}").mode == 0o600
    finally:
        assert role({}).returncode == 0
    known_everywhere(machine, 60)


def _credentials(machine: Any) -> str:
    return str(machine.check_output("cd /etc/claw-tunnel && echo tunnels/*/credentials.json"))


def play(*words: str) -> subprocess.CompletedProcess[str]:
    """A play with the scenario's inventories."""
    inventories = [ROOT / "inventories/demo/hosts.yml", STATE / "inventory"]
    return subprocess.run(
        ["ansible-playbook", *(f"--inventory={place}" for place in inventories), *words],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )


def role(given: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """The role alone."""
    tasks = [{"ansible.builtin.include_role": {"name": "claw.fleet.tunnel"}}]
    place = STATE / "tunnel-alone.yml"
    place.write_text(
        json.dumps([{"hosts": "gateways", "become": True, "gather_subset": ["min"], "tasks": tasks}])
    )
    return play(str(place), "--extra-vars", json.dumps(given))
