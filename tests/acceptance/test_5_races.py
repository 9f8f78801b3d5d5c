"""Several writers at once: two controllers, the gateway itself, a person at its command line, people in the admin."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from clawbench.coachlist import API

from .faults import Behind
from .fleet import Fleet, until

ROUNDS = 50 if os.environ.get("CLAW_SOAK") else 5
BY_HAND = {
    2: "config set ui.prefs.themeMode dark",
    3: "plugins registry --refresh",
    4: "plugins reload memory-core",
}
"""What a person says at OpenClaw's command line in a round: its config, and what its plugins keep beside it."""
REFUSALS = ("so nothing was changed. Re-run", "config identity changed while")
"""How OpenClaw's command line says that the config changed under its hands: in the command, and before it begins."""
GATEWAY = "gw-a"
SECONDS_BETWEEN_PATCHES = 2.1
"""The gateway takes 30 a minute."""


class Patcher:
    """Changes a setting of the gateway's own config by its admin call, over and over, as its own parts do."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.taken = 0
        self.colors: set[str] = set()
        """What the setting may be: as it was taken last, or in a later patch that was written, and its reload superseded."""
        self.strange: list[Any] = []
        self._ended = threading.Event()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Patch until the block is left."""
        self._ended.clear()
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(self._work)
            try:
                yield
            finally:
                self._ended.set()
                work.result()

    def wait_taken(self, before: int) -> None:
        """Wait until one more was taken than these."""
        until("a patch to be taken", lambda: self.taken > before)

    def _work(self) -> None:
        while not self._ended.is_set():
            self.patch({"ui": {"seamColor": f"#{self.taken + 1:06X}"}})
            self._ended.wait(SECONDS_BETWEEN_PATCHES)

    def patch(self, change: dict[str, Any]) -> None:
        """One patch; refused where somebody else was faster, and then the next one is tried."""
        base = self.fleet.config(GATEWAY)["hash"]
        answer = self.fleet.call(GATEWAY, "config.patch", raw=json.dumps(change), baseHash=base)
        color = (change.get("ui") or {}).get("seamColor", "")
        if answer.get("ok"):
            self.taken += 1
            self.colors = {color}
        elif "superseded" in json.dumps(answer):
            # It was written, and another change came before it was applied.
            self.colors.add(color)
        elif "changed since last load" not in json.dumps(answer):
            self.strange.append(answer)


def rename(fleet: Fleet, agent_id: str, name: str) -> None:
    """Give a coach another name, as the admin's form does."""
    fleet.orm(
        f"coach = CompanionProfile.objects.get(agent_id={agent_id!r}); coach.name = {name!r}; "
        "coach.generation += 1; coach.save()"
    )


def say_by_hand(fleet: Fleet, words: str) -> None:
    """`openclaw` as a person calls it on the machine: as the gateway's user, in its environment.

    It refuses where the config changed under its hands, and says to say it again.
    """
    described = json.loads(fleet.sh(f"cat /etc/claw/{GATEWAY}/gateway.json"))
    environment = fleet.sh(f"systemctl show -P Environment {described['unit']}").strip()
    command = f"cd {described['state_dir']} && env {environment} {described['node']} {described['entry']}"

    def taken() -> bool:
        done = fleet.machine.run("runuser -u %s -- sh -c %s", described["user"], f"{command} {words}")
        assert done.rc == 0 or any(refusal in done.stderr for refusal in REFUSALS), done.stderr
        return bool(done.rc == 0)

    until("the command line to be let in", taken, 300)


@pytest.fixture
def two(fleet: Fleet) -> Iterator[tuple[str, str]]:
    """A coach who is renamed and one who comes and goes, both on one gateway."""
    ids = ("coach-rosa", "coach-sven")
    with fleet.admin() as admin:
        for agent_id in ids:
            admin.add(agent_id, agent_id.removeprefix("coach-").title())
    for agent_id in ids:
        fleet.orm(
            f"CompanionProfile.objects.filter(agent_id={agent_id!r})"
            f".update(gateway=Gateway.objects.get(name={GATEWAY!r}))"
        )
    play = fleet.provision(None, "--limit", GATEWAY)
    assert play.rc == 0, play.output
    yield ids
    with fleet.admin() as admin:
        admin.act("remove", *(fleet.row(agent_id)["pk"] for agent_id in ids))
    assert fleet.provision(None, "--limit", GATEWAY).rc == 0


def test_two_runs_at_once_and_the_gateways_own_writes_lose_nothing(
    fleet: Fleet, two: tuple[str, str]
) -> None:
    renamed, sometimes = two
    pid, pk = fleet.pid(GATEWAY), fleet.row(sometimes)["pk"]
    patcher = Patcher(fleet)
    others = fleet.served(GATEWAY).keys() - set(two)
    with fleet.admin() as admin, ThreadPoolExecutor(3) as pool:
        for number in range(1, ROUNDS + 1):
            rename(fleet, renamed, f"Rosa {number}")
            admin.act("pause" if number % 2 else "resume", pk)
            before = patcher.taken
            # Whoever writes every two seconds leaves no room for a person, whose command takes longer than that.
            by_hand = BY_HAND.get(number)
            with nullcontext() if by_hand else patcher.at_work():
                runs = [pool.submit(fleet.provision, None, "--limit", GATEWAY) for _ in range(2)]
                if by_hand:
                    say_by_hand(fleet, by_hand)
                for run in runs:
                    assert run.result().rc == 0, run.result().output
                if not by_hand:
                    patcher.wait_taken(before)
            served = fleet.served(GATEWAY)
            assert served[renamed]["name"] == f"Rosa {number}"
            assert served.keys() == others | {renamed, *([] if number % 2 else [sometimes])}
            assert [fleet.row(agent_id)["status"] for agent_id in two] == [
                "active",
                "paused" if number % 2 else "active",
            ]
            ui = fleet.config(GATEWAY)["sourceConfig"]["ui"]
            assert ui["seamColor"] in patcher.colors
            assert (ui.get("prefs") == {"themeMode": "dark"}) is (number >= min(BY_HAND))
    assert patcher.strange == []
    assert fleet.pid(GATEWAY) == pid
    again = fleet.provision(None, "--limit", GATEWAY)
    assert (again.rc, again.changed) == (0, []), again.output
    # What the gateway and the person wrote is theirs: the fleet's own config does not take it for a difference.
    site = fleet.play("playbooks/site.yml", "--check", "--limit", GATEWAY)
    assert (site.rc, site.changed) == (0, []), site.output
    patcher.patch({"ui": None})
    assert patcher.strange == []


def test_a_coach_who_is_paused_in_the_middle_ends_paused(fleet: Fleet, faulty: Behind) -> None:
    """At the claim, at the registration of her key, in her first turn, and before the outcome is written."""
    ids = ("coach-mia", "coach-nele", "coach-olga", "coach-pia")
    mia, nele, olga, pia = ids
    heard = fleet.heard_until_now()
    with fleet.admin() as admin, ThreadPoolExecutor(1) as pool:
        for agent_id in ids:
            admin.add(agent_id, agent_id.removeprefix("coach-").title())
        pks = {agent_id: fleet.row(agent_id)["pk"] for agent_id in ids}
        server = faulty.server
        with (
            server.gate(f"POST .*/{pks[mia]}/claim/") as claim,
            server.gate(f"POST .*/set-key/{nele}/") as key,
            server.gate(f'PATCH .*/{pks[pia]}/status/ .*"active"') as outcome,
        ):
            run = pool.submit(
                fleet.provision,
                inventory=faulty.inventory,
                coaches_api_url=f"{server.url}{API}/",
                coaches_activation_text="slow:5",
            )
            claim.wait()
            admin.act("pause", pks[mia])
            claim.opened.set()
            key.wait()
            admin.act("pause", pks[nele])
            key.opened.set()
            until(
                "the first turn",
                lambda: [
                    one for one in fleet.heard("slow:5", after=heard) if "companion of Olga" in one["system"]
                ],
                180,
            )
            admin.act("pause", pks[olga])
            outcome.wait()
            admin.act("pause", pks[pia])
        play = run.result()
        assert play.rc == 0, play.output
        rows = fleet.rows()
        assert rows[mia]["status"] == "paused", "she had not begun yet"
        for agent_id in (nele, olga, pia):
            row = rows[agent_id]
            assert row["wanted"] == "paused"
            assert row["observed_generation"] < row["generation"], "nobody says that her pause was seen"
        play = fleet.provision()
        assert play.rc == 0, play.output
        for agent_id, row in fleet.rows().items():
            if agent_id in ids:
                assert (row["status"], row["observed_generation"]) == ("paused", row["generation"])
                assert agent_id not in fleet.served(row["gateway"])
                assert fleet.turn(row["gateway"], agent_id).status == 400
        admin.act("remove", *pks.values())
    assert fleet.provision().rc == 0


def test_a_write_that_is_wanted_while_the_gateway_starts_waits_for_it(fleet: Fleet) -> None:
    agent_id = "coach-anna"
    gateway = fleet.row(agent_id)["gateway"]
    unit = f"openclaw-gateway@{gateway}.service"
    restarts = fleet.sh(f"systemctl show -P NRestarts {unit}")
    before = fleet.pid(gateway)
    rename(fleet, agent_id, "Anna the Second")
    try:
        fleet.sh(f"systemctl restart --no-block {unit}")
        until("another process", lambda: fleet.pid(gateway) not in (before, "0"))
        pid = fleet.pid(gateway)
        play = fleet.provision(agent_id, "--limit", gateway)
        assert play.rc == 0, play.output
        assert fleet.served(gateway)[agent_id]["name"] == "Anna the Second"
        assert fleet.pid(gateway) == pid, "the write ended the gateway that was starting"
        assert fleet.sh(f"systemctl show -P NRestarts {unit}") == restarts
    finally:
        rename(fleet, agent_id, "Anna")
        fleet.provision(agent_id, "--limit", gateway)
