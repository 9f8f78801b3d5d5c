"""The command line that is made of this app's own document, at work with coaches' keys on the app as it is deployed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.claw.fleet.plugins.plugin_utils import openapi_source

from tests.cli.documents import CommandLine, make

from .conftest import API, MakeCoach

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

KEY, OTHER = "the-key-of-anna", "the-key-of-bert"


@pytest.fixture
def anna(server: str, make_coach: MakeCoach, tmp_path: Path) -> CommandLine:
    """Anna's command line; she and Bert have a client each."""
    for agent_id, key, client in (("coach-anna", KEY, "Zoë Clark"), ("coach-bert", OTHER, "Yusuf")):
        coach = make_coach(agent_id, key=key, status="active", observed_generation=1)
        coach.clients.create(name=client, has_consented=True)
    made = make(openapi_source.fetch(f"{server}{API}schema/"), tmp_path / "cli", ("ask",))
    made.key(f"{server}{API}", KEY)
    return made


def test_each_sees_her_own_clients(server: str, anna: CommandLine) -> None:
    (hers,) = anna.told("clients", "list")
    assert hers["name"] == "Zoë Clark"
    anna.key(f"{server}{API}", OTHER)
    (his,) = anna.told("clients", "list")
    assert his["name"] == "Yusuf"
    foreign = anna.run("clients", "show", str(hers["id"]))
    assert foreign.returncode == 4, foreign.stderr
    anna.key(f"{server}{API}", "nobodys")
    refused = anna.run("clients", "list")
    assert (refused.returncode, refused.stdout) == (5, "")


def test_a_goal_comes_changes_and_goes(anna: CommandLine) -> None:
    (client,) = (str(row["id"]) for row in anna.told("clients", "list"))
    goal = anna.told("goals", "create", client, "--title", "Run 5 km; $(id)")
    changed = anna.told("goals", "update", client, str(goal["id"]), "--status", "complete")
    assert changed == {**goal, "status": "complete"}
    assert anna.told("goals", "list", client) == [changed]
    table = anna.run("goals", "list", client, "-o", "table").stdout
    assert "Run 5 km; $(id)" in table and "complete" in table
    assert anna.run("goals", "delete", client, str(goal["id"])).returncode == 0
    assert anna.run("goals", "update", client, str(goal["id"]), "--title", "x").returncode == 4
    assert anna.run("goals", "create", client, "--title", "x", "--status", "done").returncode == 2


def test_every_operation_of_the_document_is_a_verb(anna: CommandLine) -> None:
    commands = json.loads((anna.place / "coachcli" / "commands.json").read_text())
    verbs = {
        f"{group} {verb['name']}" for group, told in commands["groups"].items() for verb in told["verbs"]
    }
    assert {"clients list", "clients search", "goals update", "profile show", "sessions transcript"} <= verbs
    assert len(verbs) == 14 and not any(verb.startswith("ask") for verb in verbs)
