# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One pass of the reconciler: ask Django whether anything is to be done, and run provision_coach if so.

PRIVATE to claw.fleet: may change at any time.

Started by claw-reconciler.service on a control node, as `python -P -m ...plugin_utils.reconcile`. What Django
says decides: a coach who is due and whom no run has tried yet as she is now means a run at once. What a run
left undone is tried again after pauses that grow up to `full_every`, and a run that left nothing undone is
repeated after `full_every`, for what has drifted on machines. Ends with 1 while anything is wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._coach import CoachListError, Row, check_rows, is_due
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import ApiError, Client, OptionsError

PLAYBOOK = "claw.fleet.provision_coach"
_LOCK_SECONDS = 600
_FIRST_PAUSE_SECONDS = 30
_RETRIES_OF_A_REQUEST = 1
_WISHES = ("agent_id", "name", "vars", "wanted", "generation", "key_wanted_generation")
# What the journal takes for an error, at the beginning of a line.
_ERROR = "<3>"

Play = Callable[["Places"], list[str]]


class ReconcileError(Exception):
    """A pass that could not be made; str() is a plain sentence."""


class Places(NamedTuple):
    """The directories of a control node."""

    config: Path
    state: Path
    runtime: Path
    credentials: Path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Places:
        """As systemd names them to the service."""
        names = [f"{name.upper()}_DIRECTORY" for name in ("configuration", "state", "runtime", "credentials")]
        missing = [name for name in names if not environment.get(name)]
        if missing:
            raise ReconcileError(
                f"{missing[0]} is not set. Start it as systemctl start claw-reconciler, which sets it."
            )
        return cls(*(Path(environment[name]) for name in names))

    @property
    def request(self) -> Path:
        """The file by which a run now is asked for."""
        return self.runtime / "now"


@dataclass
class State:
    """What earlier passes left.

    ``owed``: why a run is owed whatever Django says, or "". ``due``: the wish of each coach who was due in the
    list of ``etag``; ``tried``: the same of the list before the last run. ``ended``: when that was, in seconds;
    ``retries``: how many runs before it were for the same; ``failures``: what it failed with.
    """

    owed: str = "there was no run yet"
    inputs: str = ""
    etag: str = ""
    due: dict[str, str] = field(default_factory=dict)
    tried: dict[str, str] = field(default_factory=dict)
    ended: float = 0.0
    retries: int = 0
    failures: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> State:
        """From its file; a new one where that cannot be read."""
        try:
            found = json.loads(_durable.read(path) or b"{}")
            return cls(**{known.name: found[known.name] for known in fields(cls)})
        except (ValueError, KeyError, TypeError):
            return cls()

    def save(self, path: Path) -> None:
        """To its file, durably."""
        _durable.write(path, json.dumps(asdict(self)).encode(), mode=0o600)


def reason_to_run(state: State, inputs: str, now: float, full_every: float) -> str:
    """Why to run the playbook now, in a few words; "" if there is nothing to do."""
    if state.owed:
        return state.owed
    if state.inputs != inputs:
        return "its configuration is another one"
    new = sum(state.tried.get(coach) != wish for coach, wish in state.due.items())
    if new:
        return f"{new} coach{'es are' if new > 1 else ' is'} due"
    since = now - state.ended
    # A clock that was set back says nothing about how long ago it was.
    if since < 0 or since >= pause(state, full_every):
        return "what is left is tried again" if undone(state) else "everything is looked at now and then"
    return ""


def undone(state: State) -> bool:
    """Whether the last run left anything to do."""
    return bool(state.failures or state.due)


def pause(state: State, full_every: float) -> float:
    """Seconds between the last run and the next, if nothing new comes."""
    if not undone(state):
        return full_every
    doubled: float = _FIRST_PAUSE_SECONDS * 2 ** min(state.retries, 16)
    return min(full_every, doubled)


def one_pass(places: Places, play: Play, now: Callable[[], float] = time.time) -> list[str]:
    """Look, run if there is a reason, and return what is wrong: sentences, none if all is well."""
    with _durable.lock(places.state / "lock", timeout=_LOCK_SECONDS):
        path = places.state / "state.json"
        state = State.load(path)
        if places.request.exists():
            # Noted before it is taken away: a request is not lost with the process that took it.
            state.owed = "it was asked for"
            state.save(path)
            _durable.remove(places.request)
        settings = _settings(places)
        inputs = _fingerprint(places.config)
        if look(state, settings, places):
            state.save(path)
        why = reason_to_run(state, inputs, now(), settings["full_every"])
        if not why:
            return _still(state, settings["full_every"], now())
        say(f"{PLAYBOOK} runs: {why}.")
        again = undone(state) and state.due == state.tried and state.inputs == inputs
        # Until its end is written here, this run counts as one that was cut short.
        state.owed = "the last run was cut short"
        state.save(path)
        failures = play(places)
        state.retries = state.retries + 1 if again else 0
        state.owed, state.inputs, state.tried = "", inputs, state.due
        state.ended, state.failures = now(), failures
        state.save(path)
        return failures


def look(state: State, settings: Mapping[str, Any], places: Places) -> bool:
    """Ask Django who is due; false if the list is the one that is known."""
    try:
        token = (places.credentials / "service-token").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ReconcileError(f"The service token cannot be read: {exc}.") from None
    client = Client.of({"retries": _RETRIES_OF_A_REQUEST, **settings["django"], "api_token": token})
    pages = client.coaches(settings["filters"], etag=state.etag)
    if pages is None:
        return False
    state.etag = pages.etag
    state.due = {
        str(row["pk"] or row["agent_id"]): _wish(row) for row in check_rows(pages.rows) if is_due(row)
    }
    return True


def run_playbook(places: Places) -> list[str]:
    """Run it to its end, telling what it changes; what failed, the last word of each host."""
    command = [sys.executable, str(Path(sys.executable).with_name("ansible-playbook")), PLAYBOOK]
    command += ["--inventory", str(places.config / "inventory")]
    command += ["--extra-vars", f"@{places.config / 'extra-vars.json'}"]
    failures: dict[str, str] = {}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as ansible:
        for line in ansible.stdout or ():
            told = _told(line)
            if told is None:
                say(line.rstrip())
            elif told["kind"] == "changed":
                say(f"{told['host']}: {told['task']}: changed")
            else:
                failures[told["host"]] = f"{told['host']}: {told['task']}: {told['msg']}"
    if ansible.returncode and not failures:
        return [f"{PLAYBOOK} ended with status {ansible.returncode}; its own words are above."]
    return list(failures.values()) if ansible.returncode else []


def say(text: str) -> None:
    """A line for the journal, at once."""
    print(text, flush=True)  # noqa: T201


def _told(line: str) -> dict[str, str] | None:
    """A line of the callback claw.fleet.reconciler, or None if it is somebody else's."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and told.keys() == {"kind", "host", "task", "msg"} else None


def _still(state: State, full_every: float, now: float) -> list[str]:
    """What the last run failed with: it is wrong until a run says otherwise."""
    if not state.failures:
        return []
    seconds = max(0, round(state.ended + pause(state, full_every) - now))
    return [*state.failures, f"This is tried again in {seconds} s."]


def _settings(places: Places) -> dict[str, Any]:
    path = places.config / "reconciler.json"
    try:
        settings: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise ReconcileError(f"{path} cannot be used: {exc}. Run the playbook reconciler again.") from None
    return settings


def _fingerprint(config: Path) -> str:
    """Of everything that a run is given, other than secrets, and of what runs it."""
    digest = hashlib.sha256(sys.prefix.encode())
    for path in sorted(_files(config)):
        digest.update(f"\0{path.relative_to(config)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _files(config: Path) -> Iterator[Path]:
    for path in config.iterdir():
        # Secrets are root's alone.
        if path.name == "credentials":
            continue
        if path.is_dir():
            yield from (inner for inner in path.rglob("*") if inner.is_file())
        else:
            yield path


def _wish(row: Row) -> str:
    """What people want of a coach: if it is another one, it is to be tried at once."""
    wish = json.dumps([row[name] for name in _WISHES], sort_keys=True)
    return hashlib.sha256(wish.encode()).hexdigest()[:16]


def main() -> int:
    """One pass; 1 if anything is wrong, with the reason in the journal."""
    try:
        wrong = one_pass(Places.of(os.environ), run_playbook)
    except (ApiError, CoachListError, OptionsError) as exc:
        wrong = [f"The list of coaches was not read: {exc}"]
    except (ReconcileError, _durable.DurableError, OSError) as exc:
        wrong = [str(exc)]
    for line in "\n".join(wrong).splitlines():
        say(f"{_ERROR}{line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
