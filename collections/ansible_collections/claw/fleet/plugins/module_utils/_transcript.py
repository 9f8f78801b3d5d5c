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

import base64
import json
import sqlite3
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayError

_QUERY = """
select e.event_json, e.event_zstd from transcript_events e join session_windows w using (session_id)
where lower(w.session_key) = lower(?) and e.created_at >= ? order by e.created_at, e.seq
"""
# Node reads what is compressed, which the machine's Python cannot: a line each, in base64, to one line each.
_EXPAND = """
const { zstdDecompressSync } = require("zlib");
for (const line of require("fs").readFileSync(0, "latin1").split("\\n"))
  if (line) console.log(zstdDecompressSync(Buffer.from(line, "base64")).toString());
"""
_SECONDS = 30


class Called(NamedTuple):
    """One call: the tool, what it was given, all that came back as text; whether the tool itself says it was done.

    ``arguments``: None where the gateway kept only what came back, as it does where there is no such tool.
    """

    tool: str
    arguments: Mapping[str, Any] | None
    result: str
    completed: bool


def calls(gateway: Gateway, agent_id: str, session: str, since: float) -> list[Called]:
    """The calls of a session, oldest first; ``since``: in seconds since the epoch.

    Raises GatewayError where they cannot be read.
    """
    path = Path(gateway.state_dir) / "agents" / agent_id / "agent" / "openclaw-agent.sqlite"
    try:
        with (
            _durable.as_user(*gateway.owner),
            closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)) as database,
        ):
            asked = (f"agent:{agent_id}:{session}", int(since * 1000))
            rows = database.execute(_QUERY, asked).fetchall()
        return of_events(_events(gateway, rows))
    except (sqlite3.Error, _durable.DurableError, ValueError, OSError, subprocess.SubprocessError) as error:
        raise GatewayError(
            f"what {agent_id}'s tools were called with cannot be read in {path}: {error}. If OpenClaw is another one than "
            "the fleet pins, it may keep that otherwise"
        ) from error


def _events(gateway: Gateway, rows: list[tuple[str | None, bytes | None]]) -> list[Mapping[str, Any]]:
    packed = [
        base64.b64encode(compressed).decode() for plain, compressed in rows if plain is None and compressed
    ]
    expanded = iter(_expand(gateway, packed))
    return [json.loads(plain if plain is not None else next(expanded)) for plain, _compressed in rows]


def _expand(gateway: Gateway, packed: list[str]) -> list[str]:
    if not packed:
        return []
    done = subprocess.run(
        [gateway.node, "-e", _EXPAND],
        input="\n".join(packed),
        user=gateway.owner.uid,
        group=gateway.owner.gid,
        extra_groups=[],
        env={},
        cwd="/",
        text=True,
        capture_output=True,
        timeout=_SECONDS,
        check=True,
    )
    return done.stdout.splitlines()


def of_events(events: Iterable[Mapping[str, Any]]) -> list[Called]:
    """The calls that a transcript's events tell of."""
    asked: dict[str, Called] = {}
    for event in events:
        message = event.get("message") or {}
        if message.get("role") == "assistant":
            for part in message.get("content") or []:
                if isinstance(part, dict) and part.get("type") == "toolCall":
                    given = part.get("arguments")
                    arguments = given if isinstance(given, dict) else None
                    asked[str(part.get("id"))] = Called(str(part.get("name")), arguments, "", False)
        elif message.get("role") == "toolResult":
            details = message.get("details") or {}
            number = str(message.get("toolCallId"))
            call = asked.get(number, Called(str(message.get("toolName")), None, "", False))
            # Some tools say a thing twice and differently cut; whatever came back counts.
            asked[number] = call._replace(
                result=json.dumps([message.get("content"), details], ensure_ascii=False),
                completed=isinstance(details, dict) and details.get("status") == "completed",
            )
    return list(asked.values())
