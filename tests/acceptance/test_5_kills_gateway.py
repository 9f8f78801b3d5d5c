"""A gateway's own modules that are killed, or that the disk fails, at any of their steps: the next run makes it good.

A sample of the points here; all of them with `make soak`. Meanwhile Django and the machine may differ about the
gateway's token; at the end the play that rotates it makes them agree again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .fleet import Fleet
from .kills import GatewayStriker, Machine, Say, Step, Sweep

GATEWAY = "gw-b"
SITE = "playbooks/site.yml"
ROTATE = "playbooks/rotate-gateway-token.yml"
RIGHTS = f"claw-{GATEWAY} 0o100400"


@dataclass
class Subject:
    """The gateway that is tried on, and what must stay as it is."""

    fleet: Fleet
    machine: Machine
    roster: dict[str, Any]

    def hold(self) -> dict[str, Any]:
        """Look whether all that must always hold after a run does; what there is."""
        found = self.machine.probe(GATEWAY)
        assert found["temporary"] == []
        assert found["foreign"] == []
        assert found["served"] == found["roster"] == self.roster
        assert {secret["rights"] for secret in found["secrets"].values()} == {RIGHTS}
        assert "token.former" not in found["secrets"]
        return found


@pytest.fixture(scope="module")
def subject(fleet: Fleet, machine: Machine) -> Iterator[Subject]:
    """The gateway, with its modules as plays send them to it; settled again at the end."""
    for playbook in (SITE, ROTATE):
        play = fleet.play(playbook, "--check", "--limit", GATEWAY, **machine.variables)
        assert play.rc == 0, play.output
    yield Subject(fleet, machine, machine.probe(GATEWAY)["roster"])
    for playbook in (ROTATE, SITE):
        play = fleet.play(playbook, "--limit", GATEWAY)
        assert play.rc == 0, play.output
    again = fleet.provision(None, "--limit", GATEWAY)
    assert (again.rc, again.changed) == (0, []), again.output


def arguments(subject: Subject, module: str) -> dict[str, Any]:
    """What a play gave the module, but for real."""
    return {**subject.machine.keep(module), "_ansible_check_mode": False}


class SecretSteps:
    """The providers' keys: one replaced and one more, and back."""

    MODULE = "gateway_secrets"

    def __init__(self, subject: Subject) -> None:
        self._given = arguments(subject, self.MODULE)
        self._keys: dict[str, str] = self._given["provider_keys"]

    def steps(self) -> list[Step]:
        """The circle."""
        others = dict.fromkeys(self._keys, "sk-another") | {"spare": "sk-spare"}
        return [
            Step("keys replaced", self.MODULE, self._having(others)),
            Step("keys put back", self.MODULE, self._having(self._keys)),
        ]

    def _having(self, keys: dict[str, str]) -> Callable[[], dict[str, Any]]:
        return lambda: {**self._given, "provider_keys": keys}


class TokenSteps:
    """The gateway's token: another one pending, taken, and nothing pending any more."""

    MODULE = "gateway_token_file"

    def __init__(self, subject: Subject) -> None:
        self._given = {**arguments(subject, self.MODULE), "token": None, "max_age_days": 0}

    def steps(self) -> list[Step]:
        """The circle."""
        return [
            Step("a token pending", self.MODULE, self._at("prepare")),
            Step("a token taken", self.MODULE, self._at("use")),
            Step("a token finished", self.MODULE, self._at("finish")),
        ]

    def _at(self, step: str) -> Callable[[], dict[str, Any]]:
        return lambda: {**self._given, "step": step}


class ConfigSteps:
    """The gateway's config: another one, for which it is restarted, and back."""

    MODULE = "gateway_config"
    LEVELS = ("debug", "info")

    def __init__(self, subject: Subject) -> None:
        self._given = arguments(subject, self.MODULE)

    def steps(self) -> list[Step]:
        """The circle."""
        return [Step(f"a config with {level}", self.MODULE, self._with(level)) for level in self.LEVELS]

    def _with(self, level: str) -> Callable[[], dict[str, Any]]:
        config = self._given["config"]
        wanted = {**config, "logging": {**config["logging"], "level": level}}
        return lambda: {**self._given, "config": wanted}


def secrets_striker(subject: Subject) -> GatewayStriker:
    """Strikes what its secrets are written with."""

    def look(step: Step) -> dict[str, Any]:
        found = subject.hold()
        keys = step.arguments()["provider_keys"]
        wanted = {
            f"provider-{name}.key": hashlib.sha256(key.encode()).hexdigest() for name, key in keys.items()
        }
        held = {name: told["sha256"] for name, told in found["secrets"].items() if name != "token"}
        assert held == wanted
        return found

    return GatewayStriker(subject.machine, look, GATEWAY)


def token_striker(subject: Subject) -> GatewayStriker:
    """Strikes what its token is changed with."""

    def look(step: Step) -> dict[str, Any]:
        found = subject.hold()
        assert ("token.pending" in found["pending"]) == (step.name != "a token finished")
        if step.name == "a token taken":
            assert found["pending"]["token.pending"] == found["secrets"]["token"]
        return found

    return GatewayStriker(subject.machine, look, GATEWAY)


def config_striker(subject: Subject) -> GatewayStriker:
    """Strikes what its config is put into force with."""

    def look(step: Step) -> dict[str, Any]:
        running = subject.fleet.config(GATEWAY)["sourceConfig"]
        assert running["logging"] == step.arguments()["config"]["logging"]
        return subject.hold()

    return GatewayStriker(subject.machine, look, GATEWAY)


Subjects = pytest.mark.parametrize(
    ("steps", "striker"),
    [
        pytest.param(SecretSteps, secrets_striker, id="gateway_secrets"),
        pytest.param(TokenSteps, token_striker, id="gateway_token_file"),
        # Each of its runs restarts the gateway.
        pytest.param(ConfigSteps, config_striker, id="gateway_config", marks=pytest.mark.fire),
    ],
)


@Subjects
def test_a_killed_module_is_made_good(subject: Subject, steps: Any, striker: Any, say: Say) -> None:
    sweep = Sweep(steps.MODULE, subject.machine, steps(subject).steps(), say)
    sweep.run(striker(subject).kill, samples=1)


@Subjects
def test_a_module_on_a_failing_disk_is_made_good(
    subject: Subject, steps: Any, striker: Any, say: Say
) -> None:
    sweep = Sweep(f"{steps.MODULE} on a failing disk", subject.machine, steps(subject).steps(), say)
    sweep.run(striker(subject).fail, samples=1, errors=True)
