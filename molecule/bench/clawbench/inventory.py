"""What `inventories/demo` reads from the state directory, beside SSH access and the coach list's own files.

machine.address    the machine's address on the bench's network
providers.json     {"gateway_providers", "gateway_model"} as the role claw.fleet.gateway takes them; with API
                   keys, so 0600
control/           for a control node, where one is wanted (control.py)
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from clawbench.coachlist import CoachList
from clawbench.control import furnish_control_node
from clawbench.hosts import Bench
from clawbench.shell import write_private

MACHINE = "machine1"
COACHES = {
    "coach-anna": ("--name=Anna", "--var=companion_name=Juniper", "--client=Mia", "--client=Noah"),
    "coach-ben": ("--name=Ben", "--var=companion_name=Basalt", "--client=Olga"),
    "coach-clara": ("--name=Clara", "--var=companion_name=Cedar", "--client=Pavel", "--client=Quinn"),
}
STAND_IN = "stand-in"
REAL = {
    "ANTHROPIC_API_KEY": (
        "anthropic",
        "anthropic-messages",
        "https://api.anthropic.com",
        "claude-sonnet-4-6",
    ),
    "OPENAI_API_KEY": ("openai", "openai-responses", "https://api.openai.com/v1", "gpt-5.4-mini"),
    "GEMINI_API_KEY": (
        "google",
        "google-generative-ai",
        "https://generativelanguage.googleapis.com/v1beta",
        "gemini-3.5-flash",
    ),
}
"""Real providers by the variable that holds their key: name, API, address, model."""


def clients_of(agent_id: str) -> set[str]:
    """The names of the clients that the bench gives a coach."""
    return {
        word.removeprefix("--client=") for word in COACHES.get(agent_id, ()) if word.startswith("--client=")
    }


def clients_in(text: str) -> set[str]:
    """The names of such clients, of whichever coach, that a text has."""
    return set.union(*map(clients_of, COACHES)) & set(re.findall(r"\w+", text))


def choose_provider(state: Path) -> str:
    """The provider of models that the gateways ask, by its name.

    A real one if its key is in the environment, else the one of the last time, else the bench's stand-in.
    """
    path = state / "providers.json"
    given = next((variable for variable in REAL if os.environ.get(variable)), None)
    if given is not None:
        _write(path, *REAL[given], os.environ[given])
    elif not path.is_file():
        _write(path, STAND_IN, "openai-completions", "http://provider:18080/v1", "stand-in-1", "no-secret")
    name: str = json.loads(path.read_text())["gateway_model"].partition("/")[0]
    return name


def _write(path: Path, name: str, api: str, base_url: str, model: str, api_key: str) -> None:
    provider: dict[str, Any] = {"api": api, "base_url": base_url, "api_key": api_key, "models": [model]}
    values = {"gateway_providers": {name: provider}, "gateway_model": f"{name}/{model}"}
    write_private(path, json.dumps(values, indent=2) + "\n")


def furnish(bench: Bench, coach_list: CoachList) -> bool:
    """With the hosts up: have the coach list running, with three coaches, and write what the inventory reads.

    Returns whether the coach list had to be started.
    """
    facts = bench.facts()
    write_private(bench.state / "machine.address", facts["hosts"][MACHINE] + "\n")
    started = coach_list.up(facts["network_gateway"])
    coach_list.add_once(COACHES)
    furnish_control_node(bench, MACHINE)
    return started
