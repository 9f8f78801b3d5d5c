"""The scenario's machine behind its tunnel: what is asked of the app, the edge and cloudflared, and who asks all the time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from clawbench import tunnel
from clawbench.coachlist import API, CoachList
from clawbench.hosts import Bench
from clawbench.inventory import MACHINE
from clawbench.plays import ROOT, Plays
from clawbench.shell import until

STATE = Path(os.environ["CLAW_DEMO_STATE"])
BENCH = Bench.of(STATE)
COACH_LIST = CoachList(STATE)
PLAYS = Plays([ROOT / "inventories/demo/hosts.yml", STATE / "inventory"])
GATEWAYS = ("gw-a", "gw-b")
WATCHER, TUNNEL = "claw-tunnel-watch.service", "claw-tunnel.service"
HEALED_SECONDS = 15
"""Within which of a tunnel's registration the app has its address, and answers come again."""
AT_ONCE = 6
"""As many questions may wait for their answers."""
STAND_IN = not os.environ.get("CLAW_CLOUDFLARED")
needs_time = pytest.mark.skipif(
    os.environ.get("CLAW_TUNNEL") != "whole", reason="takes its time; run by make tunnel"
)
needs_stand_in = pytest.mark.skipif(not STAND_IN, reason="needs an edge that can be told to fail")


def internal(method: str, path: str, **more: Any) -> httpx.Response:
    """Ask Django with the fleet's own token."""
    with httpx.Client(trust_env=False, timeout=20) as client:
        return client.request(
            method,
            f"{COACH_LIST.url}{API}/internal/{path}",
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
    """When the edge took it; 0 where it does not know it. A real one tells nobody: it is when cloudflared was ready."""
    if not STAND_IN:
        return float(
            BENCH.ssh(MACHINE, "systemctl", "show", "-P", "ActiveEnterTimestamp", "--timestamp=unix", TUNNEL)
            .strip()
            .lstrip("@")
        )
    return float(tunnel.ask(BENCH)["registered"].get(name, 0))


def status(machine: Any, unit: str = WATCHER) -> str:
    """The one sentence."""
    return str(machine.check_output("systemctl show -P StatusText %s", unit))


@contextmanager
def edge_fails(**faults: Any) -> Iterator[None]:
    """With an edge that does these things."""
    tunnel.ask(BENCH, "PUT", body=faults)
    try:
        yield
    finally:
        tunnel.ask(BENCH, "PUT", body={})


def known_everywhere(machine: Any, seconds: float = HEALED_SECONDS) -> str:
    """Wait until Django has the tunnel's present name for every gateway; that name."""
    until(
        lambda: machine.run("python3 -c %s", _QUICK_TUNNEL).rc == 0,
        seconds=60,
        what="cloudflared's answer",
        hint="Look at it with: journalctl -u claw-tunnel",
    )
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
                    f"{COACH_LIST.url}{API}/ask/",
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


def play(*words: str) -> subprocess.CompletedProcess[str]:
    """A play with the scenario's inventories."""
    return PLAYS.run(*words)


def changes(said: str) -> set[str]:
    """How many changes a play tells of, of each of its hosts."""
    return set(re.findall(r"changed=(\d+)", said))


def role(given: dict[str, Any], *words: str) -> subprocess.CompletedProcess[str]:
    """The role alone."""
    tasks = [{"ansible.builtin.include_role": {"name": "claw.fleet.tunnel"}}]
    place = STATE / "tunnel-alone.yml"
    place.write_text(
        json.dumps([{"hosts": "gateways", "become": True, "gather_subset": ["min"], "tasks": tasks}])
    )
    return play(str(place), *words, "--extra-vars", json.dumps(given))
