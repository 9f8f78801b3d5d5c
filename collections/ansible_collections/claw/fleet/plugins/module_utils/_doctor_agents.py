# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor's look at a gateway's agents: the roster, their directories and keys, and what the app says of their coaches.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible_collections.claw.fleet.plugins.module_utils import _coach, _durable, _keys
from ansible_collections.claw.fleet.plugins.module_utils._doctor import Finding, Patient, plain
from ansible_collections.claw.fleet.plugins.module_utils._manifest import Manifest, ManifestError
from ansible_collections.claw.fleet.plugins.module_utils._roster import Roster, RosterError, matches
from ansible_collections.claw.fleet.plugins.module_utils._workspace import DIR_MODE

_FLEETS = ("AGENTS.md", "IDENTITY.md", "USER.md")
_PLACES = ("workspaces", "agents", "credentials")
_SQLITE = b"SQLite format 3\0"
_OWN = frozenset({"main", "$include"})


def records(patient: Patient) -> Iterator[Finding]:
    """Whether the roster and the manifest can be read."""
    if patient.gateway is None:
        return
    try:
        Roster(patient.gateway).entries()
    except RosterError as error:
        yield Finding(
            "roster-broken", f"The roster of gateway {patient.name} is gone or cut off.", str(error)
        )
    try:
        Manifest(patient.gateway)
    except ManifestError as error:
        yield Finding("manifest-broken", "What the fleet remembers of its agents is cut off.", str(error))


def directories(patient: Patient) -> Iterator[Finding]:
    """Whether each agent of the roster has her directories."""
    if patient.gateway is None:
        return
    for agent_id, entry in (patient.roster or {}).items():
        missing = [
            key for key in ("workspace", "agentDir") if not Path(str(entry.get(key) or "/nowhere")).is_dir()
        ]
        if missing:
            told = ", ".join(f"{key} {entry.get(key) or '(not named)'}" for key in missing)
            yield Finding("agent-without-workspace", f"Agent {agent_id} has no directory.", told, agent_id)


def stores(patient: Patient) -> Iterator[Finding]:
    """Whether OpenClaw's databases are databases. SQLite is asked only while the gateway has them open, so that it makes no file."""
    gateway = patient.gateway
    if gateway is None:
        return
    main = patient.homes / "state" / "openclaw.sqlite"
    agents = {
        agent_id: patient.homes / "agents" / agent_id / "agent" / "openclaw-agent.sqlite"
        for agent_id in patient.roster or {}
    }
    with _durable.as_user(*gateway.owner):
        for agent_id, path in {"": main, **agents}.items():
            wrong = _damage(
                path, "quick_check(1)" if path == main else "schema_version", patient.state.pid > 0
            )
            if wrong:
                yield Finding("store-corrupt", f"The database {path} is damaged.", wrong, agent_id)


def _damage(path: Path, question: str, runs: bool) -> str:
    """What is wrong with a database; empty for nothing, and where there is none."""
    # Debian's smallest Python has no such module; then this check alone says so.
    import sqlite3

    try:
        with path.open("rb") as file:
            head = file.read(len(_SQLITE))
    except FileNotFoundError:
        return ""
    if head not in (b"", _SQLITE):
        return "it does not begin as a database does"
    if not runs or not path.with_name(f"{path.name}-shm").exists():
        return ""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=2)) as store:
            (said,) = store.execute(f"PRAGMA {question}").fetchone()
    except sqlite3.OperationalError:
        # It is busy; that is no damage.
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)
    return str(said) if question.startswith("quick") and said != "ok" else ""


def strangers(patient: Patient) -> Iterator[Finding]:
    """Whether each directory is somebody's. Who is paused keeps hers, and who is being removed has it for a moment."""
    if patient.gateway is None or patient.roster is None:
        return
    try:
        known = _OWN | patient.roster.keys() | _known(patient)
    except ManifestError:
        # Which is told already.
        return
    found: dict[str, list[str]] = {}
    for place in _PLACES:
        for name in _durable.list_dir(patient.homes / place, root=patient.homes):
            path = patient.homes / place / name
            if (
                name not in known
                and not name.startswith(_durable.TEMP_PREFIX)
                and path.is_dir()
                and not path.is_symlink()
            ):
                found.setdefault(name, []).append(str(path))
    for name, paths in found.items():
        yield Finding(
            "workspace-without-agent", f"The directory of {name} is nobody's.", ", ".join(paths), name
        )


def _known(patient: Patient) -> set[str]:
    """Whose directories are meant to be there beside those of the roster."""
    manifest = Manifest(patient.there)
    if patient.given.rows is None:
        return {*manifest.files, *manifest.removing}
    return {str(row["agent_id"]) for row in patient.given.rows if row["wanted"] != "removed"} | {
        *manifest.removing
    }


def owners(patient: Patient) -> Iterator[Finding]:
    """Whether everything has the owner and the mode that the fleet gives it."""
    gateway = patient.gateway
    if gateway is None:
        return
    own, roots = gateway.owner, _durable.Owner(0, gateway.owner.gid)
    expected: dict[Path, tuple[int, _durable.Owner]] = {
        patient.homes: (0o700, own),
        Path(gateway.config_dir): (0o750, roots),
        Path(gateway.roster): (0o640, roots),
        Path(gateway.token_file): (0o400, own),
        Path(gateway.config): (0o600, own),
    }
    for agent_id in patient.roster or {}:
        for place in (
            f"workspaces/{agent_id}",
            f"agents/{agent_id}",
            f"agents/{agent_id}/agent",
            f"agents/{agent_id}/sessions",
        ):
            expected[patient.homes / place] = (DIR_MODE, own)
        expected[patient.homes / "credentials" / agent_id] = (0o700, own)
        expected[patient.homes / "credentials" / agent_id / _keys.FINAL] = (0o600, own)
    for path, (mode, owner) in expected.items():
        found = _durable.inspect(path)
        if found is not None and (
            found.kind not in ("file", "directory") or (found.kind == "file" and found.links > 1)
        ):
            told = f"it is {'a symbolic link' if found.kind == 'link' else f'a {found.kind} with {found.links} links'}"
            yield Finding("link-in-the-way", f"{path} is not what the fleet put there.", told)
        elif found is not None and (found.mode, found.owner) != (mode, owner):
            told = f"{found.mode:04o} of {found.owner.uid}:{found.owner.gid} instead of {mode:04o} of {owner.uid}:{owner.gid}"
            yield Finding("wrong-owner", f"{path} is somebody else's, or too open.", told)


def served(patient: Patient) -> Iterator[Finding]:
    """Whether the running gateway serves what is in the roster."""
    if patient.served is None or patient.roster is None or not patient.served.valid:
        return
    has = {name: entry for name, entry in patient.served.agents.items() if name not in _OWN}
    wrong = [
        name
        for name in sorted({*has, *patient.roster})
        if not matches(patient.roster.get(name), has.get(name))
    ]
    for agent_id in wrong:
        told = "it does not serve her" if agent_id not in has else "it serves another entry"
        told = "it serves her, and the roster does not have her" if agent_id not in patient.roster else told
        yield Finding(
            "agent-not-served",
            f"The gateway does not serve {agent_id} as its roster has her.",
            told,
            agent_id,
        )
    if not wrong and not patient.served.converged:
        yield Finding(
            "agent-not-served",
            "The gateway has not applied its files.",
            "its hashes of what is read and applied differ",
        )


def coaches(patient: Patient) -> Iterator[Finding]:
    """What the app says of the coaches of this gateway beside what the gateway has."""
    rows, roster = patient.given.rows, patient.roster
    if patient.gateway is None or rows is None or roster is None:
        return
    yield from wishes(rows)
    for row in rows:
        agent_id, settled = str(row["agent_id"]), row["status"] == "active" and not _coach.is_due(dict(row))
        if settled and agent_id not in roster:
            yield Finding(
                "coach-without-agent", f"{agent_id} is active in the app, and has no agent.", "", agent_id
            )
    for agent_id in sorted(roster.keys() - {str(row["agent_id"]) for row in rows}):
        yield Finding("agent-unlisted", f"The coach of {agent_id} is not in the app's list.", "", agent_id)


def wishes(rows: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """What the fleet could not do, or has not done yet, by the rows themselves."""
    for row in rows:
        agent_id = str(row["agent_id"])
        if row["status"] == "error" or row.get("error"):
            why = str(row["reason"] or (row.get("error") or {}).get("reason"))
            yield Finding(
                "coach-in-error", f"The fleet could not do what is wanted of {agent_id}.", why, agent_id
            )
        elif _coach.is_due(dict(row)):
            told = f"she is wanted {row['wanted']} (generation {row['generation']}), and is {row['status']}"
            sentence = f"Something is wanted of {agent_id} that has not been done yet."
            yield Finding("coach-waiting", sentence, told, agent_id)


def keys(patient: Patient) -> Iterator[Finding]:
    """Whether each agent has her key, and the app its hash."""
    if patient.gateway is None:
        return
    rows = {str(row["agent_id"]): row for row in patient.given.rows or ()}
    for agent_id in patient.roster or {}:
        path = patient.homes / "credentials" / agent_id / _keys.FINAL
        data = _durable.read(path, root=patient.homes)
        if data is None:
            yield Finding(
                "key-missing", f"The key of {agent_id} is not in its place.", f"{path} is absent", agent_id
            )
            continue
        held = _credentials(data, agent_id)
        if held is None:
            yield Finding("key-broken", f"{path} does not hold the credentials of {agent_id}.", "", agent_id)
            continue
        row = rows.get(agent_id)
        if (
            row is not None
            and held.sha256 != row["key_sha256"]
            and not _pending(patient, agent_id, str(row["key_sha256"]))
        ):
            told = f"the file's hash begins with {held.sha256[:12]}, the app's with {str(row['key_sha256'] or '(none)')[:12]}"
            yield Finding(
                "key-mismatch", f"The app has the hash of another key of {agent_id}.", told, agent_id
            )
        wanted = patient.given.coach_api_url
        if wanted and held.api_url != wanted:
            told = f"her credentials have {plain(held.api_url)}, and it is {plain(wanted)}"
            yield Finding(
                "api-url-stale", f"The agent of {agent_id} asks the app at another address.", told, agent_id
            )


def _credentials(data: bytes, agent_id: str) -> _keys.Credentials | None:
    try:
        found = _keys.Credentials(**json.loads(data))
    except (ValueError, TypeError):
        return None
    return found if found.agent_id == agent_id and found.api_key else None


def _pending(patient: Patient, agent_id: str, sha256: str) -> bool:
    """Whether the app has the hash of a key that is about to take its place."""
    data = _durable.read(patient.homes / "credentials" / agent_id / _keys.PENDING, root=patient.homes)
    found = _credentials(data, agent_id) if data else None
    return found is not None and found.sha256 == sha256


def files(patient: Patient) -> Iterator[Finding]:
    """Whether somebody changed or removed a file that is the fleet's. Her own she may remove herself."""
    if patient.gateway is None:
        return
    try:
        record: Mapping[str, Mapping[str, Any]] = Manifest(patient.gateway).files
    except ManifestError:
        return
    for agent_id in patient.roster or {}:
        written = record.get(agent_id, {})
        for name in _FLEETS:
            path = patient.homes / "workspaces" / agent_id / name
            data = _durable.read(path, root=patient.homes) if name in written else None
            if name in written and data is None and path.parent.is_dir():
                yield Finding("file-missing", f"{name} of {agent_id} is gone.", f"{path} is absent", agent_id)
            elif data is not None and hashlib.sha256(data).hexdigest() not in written[name]:
                yield Finding("file-conflict", f"Somebody changed {name} of {agent_id}.", str(path), agent_id)
