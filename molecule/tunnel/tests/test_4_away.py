"""A tunnel that is wanted no more, for one of the machine's gateways or for all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from clawbench import tunnel
from clawbench.shell import until
from tunnels import (
    BENCH,
    HEALED_SECONDS,
    TUNNEL,
    WATCHER,
    changes,
    hostname,
    known_everywhere,
    needs_stand_in,
    needs_time,
    play,
    status,
)

pytestmark = [needs_time, needs_stand_in]
LEFT = "ls -d /etc/claw-tunnel /opt/claw/tunnel /opt/claw/cloudflared /run/claw-tunnel* /etc/systemd/system/claw-tunnel* 2>/dev/null"


def site(kind: str, *words: str, **more: Any) -> str:
    """What the play says where each gateway has a tunnel of this kind, by an expression."""
    told = play("playbooks/site.yml", *words, "--extra-vars", json.dumps({"tunnel_kind": kind, **more}))
    assert told.returncode == 0, told.stdout
    return told.stdout


@pytest.fixture(autouse=True)
def _as_before(machine: Any) -> Iterator[None]:
    yield
    site("quick")
    known_everywhere(machine, 120)


@pytest.mark.parametrize(("out", "left"), [("gw-b", "gw-a"), ("gw-a", "gw-b")])
def test_a_gateway_is_taken_out_of_it(machine: Any, out: str, left: str) -> None:
    """Also the one that has done for all what is once on a machine."""
    before, one = hostname(machine), f"{{{{ 'none' if inventory_hostname == '{out}' else 'quick' }}}}"
    assert changes(site(one)) != {"0"}
    assert hostname(machine) == before, "the tunnel goes on"
    assert machine.check_output("ls /run/credentials/%s", WATCHER).split() == ["access.json", "token"]
    assert machine.check_output("ls /run/claw-tunnel-tokens").split() == [left]
    assert machine.check_output("ls /etc/claw-tunnel/gateways.d").split() == [f"{left}.json"]
    until(
        lambda: bool(re.fullmatch(rf"The app reaches {left} at https://\S+", status(machine))),
        seconds=HEALED_SECONDS,
        what="the watcher to look after one alone",
        hint=status(machine),
    )
    for words in ((), ("--check",)):
        assert changes(site(one, *words)) == {"0"}
    # What is once on the machine is done by who is left.
    site(one, tunnel_registered_timeout=70)
    assert machine.check_output("systemctl show -P TimeoutStartUSec %s", TUNNEL) == "1min 10s"


def test_where_nobody_has_one_there_is_none(machine: Any) -> None:
    before = hostname(machine)
    assert changes(site("none", "--check")) != {"0"}
    assert hostname(machine) == before
    site("none")
    assert before not in tunnel.ask(BENCH)["registered"]
    assert machine.run(LEFT).stdout == ""
    assert machine.run("pgrep cloudflared").rc != 0
    for unit in (TUNNEL, WATCHER):
        assert machine.check_output("systemctl show -P LoadState %s", unit) == "not-found"
    for words in ((), ("--check",)):
        assert changes(site("none", *words)) == {"0"}
