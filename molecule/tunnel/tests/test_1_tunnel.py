"""Gateways that are reached through a tunnel, while it comes and goes."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import re
import secrets
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from clawbench import asking, hosts, tunnel
from clawbench.coachlist import API
from clawbench.inventory import MACHINE
from clawbench.shell import until
from tunnels import (
    BENCH,
    COACH_LIST,
    GATEWAYS,
    HEALED_SECONDS,
    STATE,
    TUNNEL,
    WATCHER,
    Questions,
    address,
    changes,
    edge_fails,
    forget,
    hostname,
    internal,
    known_everywhere,
    needs_stand_in,
    needs_time,
    nothing_left,
    play,
    registered,
    role,
    status,
)


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
    base = f"{COACH_LIST.url}{API}/internal"
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
        "import os, ssl, sys, urllib.request, urllib.error\n"
        "context, own = ssl.create_default_context(), '/etc/claw-tunnel/ca.pem'\n"
        "if os.path.exists(own): context.load_verify_locations(own)\n"
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


@needs_stand_in
def test_a_name_that_is_not_known_yet_is_proven_without_being_looked_up(machine: Any) -> None:
    """Its resolver would remember for half an hour that there is none; here it leads the name, whichever it is, astray."""
    aside = "cp /etc/hosts /run/hosts-before; python3 -c %s >>/etc/hosts"
    machine.check_output(aside, f"print(*('127.0.0.9 ' + name for name in {tunnel.NAMES!r}), sep=chr(10))")
    try:
        former = hostname(machine)
        machine.check_output("systemctl restart %s", TUNNEL)
        assert known_everywhere(machine) != former
    finally:
        machine.check_output("cat /run/hosts-before >/etc/hosts")


def test_a_gateway_is_not_told_what_its_token_leads_to(machine: Any) -> None:
    """One that was taken over has a link to another's in the place of its own."""
    place = "/run/claw-tunnel-tokens"
    machine.check_output(
        "cd /var/lib/claw/gw-a && mv token token.mine && ln -s /var/lib/claw/gw-b/token token && systemctl restart %s",
        WATCHER,
    )
    try:
        assert machine.check_output("ls %s", place) == "gw-b"
        assert machine.file(place).mode == 0o750 and machine.file(f"{place}/gw-b").mode == 0o640
    finally:
        machine.check_output("cd /var/lib/claw/gw-a && mv token.mine token && systemctl restart %s", WATCHER)
    known_everywhere(machine, 60)


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
    # Of two addresses that it could not be told of it is told of the newer one.
    for _each in range(2):
        machine.check_output("systemctl restart %s", TUNNEL)
        time.sleep(30)
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
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("http://one.tunnel.test", "is not https"),
        ("10.0.0.7", "an address and no name"),
        ("gateways.internal", "no name that is reached from outside"),
    ],
)
def test_an_address_that_is_none_for_the_public_is_never_told(machine: Any, name: str, words: str) -> None:
    before = {gateway: address(gateway)["url"] for gateway in GATEWAYS}
    with edge_fails(name=name):
        machine.check_output("systemctl restart %s", TUNNEL)
        until(lambda: words in status(machine), seconds=20, what="the watcher's word of it")
        assert {gateway: address(gateway)["url"] for gateway in GATEWAYS} == before
    machine.check_output("systemctl restart %s", TUNNEL)
    known_everywhere(machine)


def test_the_module_tells_it_where_nobody_watches(machine: Any) -> None:
    """As provisioning does; before, it says what it would tell."""
    name = known_everywhere(machine)
    machine.check_output("systemctl stop %s", WATCHER)
    try:
        forget()
        words = ["playbooks/provision-coach.yml", "--limit", "gw-a", "--diff"]
        for more in (["--check"], []):
            assert address("gw-a")["url"] == "https://former.tunnel.test/gw-a"
            told = play(*words, *more)
            assert told.returncode == 0, told.stdout
            assert "https://former.tunnel.test/gw-a" in told.stdout and f"https://{name}/gw-a" in told.stdout
        assert address("gw-a")["url"] == f"https://{name}/gw-a"
        told = play(*words)
        assert changes(told.stdout) == {"0"}, told.stdout
        nothing_left(machine)
    finally:
        machine.check_output("systemctl start %s", WATCHER)
    known_everywhere(machine)


@needs_time
@needs_stand_in
def test_who_stands_before_the_tunnel_lets_the_watcher_through_with_his_headers(machine: Any) -> None:
    headers = {"CF-Access-Client-Id": "the-watcher.access", "CF-Access-Client-Secret": secrets.token_hex(16)}
    try:
        with edge_fails(access=headers):
            machine.check_output("systemctl restart %s", TUNNEL)
            until(
                lambda: "something stands before the tunnel" in status(machine),
                seconds=30,
                what="the watcher's word of it",
            )
            told = role({"tunnel_access": headers})
            assert told.returncode == 0, told.stdout
            known_everywhere(machine)
            assert headers["CF-Access-Client-Secret"] not in told.stdout
            assert machine.file("/etc/claw-tunnel/access.json").mode == 0o600
    finally:
        assert role({}).returncode == 0
    known_everywhere(machine)


@needs_time
def test_the_watcher_goes_by_the_proxy_that_it_is_given(machine: Any) -> None:
    # Where nobody listens, so that whoever goes by it comes nowhere.
    environment = {"HTTPS_PROXY": "http://127.0.0.1:9"}
    try:
        told = role({"tunnel_environment": environment})
        assert told.returncode == 0, told.stdout
        until(lambda: "refused" in status(machine), seconds=60, what="the watcher's word of it")
    finally:
        assert role({}).returncode == 0
    known_everywhere(machine)


def test_a_token_that_somebody_revoked_is_told_and_replaced_by_the_role(machine: Any) -> None:
    former = machine.check_output("cat /etc/claw-tunnel/token")
    digest = hashlib.sha256(former.strip().encode()).hexdigest()
    internal("DELETE", f"service-tokens/{digest}/").raise_for_status()
    machine.check_output("systemctl restart %s", TUNNEL)
    until(
        lambda: "does not take this machine's token" in status(machine),
        seconds=30,
        what="the watcher's word of it",
    )
    told = role({})
    assert told.returncode == 0, told.stdout
    assert machine.check_output("cat /etc/claw-tunnel/token") != former
    known_everywhere(machine)


@needs_time
@needs_stand_in
def test_a_gateway_that_has_lost_its_token_keeps_no_other_from_the_app(machine: Any) -> None:
    lost = "/var/lib/claw/gw-b/token"
    machine.check_output(f"mv {lost} {lost}.away")
    try:
        machine.check_output("systemctl restart %s %s", TUNNEL, WATCHER)
        wanted = f"https://{hostname(machine)}/gw-a"
        until(
            lambda: address("gw-a")["url"] == wanted,
            seconds=30,
            what="Django's knowing gw-a",
            hint=status(machine),
        )
        assert "gw-b: " in status(machine)
    finally:
        machine.check_output(f"mv {lost}.away {lost}")
        machine.check_output("systemctl restart %s", WATCHER)
    known_everywhere(machine)


@needs_stand_in
def test_a_token_that_was_changed_is_read_anew(machine: Any) -> None:
    """As a rotation does: the gateway takes the new one, the watcher was started with the one before."""
    told = play("playbooks/rotate-gateway-token.yml", "--limit", "gw-a")
    assert told.returncode == 0, told.stdout
    machine.check_output("systemctl restart %s", TUNNEL)
    known_everywhere(machine, 60)


def test_ten_restarts_in_a_row_end_on_the_last_address(machine: Any) -> None:
    log, before = STATE / "gunicorn.log", f'"PUT {API}/internal/gateways/gw-a/address/'
    told = log.read_text().count(before)
    for _each in range(10):
        machine.check_output("systemctl restart %s", TUNNEL)
        # Long enough to be seen each time, and to be told.
        time.sleep(2)
    known_everywhere(machine)
    told = log.read_text().count(before) - told
    print(f"the app was told {told} times of ten")
    assert 0 < told < 10, "it is not told of every one"


def test_a_watcher_that_is_killed_at_any_moment_has_it_told_in_the_end(machine: Any) -> None:
    for tenths in range(0, 20, 4):
        machine.check_output("systemctl restart %s", TUNNEL)
        time.sleep(tenths / 10)
        machine.check_output("systemctl kill --signal=KILL %s", WATCHER)
        known_everywhere(machine, HEALED_SECONDS + 5)
    nothing_left(machine)


WATCH = "env CREDENTIALS_DIRECTORY=/run/watch-alone timeout --signal=KILL {seconds} {strace} python3 -I /opt/claw/tunnel/watch.py /etc/claw-tunnel /run/claw-tunnel-tokens"
CALLS = ("connect", "sendto", "write", "unlink")
"""What it changes anything by: what it says to others, and the file of its proof."""


def test_a_watcher_that_is_killed_at_any_call_has_it_told_in_the_end(machine: Any) -> None:
    """All of them with CLAW_SOAK=all, else a few by CLAW_SEED: killed in a pass of its own, then run as it is."""
    machine.check_output("command -v strace || DEBIAN_FRONTEND=noninteractive apt-get install -q -y strace")
    machine.check_output(
        "systemctl stop %s && mkdir -p /run/watch-alone && cd /run/watch-alone && cp /etc/claw-tunnel/token /etc/claw-tunnel/access.json .",
        WATCHER,
    )
    seen = f"strace -f -qq -o /run/watch-alone/calls -e trace={','.join(CALLS)}"
    forget()
    machine.run(WATCH.format(seconds=14, strace=seen))
    called = re.findall(
        r"^(\d+) +(\w+)\(", machine.file("/run/watch-alone/calls").content_string, re.MULTILINE
    )
    # Each of its threads is counted by itself, and the first to come there has all of them killed.
    times = {
        call: max(Counter(thread for thread, what in called if what == call).values(), default=0)
        for call in CALLS
    }
    points = [(call, number + 1) for call in CALLS for number in range(times[call])]
    assert {call for call, _number in points} == set(CALLS)
    seed = os.environ.get("CLAW_SEED", "1")
    if os.environ.get("CLAW_SOAK") != "all":
        points = random.Random(seed).sample(points, 4)  # noqa: S311 - which points, not a secret
    print(f"{len(points)} of {len(called)} points; CLAW_SEED={seed}")
    for call, number in points:
        machine.check_output("systemctl stop %s", WATCHER)
        forget()
        kill = f"strace -f -qq -o /dev/null -e trace={call} -e inject={call}:signal=KILL:when={number}"
        began = time.monotonic()
        assert machine.run(WATCH.format(seconds=60, strace=kill)).rc == 137, (call, number)
        assert time.monotonic() - began < 50, f"it never came to {call} {number}"
        machine.check_output("systemctl start %s", WATCHER)
        known_everywhere(machine)
        nothing_left(machine)


# A question put to the gateway itself, on its own machine: the seconds from the question to each word.
_NEAR = """
import json, sys, time, urllib.request
gateway, port, agent, text = sys.argv[1:]
token = open(f"/var/lib/claw/{gateway}/token").read().strip()
headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "x-openclaw-agent-id": agent}
body = json.dumps({"model": "openclaw", "input": text, "stream": True}).encode()
asked, words = time.monotonic(), []
request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/responses", body, headers)
for line in urllib.request.urlopen(request, timeout=120):
    if line.startswith(b"data:") and b'"response.output_text.delta"' in line:
        words.append(time.monotonic() - asked)
print(json.dumps(words))
"""


def test_long_answers_come_as_they_are_made(
    machine: Any, rows: dict[str, dict[str, Any]], keys: dict[str, str]
) -> None:
    """Of a minute's answer, a word a second, on both sides: at the gateway, and through tunnel and proxy in the app."""
    known_everywhere(machine)
    gateway, port = "gw-a", "18789"
    one, other = [agent for agent in sorted(rows) if rows[agent]["gateway"] == gateway][:2]
    for agent in (one, other):
        assert asking.turn(BENCH, COACH_LIST, rows[agent], "hello"), "each has had her first turn"
    with ThreadPoolExecutor() as pool:
        beside = pool.submit(
            machine.check_output, "python3 -c %s %s %s %s %s", _NEAR, gateway, port, other, "slow:60"
        )
        far: list[float] = []
        told: list[str] = []
        asked = time.monotonic()
        with (
            httpx.Client(trust_env=False, timeout=120) as client,
            client.stream(
                "POST",
                f"{COACH_LIST.url}{API}/ask/",
                headers={"Authorization": f"Bearer {keys[one]}"},
                json={"input": "slow:60"},
            ) as answer,
        ):
            for line in answer.iter_lines():
                told.append(line)
                if asking.event_of(line).get("type") == "response.output_text.delta":
                    far.append(time.monotonic() - asked)
        near = json.loads(beside.result())
    assert near and far, "\n".join(told[-10:])
    for side, words in (("at the gateway", near), ("in the app", far)):
        pause = max(later - earlier for earlier, later in itertools.pairwise(words))
        print(
            f"{side}: the first of {len(words)} words after {words[0]:.2f} s, the longest pause {pause:.2f} s"
        )
        assert words[-1] - words[0] >= 50
        assert pause < 5, "held back on the way"
    assert far[0] - near[0] < 5, "held back at its beginning"


def test_after_a_reboot_the_app_is_told(machine: Any) -> None:
    former = hostname(machine)
    # Not `docker restart`: that keeps the root file system which systemd has made read-only at its end.
    subprocess.run(["docker", "stop", "-t", "60", BENCH.container(MACHINE)], check=True, capture_output=True)
    hosts.create(BENCH, [MACHINE], provider=True)
    until(
        lambda: machine.run("systemctl is-active %s %s", TUNNEL, WATCHER).rc == 0,
        seconds=180,
        what="the units",
    )
    # Not before the gateways answer, which have all of the machine to share while it starts.
    assert known_everywhere(machine, 300) != former


def test_from_outside_there_are_ssh_and_the_proxy_alone(seen: dict[str, set[int]]) -> None:
    """The demo's proxy is asked to be there for others; nothing of the tunnel is."""
    assert seen == {"TCP": {22, 8080}, "UDP": set()}
