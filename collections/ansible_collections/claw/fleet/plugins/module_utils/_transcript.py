# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tools an agent called in a session, with what, and what came back: by the gateway's own record.

PRIVATE to claw.fleet: may change at any time.

What a model says of its tools is its word alone. OpenClaw keeps the calls themselves in a database of each agent, and
has no admin call that would tell of them; so this reads the database, as the gateway's user, and writes nothing. Its
form is that of the OpenClaw that the fleet pins.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayError

_QUERY = """
select e.event_json from transcript_events e join session_windows w using (session_id)
where lower(w.session_key) = lower(?) and e.event_json is not null order by e.created_at, e.seq
"""


class Called(NamedTuple):
    """One call: the tool, what it was given, all that came back as text; whether the tool itself says it was done."""

    tool: str
    arguments: Mapping[str, Any]
    result: str
    completed: bool


def calls(gateway: Gateway, agent_id: str, session: str) -> list[Called]:
    """The calls of a session, oldest first. Raises GatewayError where they cannot be read."""
    path = Path(gateway.state_dir) / "agents" / agent_id / "agent" / "openclaw-agent.sqlite"
    try:
        with (
            _durable.as_user(*gateway.owner),
            closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)) as database,
        ):
            rows = database.execute(_QUERY, (f"agent:{agent_id}:{session}",)).fetchall()
    except (sqlite3.Error, _durable.DurableError) as error:
        raise GatewayError(
            f"what {agent_id}'s tools were called with cannot be read in {path}: {error}. If OpenClaw is another one than "
            "the fleet pins, it may keep that otherwise"
        ) from error
    return of_events(json.loads(row[0]) for row in rows)


def of_events(events: Iterable[Mapping[str, Any]]) -> list[Called]:
    """The calls that a transcript's events tell of."""
    asked: dict[str, Called] = {}
    for event in events:
        message = event.get("message") or {}
        if message.get("role") == "assistant":
            for part in message.get("content") or []:
                if isinstance(part, dict) and part.get("type") == "toolCall":
                    given = part.get("arguments")
                    asked[str(part.get("id"))] = Called(
                        str(part.get("name")), given if isinstance(given, dict) else {}, "", False
                    )
        elif message.get("role") == "toolResult" and (call := asked.get(str(message.get("toolCallId")))):
            details = message.get("details") or {}
            # Some tools say a thing twice and differently cut; whatever came back counts.
            asked[str(message["toolCallId"])] = call._replace(
                result=json.dumps([message.get("content"), details], ensure_ascii=False),
                completed=isinstance(details, dict) and details.get("status") == "completed",
            )
    return list(asked.values())
