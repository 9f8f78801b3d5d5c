"""Plays whose controller is killed at any of its calls, ssh and all: the next run makes it good.

A sample of the points here; all of them with `make soak`. Provisioning is in test_5_kills.py, beside what its modules do.
"""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from clawbench.shell import write_private

from .fleet import Fleet, Play
from .kills import SEED, SOAK, Controller, Say, first_round
from .test_5_rotation import settings

pytestmark = pytest.mark.fire

GATEWAY, COACH = "gw-b", "coach-anna"


@dataclass(frozen=True)
class Killed:
    """A play that has something to do each time; how one that has nothing to do is called; what must hold after it."""

    playbook: str
    wanted: Callable[[int], dict[str, Any]]
    again: Callable[[int], dict[str, Any]]
    look: Callable[[Fleet], None]


def _young(_number: int) -> dict[str, Any]:
    return {"max_age_days": 1}


def _memory(number: int) -> dict[str, Any]:
    return {"gateway_memory_max": f"{3000 + number % 2}M"}


def _has_a_token(fleet: Fleet) -> None:
    assert fleet.sh("find /var/lib/claw -maxdepth 2 -name 'token.*'") == ""
    assert fleet.call(GATEWAY, "health")["ok"]


def _has_a_service_token(fleet: Fleet) -> None:
    assert not list(fleet.state.glob("service-token.[pf]*"))
    told = fleet.orm("print(*ServiceToken.objects.filter(revoked_at=None).values_list('pk'))")
    assert len(told.split()) == 1, "Django takes tokens that nobody has"
    assert fleet.rows()


PLAYS = {
    "rotate-gateway-token": Killed(
        "playbooks/rotate-gateway-token.yml", lambda _number: {}, _young, _has_a_token
    ),
    "rotate-service-token": Killed(
        "playbooks/rotate-service-token.yml", lambda _number: {}, _young, _has_a_service_token
    ),
    "site": Killed("playbooks/site.yml", _memory, _memory, _has_a_token),
}


@pytest.fixture
def registered(fleet: Fleet) -> Iterator[None]:
    """The fleet's service token is one that Django can revoke, and afterwards the one of before."""
    file = fleet.state / "service-token"
    configured = file.read_text()
    try:
        assert fleet.play("playbooks/rotate-service-token.yml").rc != 0, "it is in Django's settings no more"
        with settings(fleet, COACHLIST_SERVICE_TOKENS=secrets.token_urlsafe(32)):
            assert fleet.play("playbooks/rotate-service-token.yml").rc == 0
            yield
    finally:
        write_private(file, configured)
        for left in fleet.state.glob("service-token.[pf]*"):
            left.unlink()
        fleet.orm("ServiceToken.objects.all().delete()")


@pytest.fixture(scope="module", autouse=True)
def settled(fleet: Fleet) -> Iterator[None]:
    """The gateway ends as `make up` has it."""
    yield
    play = fleet.play("playbooks/site.yml", "--limit", GATEWAY)
    assert play.rc == 0, play.output


@pytest.mark.parametrize("name", PLAYS)
def test_a_play_is_made_good_whose_controller_was_killed(
    fleet: Fleet, request: pytest.FixtureRequest, say: Say, name: str
) -> None:
    killed = PLAYS[name]
    begin = first_round(name)
    if begin is None:
        return
    if name == "rotate-service-token":
        request.getfixturevalue("registered")
    choose = random.Random(f"{SEED} {name}")  # noqa: S311 - which point, not a secret
    controller = Controller(fleet)
    # How many calls there are is not known before one of them is not met.
    for number in itertools.count(begin) if SOAK else [choose.randint(1, 20)]:
        words = [f"-e{key}={value}" for key, value in killed.wanted(number).items()]
        rc, calls, output = controller.play(killed.playbook, number, "--limit", GATEWAY, *words)
        say(f"{name}:{number}  {'killed' if rc is None else f'ended by itself at {calls}'}; CLAW_SEED={SEED}")
        assert rc is None or rc == 0, output
        # A rotation that was finished is one, and another one is not made of its repetition.
        rerun = _play(fleet, killed, killed.again(number))
        assert rerun.rc == 0, f"call {number}: {output}; then {rerun.output}"
        again = _play(fleet, killed, killed.again(number))
        assert (again.rc, again.changed) == (0, []), f"call {number}: {output}; then {again.output}"
        killed.look(fleet)
        assert fleet.ask(COACH, "still there?").status == 200
        if rc is not None:
            break


def _play(fleet: Fleet, killed: Killed, given: dict[str, Any]) -> Play:
    return fleet.play(killed.playbook, "--limit", GATEWAY, **given)
