"""The role: what cannot be meant, what does not come up, and a tunnel of one's own."""

from __future__ import annotations

import json
import secrets
import uuid
from typing import Any

import pytest
from clawbench import asking, hosts, tunnel
from clawbench.shell import until
from tunnels import (
    BENCH,
    COACH_LIST,
    GATEWAYS,
    HEALED_SECONDS,
    STATE,
    TUNNEL,
    WATCHER,
    address,
    changes,
    edge_fails,
    hostname,
    known_everywhere,
    needs_stand_in,
    needs_time,
    role,
    status,
)


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
    assert changes(said) == {"0"}, told.stdout
    assert (hostname(machine), address("gw-a")["url"]) == before


@needs_time
@needs_stand_in
def test_a_tunnel_that_does_not_start_is_told_with_its_own_words(machine: Any) -> None:
    machine.check_output("systemd-run --unit=squatter python3 -m http.server 20299 --bind 127.0.0.1")
    until(lambda: "20299" in machine.check_output("ss -ltn"), seconds=10, what="another program on the port")
    before = address("gw-a")["url"]
    try:
        told = role({"tunnel_metrics_port": 20299, "tunnel_registered_timeout": 10})
        assert told.returncode != 0
        assert "address already in use" in " ".join(told.stdout.split()), told.stdout
    finally:
        machine.check_output("systemctl stop squatter")
        assert role({}).returncode == 0
    known_everywhere(machine, 60)
    assert before != address("gw-a")["url"]


@needs_time
@needs_stand_in
def test_an_edge_that_is_away_leaves_what_the_watcher_knows(machine: Any) -> None:
    known = "cat /etc/claw-tunnel/tunnel.json /etc/claw-tunnel/gateways.d/* /etc/systemd/system/claw-tunnel*.service"
    before, url = machine.check_output(known), address("gw-a")["url"]
    with edge_fails(registers="never"):
        told = role({"tunnel_metrics_port": 20298, "tunnel_registered_timeout": 8})
        said = " ".join(told.stdout.split())
        assert told.returncode != 0 and "The one before does not come up either." in said, told.stdout
        assert machine.check_output(known) == before
        assert address("gw-a")["url"] == url
    machine.check_output("systemctl restart %s", WATCHER)
    known_everywhere(machine, 120)


@needs_time
@needs_stand_in
def test_cloudflared_comes_from_a_mirror(machine: Any) -> None:
    """By its URL: another version is fetched by its checksum, and one with another checksum is not taken."""
    place = machine.check_output("dirname /opt/claw/cloudflared/*/cloudflared")
    machine.check_output(
        "systemd-run --unit=mirror python3 -m http.server 20300 --bind 127.0.0.1 --directory %s", place
    )
    checksum = machine.check_output("sha256sum %s/cloudflared", place).split()[0]
    given = {
        "tunnel_cloudflared_file": "",
        "tunnel_cloudflared_url": "http://127.0.0.1:20300/cloudflared",
        "tunnel_cloudflared_version": "2026.9.4",
    }
    try:
        predicted = role(given, "--check")
        assert predicted.returncode == 0, predicted.stdout
        wrong = {"tunnel_cloudflared_checksums": {"amd64": "0" * 64, "arm64": "0" * 64}}
        told = role({**given, **wrong})
        assert told.returncode != 0 and "did not match" in " ".join(told.stdout.split()), told.stdout
        right = {"tunnel_cloudflared_checksums": {"amd64": checksum, "arm64": checksum}}
        told = role({**given, **right})
        assert told.returncode == 0, told.stdout
        assert "2026.9.4-" in machine.check_output("systemctl show -P ExecStart claw-tunnel")
        for words in ((), ("--check",)):
            again = role({**given, **right}, *words)
            assert changes(again.stdout) == {"0"}, again.stdout
    finally:
        machine.check_output("systemctl stop mirror")
        assert role({}).returncode == 0
    known_everywhere(machine, 60)


@needs_time
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
        assert machine.run("ls /etc/claw-tunnel/tunnels/*/credentials.json").rc != 0
        assert all(host.endswith(f"/{gateway}") for gateway, host in before.items())
        # Nobody is led to it, and the watcher goes on with what there is, also when it is started anew.
        records = "/client/v4/zones/a-zone/dns_records"
        named = f"{records}?name=gw-a.tunnel.test"
        assert tunnel.ask(BENCH, "GET", named)["result"] == []
        machine.check_output("systemctl restart %s", WATCHER)
        known_everywhere(machine, 60)

        tunnel.ask(BENCH, "PUT", "/tunnels", {tunnel_id: secret})
        with edge_fails(dns="refused"):
            told = role(given)
            said = " ".join(told.stdout.split())
            assert told.returncode != 0 and "it answers 403 (Authentication error)" in said, told.stdout
            assert "a-token-of-cloudflare" not in told.stdout and changes(said) == {"0"}
        nowhere = {**given, "tunnel_dns_api_url": "http://127.0.0.1:1/client/v4"}
        told = role(nowhere)
        said = " ".join(told.stdout.split())
        assert told.returncode != 0 and "it cannot be reached" in said and changes(said) == {"0"}, told.stdout
        # The tunnel is the one that it was.
        known_everywhere(machine)
        theirs = {"type": "CNAME", "name": "gw-a.tunnel.test", "content": "somebody.example.com"}
        theirs = tunnel.ask(BENCH, "POST", records, theirs)["result"]
        told = role(given)
        said = " ".join(told.stdout.split())
        assert told.returncode != 0 and "has CNAME somebody.example.com, which is not the fleet's" in said
        assert changes(said) == {"0"} and tunnel.ask(BENCH, "GET", named)["result"] == [theirs]
        known_everywhere(machine)
        tunnel.ask(BENCH, "DELETE", f"{records}/{theirs['id']}")
        # A tunnel of somebody else's, which may be at work.
        theirs = {"type": "CNAME", "name": "gw-a.tunnel.test", "content": f"{uuid.uuid4()}.cfargotunnel.com"}
        theirs = tunnel.ask(BENCH, "POST", records, theirs)["result"]
        told = role(given)
        assert (
            told.returncode != 0 and "tunnel_dns_overwrite" in told.stdout and changes(told.stdout) == {"0"}
        )
        told = role({**given, "tunnel_dns_overwrite": True})
        assert told.returncode == 0, told.stdout
        wanted = {gateway: f"https://{gateway}.tunnel.test/{gateway}" for gateway in GATEWAYS}
        until(
            lambda: {gateway: address(gateway)["url"] for gateway in GATEWAYS} == wanted,
            seconds=HEALED_SECONDS,
            what="Django's knowing the names",
            hint=status(machine),
        )
        assert asking.turn(BENCH, COACH_LIST, next(iter(rows.values())), "hello")
        found = tunnel.ask(BENCH, "GET", named)["result"]
        assert [record["content"] for record in found] == [f"{tunnel_id}.cfargotunnel.com"]

        predicted = role(given, "--check")
        assert changes(predicted.stdout) == {"0"}, predicted.stdout
        again = role(given)
        assert changes(again.stdout) == {"0"}, again.stdout
        for output in (told.stdout, again.stdout, machine.check_output("cat /proc/*/cmdline | tr '\\0' ' '")):
            assert secret not in output and "a-token-of-cloudflare" not in output
        assert (
            machine.run("grep -r a-token-of-cloudflare /etc /run/claw-tunnel /var/lib/claw /var/log").rc == 1
        )
        assert machine.file(f"/etc/claw-tunnel/{_credentials(machine)}").mode == 0o600

        # All of them by one name, which nobody had before.
        given["tunnel_hostname"] = "gateways.tunnel.test"
        told = role(given)
        assert told.returncode == 0, told.stdout
        wanted = {gateway: f"https://gateways.tunnel.test/{gateway}" for gateway in GATEWAYS}
        until(
            lambda: {gateway: address(gateway)["url"] for gateway in GATEWAYS} == wanted,
            seconds=HEALED_SECONDS,
            what="Django's knowing the one name",
            hint=status(machine),
        )
        for row in rows.values():
            assert asking.turn(BENCH, COACH_LIST, row, "hello")
        found = tunnel.ask(BENCH, "GET", f"{records}?name=gateways.tunnel.test")["result"]
        assert [record["content"] for record in found] == [f"{tunnel_id}.cfargotunnel.com"]
        again = role(given)
        assert changes(again.stdout) == {"0"}, again.stdout

        # By a name those are reached that have it; whoever is left out of a run is not cut off by it.
        elsewhere = given | {"tunnel_hostname": "{{ inventory_hostname }}.tunnel.test"}
        told = role(elsewhere, "--limit", "gw-a")
        said = " ".join(told.stdout.split())
        assert told.returncode != 0 and "gw-b of" in said and "would be cut off" in said, told.stdout
        assert changes(said) == {"0"}
        assert role(elsewhere).returncode == 0
        assert [_through(machine, "gw-a", path) for path in GATEWAYS] == [400, 404]
    finally:
        assert role({}).returncode == 0
    known_everywhere(machine, 60)


def _through(machine: Any, name: str, gateway: str) -> int:
    """What is said at a gateway's path to whoever names no agent, by the name of a tunnel of one's own."""
    code = (
        "import ssl, sys, urllib.error, urllib.request\n"
        "context = ssl.create_default_context(cafile='/etc/claw-tunnel/ca.pem')\n"
        "asked = urllib.request.Request(sys.argv[1], b'{}', {'Content-Type': 'application/json'})\n"
        "try: print(urllib.request.urlopen(asked, context=context, timeout=30).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)\n"
    )
    url = f"https://{name}.tunnel.test/{gateway}/v1/responses"
    return int(machine.check_output("python3 -c %s %s", code, url))


@needs_stand_in
def test_a_tunnel_that_is_starting_does_not_pass_for_one_that_runs(machine: Any) -> None:
    """As a run that was cut short leaves it."""
    known = "cat /etc/claw-tunnel/working.service /etc/claw-tunnel/tunnel.json"
    before = machine.check_output(known)
    with edge_fails(registers="never"):
        machine.check_output("systemctl restart --no-block %s", TUNNEL)
        until(
            lambda: machine.check_output("systemctl show -P ActiveState %s", TUNNEL) == "activating",
            seconds=30,
            what="a tunnel that is not registered",
        )
        told = role({"tunnel_registered_timeout": 8})
        assert told.returncode != 0 and "The tunnel does not come up" in " ".join(told.stdout.split())
        assert machine.check_output(known) == before
    assert role({}).returncode == 0
    known_everywhere(machine, 120)


@needs_time
def test_a_gateway_that_moved_to_another_machine_is_watched_there_alone(machine: Any) -> None:
    """By both watchers the app would be told otherwise, again and again."""
    moved = "/etc/claw-tunnel/gateways.d/gw-moved.json"
    machine.check_output('printf \'{"hostname": ""}\' >%s', moved)
    place = STATE / "moved.json"
    place.write_text(json.dumps({"all": {"hosts": {"gw-moved": {"ansible_host": "192.0.2.1"}}}}))
    for words, changed in ((("--check",), True), ((), True), ((), False)):
        told = role({}, "--inventory", str(place), *words)
        assert told.returncode == 0 and (changes(told.stdout) != {"0"}) is changed, told.stdout
        assert machine.file(moved).exists is ("--check" in words)
    known_everywhere(machine)


@needs_stand_in
@pytest.mark.parametrize("shared", ["tunnel_id", "tunnel_hostname"])
def test_a_tunnel_of_another_machine_is_refused(machine: Any, shared: str) -> None:
    """Requests would come to whichever of the two machines Cloudflare takes."""
    mine, theirs = (
        {"tunnel_id": str(uuid.uuid4()), "tunnel_hostname": f"{name}.tunnel.test"} for name in ("one", "two")
    )
    theirs |= {"tunnel_kind": "named", "ansible_host": "192.0.2.1", shared: mine[shared]}
    place = STATE / "another.json"
    place.write_text(json.dumps({"all": {"hosts": {"gw-elsewhere": theirs}}}))
    before = address("gw-a")["url"]
    given = {
        "tunnel_kind": "named",
        "tunnel_credentials": {"TunnelID": mine["tunnel_id"], "TunnelSecret": "x"},
    }
    # As a host's own, which those of another are compared with.
    group = {"gateways": {"hosts": dict.fromkeys(GATEWAYS, mine)}}
    own = STATE / "own.json"
    own.write_text(json.dumps({"all": {"children": group}}))
    told = role(given, "--inventory", str(own), "--inventory", str(place))
    said = " ".join(told.stdout.split())
    assert told.returncode != 0 and f"so has gw-elsewhere ({shared})" in said, told.stdout
    assert changes(said) == {"0"}
    assert (hostname(machine) in address("gw-a")["url"], address("gw-a")["url"]) == (True, before)


def _credentials(machine: Any) -> str:
    return str(machine.check_output("cd /etc/claw-tunnel && echo tunnels/*/credentials.json"))
