"""Agents' sandboxes as the engine of the fleet's machine has them, and what is executed in them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from clawbench.coachlist import API

from .fleet import Fleet, Play, Reply, until

REBUILD, SITE = "playbooks/rebuild-sandbox.yml", "playbooks/site.yml"
BUILD = "The sandboxes' image is there"
APPLY = "Each agent's tools run in a sandbox like this"
GATEWAYS = ("gw-a", "gw-b")
CLIENTS = "journeyloop clients list"


class Sandbox(NamedTuple):
    """A container of an agent: the engine's id of it and of its image, and since when it runs, if it does."""

    agent_id: str
    gateway: str
    id: str
    image_id: str
    running: bool
    since: str


class Sandboxes:
    """The sandboxes of a fleet's agents."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def docker(self, *words: str) -> str:
        """What the machine's engine answers."""
        return self.fleet.sh(shlex.join(["docker", *words]))

    def images(self) -> dict[str, str]:
        """The images that there are, by name and tag, with their ids."""
        form = "{{.Repository}}:{{.Tag}} {{.ID}}"
        lines = self.docker("image", "ls", "--no-trunc", "--format", form, "claw-sandbox").splitlines()
        return dict(line.split() for line in lines)

    def all(self) -> dict[str, Sandbox]:
        """Every agent's container, running or not."""
        ids = self.docker("ps", "--all", "--quiet", "--filter", "label=openclaw.sandbox=1").split()
        described = json.loads(self.docker("inspect", *ids)) if ids else []
        found = [self._sandbox(container) for container in described]
        assert len({sandbox.agent_id for sandbox in found}) == len(found), "each agent has one"
        return {sandbox.agent_id: sandbox for sandbox in found}

    def of(self, agent_id: str) -> Sandbox:
        """An agent's container."""
        return self.all()[agent_id]

    def _sandbox(self, container: dict[str, Any]) -> Sandbox:
        places = [mount.get("Source", "") for mount in container["Mounts"]]
        (home,) = re.findall(r"^/var/lib/claw/([^/]+)/workspaces/([^/\n]+)$", "\n".join(places), re.MULTILINE)
        state = container["State"]
        return Sandbox(
            home[1], home[0], container["Id"], container["Image"], state["Running"], state["StartedAt"]
        )

    def workspace(self, agent_id: str) -> str:
        """Where her workspace is on the machine."""
        return f"/var/lib/claw/{self.fleet.row(agent_id)['gateway']}/workspaces/{agent_id}"

    # What agents do

    def furnish(self, agent_id: str) -> None:
        """Have a coach with a client of a name of its own, and a sandbox of her agent's."""
        given_a_client(self.fleet, agent_id)
        self.clients(agent_id)

    def execute(self, agent_id: str, line: str, session: str = "tools") -> str:
        """Have an agent execute a line; what she is told of it."""
        return said(self.fleet.ask(agent_id, executing(line), session))

    def clients(self, agent_id: str) -> list[str]:
        """The names of her clients, as her command line tells them."""
        told = self.execute(agent_id, CLIENTS)
        return [row["name"] for row in json.loads(told)]

    @contextmanager
    def executed(self) -> Iterator[list[tuple[str, str]]]:
        """What agents executed in the meantime: (container id, line); to be read after the block."""
        told: list[tuple[str, str]] = []
        since = self.now()
        yield told
        told += self.executed_since(since)

    def executed_since(self, since: str) -> list[tuple[str, str]]:
        """What agents have executed since then: (container id, line)."""
        form = "{{.ID}} {{.Status}}"
        words = ["events", "--since", since, "--until", self.now(), "--filter", "event=exec_create"]
        found = []
        for event in self.docker(*words, "--format", form).splitlines():
            # OpenClaw's own looks at files are without -l.
            container, shell, line = event.partition(" exec_create: /bin/sh -lc ")
            found += [(container, line)] if shell else []
        return found

    def now(self) -> str:
        """The machine's time, as `executed_since` takes it."""
        return self.fleet.sh("date +%s.%N").strip()

    @contextmanager
    def turn(self, agent_id: str, text: str, session: str) -> Iterator[Future[Reply]]:
        """A turn that is under way when the block begins, and over when it has been left."""
        before = self.fleet.heard_until_now()
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(self.fleet.ask, agent_id, text, session)
            until(
                "the turn to reach the provider",
                lambda: reply.done() or self.fleet.heard(text, after=before),
            )
            yield reply

    # What the fleet does

    def rebuild(self, *arguments: str, **extra: Any) -> Play:
        """Run rebuild-sandbox."""
        return self.fleet.play(REBUILD, *arguments, **extra)

    def rebuilt(self, *arguments: str, **extra: Any) -> Play:
        """A run of it that has to succeed."""
        play = self.rebuild(*arguments, **extra)
        assert play.rc == 0, play.output
        return play

    def state(self) -> tuple[Any, ...]:
        """Everything that a run which fails, or has nothing to do, leaves alone."""
        return (self.images(), self.all(), self.fleet.files(), [self.fleet.pid(name) for name in GATEWAYS])

    def document(self, place: Path, **paths: Any) -> Path:
        """The app's document as if these had been added: paths, and a field that new goals may have."""
        with self.fleet.api() as api:
            answer = api.get("/schema/", headers={"Accept": "application/json"}).raise_for_status()
        document = answer.json()
        document["components"]["schemas"]["GoalCreateRequest"]["properties"]["reward"] = {"type": "string"}
        for name in paths:
            operation = {"operationId": f"{name}_show", "tags": [name], "responses": {}}
            document["paths"][f"{API}/{name}/"] = {"get": operation}
        file = place / "openapi.json"
        file.write_text(json.dumps(document))
        return file


def client_of(agent_id: str) -> str:
    """The name of a client whom nobody but her coach has."""
    return f"A client of {agent_id}"


def given_a_client(fleet: Fleet, agent_id: str) -> None:
    """Have her coach have this client."""
    client = f"clients.get_or_create(name={client_of(agent_id)!r})"
    fleet.orm(f"CompanionProfile.objects.get(agent_id={agent_id!r}).{client}")


def executing(line: str) -> str:
    """What has the stand-in execute a line."""
    return f"tool:exec {json.dumps({'command': line})}"


def said(reply: Reply) -> str:
    """What an agent was told of her last call, as she repeats it."""
    assert reply.status == 200, reply.body
    assert "response.completed" in reply.body, reply.body
    _before, told, words = reply.text.partition("The tool said: ")
    assert told, reply.text
    return words


def outcome(play: Play, gateway: str) -> dict[str, list[str]]:
    """Whose entry, whose container and whose turn it was, by the task that says so."""
    result = play.result(gateway, APPLY)
    return {name: result[name] for name in ("updated", "recreated", "busy")}


def deeds(play: Play) -> tuple[list[str], list[tuple[str, str, Any]]]:
    """What a play changed, or would have."""
    return sorted(play.changed), sorted(play.diffs(), key=str)


def told_by_tool(
    fleet: Fleet, text: str, after: int, whose: Callable[[dict[str, Any]], bool] = bool, seconds: float = 60
) -> str:
    """What a tool told an agent in a turn that this text began and that has ended; ``after``: the provider's number before it."""

    def found() -> list[str]:
        turns = [
            request for request in fleet.heard(text, after=after) if request["finished"] and whose(request)
        ]
        return [
            str(turn["messages"][-1]["content"]) for turn in turns if turn["messages"][-1]["role"] == "tool"
        ]

    (first, *_more) = until("the turn to end", found, seconds)
    return str(first)


@contextmanager
def job(fleet: Fleet, gateway: str, agent_id: str, message: str) -> Iterator[str]:
    """A job of an agent's that has run once, and its turn has ended, when the block begins: what her last tool told her."""
    before = fleet.heard_until_now()
    added = fleet.call(
        gateway,
        "cron.add",
        name=f"of {agent_id}",
        agentId=agent_id,
        schedule={"kind": "at", "at": fleet.sh("date --utc --date='+2 seconds' +%FT%TZ").strip()},
        sessionTarget="isolated",
        wakeMode="now",
        payload={"kind": "agentTurn", "message": message},
        delivery={"mode": "none"},
    )
    assert added["ok"], added
    try:
        yield told_by_tool(fleet, message, before)
    finally:
        # It is gone by itself once it has run.
        fleet.call(gateway, "cron.remove", id=added["payload"]["id"])


@contextmanager
def otherwise(fleet: Fleet, gateway: str, **variables: Any) -> Iterator[None]:
    """A gateway with variables of other values than its own, which it has again afterwards."""
    try:
        fleet.done(SITE, "--limit", gateway, **variables)
        yield
    finally:
        fleet.done(SITE, "--limit", gateway)


@contextmanager
def heartbeat(fleet: Fleet, agent_id: str, name: str, line: str) -> Iterator[str]:
    """What came back of a line that a heartbeat of an agent's had her execute; ``name``: whose companion she is."""
    prompt, before = executing(line), fleet.heard_until_now()
    beats = {"every": "1m", "prompt": prompt, "target": "none"}
    with otherwise(fleet, fleet.row(agent_id)["gateway"], gateway_heartbeat=beats):
        yield told_by_tool(fleet, prompt, before, lambda one: f"companion of {name}" in one["system"], 180)


@contextmanager
def sub_agent(fleet: Fleet, agent_id: str, line: str) -> Iterator[str]:
    """What came back of a line that an agent had another one execute for her, which by default none may."""
    task, before = executing(line), fleet.heard_until_now()
    call = {"id": "sessions_spawn", "args": {"task": task}}
    tools = ["edit", "exec", "ls", "read", "sessions_spawn", "write"]
    with otherwise(fleet, fleet.row(agent_id)["gateway"], sandbox_tools=tools):
        assert "accepted" in said(fleet.ask(agent_id, f"tool:tool_call {json.dumps(call)}", "spawning"))
        # What else it is told comes behind that.
        (told, *_more) = until(
            "the sub-agent to be told of it",
            lambda: [
                message["content"]
                for request in fleet.heard(task, after=before)
                if request["user"].startswith("[Subagent Context]")
                for message in request["messages"]
                if message["role"] == "tool"
            ],
            120,
        )
        yield str(told)
