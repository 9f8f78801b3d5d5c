"""Asking a coach's agent as the coach's app does: through Django, with her own key."""

from __future__ import annotations

import json
from typing import Any

import httpx

from clawbench.coachlist import API, CoachList
from clawbench.hosts import Bench
from clawbench.inventory import MACHINE
from clawbench.shell import BenchError

SECONDS = 180
"""How long one answer may take."""


def coaches(coach_list: CoachList) -> list[dict[str, Any]]:
    """The rows of those who should have a running agent."""
    url: str | None = f"{coach_list.url}{API}/internal/coaches/"
    headers = {"Authorization": f"Bearer {coach_list.service_token}"}
    rows: list[dict[str, Any]] = []
    with httpx.Client(headers=headers, timeout=30, trust_env=False) as client:
        while url:
            try:
                page = client.get(url).raise_for_status().json()
            except httpx.HTTPError as error:
                raise BenchError(
                    f"The coach list does not answer ({error}). Start it with: make up"
                ) from error
            rows += page["results"]
            url = page["next"]
    return [row for row in rows if row["wanted"] == "running"]


def turn(bench: Bench, coach_list: CoachList, row: dict[str, Any], text: str) -> str:
    """One turn of a coach's agent, in a session of its own; returns what it said.

    Raises:
        BenchError: the agent is not active, was refused by Django or the gateway, or said nothing.
        httpx.HTTPError: Django could not be reached, or the stream broke.
    """
    if row["status"] != "active":
        raise BenchError(row["reason"] or "Not provisioned yet. Run playbooks/provision-coach.yml.")
    path = f"/var/lib/claw/{row['gateway']}/credentials/{row['agent_id']}/.credentials.json"
    key = json.loads(bench.ssh(MACHINE, "sudo", "cat", path))["api_key"]
    said: list[str] = []
    with (
        httpx.Client(timeout=SECONDS, trust_env=False) as client,
        client.stream(
            "POST",
            f"{coach_list.url}{API}/ask/",
            headers={"Authorization": f"Bearer {key}"},
            json={"input": text, "session": "demo"},
        ) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise BenchError(f"HTTP {answer.status_code}: {answer.read().decode(errors='replace')[:500]}")
        for line in answer.iter_lines():
            event = event_of(line)
            if event.get("type") == "response.output_text.delta":
                said.append(event["delta"])
            elif event.get("type") in {"response.failed", "error"}:
                raise BenchError(f"The turn failed: {json.dumps(event)[:500]}")
    if not said:
        raise BenchError("The stream ended without a word.")
    return "".join(said)


def event_of(line: str) -> dict[str, Any]:
    """An event of a stream by its data line; empty for all other lines."""
    if not line.startswith("data:"):
        return {}
    try:
        event = json.loads(line[5:])
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
