# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one writer of a gateway's roster: the file of its agents, which the gateway's config includes.

PRIVATE to claw.fleet: may change at any time.

The gateway reads the file and cannot write it. A change is proven: it counts as made when the running gateway
says that it serves exactly what was written. What a gateway does not take is put back.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import _coach, _durable, _sandbox
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    REDACTED,
    Gateway,
    GatewayError,
    GatewayUnreachable,
    Served,
)
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import UnitState

_KEYS = {"name", "workspace", "agentDir"}
_ALLOWED = (_KEYS, _KEYS | _sandbox.KEYS)
# OpenClaw reads no include above 2 MB.
_MAX_BYTES = 2_000_000
_ATTEMPTS = 3
_POLL_SECONDS = 0.3
# A reload begins within a second, so a gateway that has not begun by then has not noticed the file.
_UNNOTICED_SECONDS = 10
# The first answers may still be about what was there before; an objection that stays is meant.
_OBJECTION_POLLS = 4

Entries = dict[str, dict[str, Any]]


class RosterError(Exception):
    """The roster cannot be read, is refused by the gateway, or is not served; str() is a plain sentence."""


class RosterChange(NamedTuple):
    """What a write did, or in check mode would do.

    ``changed``: the entries or the file's mode or owner differed; ``before``, ``after``: the entries;
    ``reloads``: how often a running gateway had to read the file again, 0 or 1; ``served``: whether a running gateway
    proved that it serves ``after``, in check mode whether one runs. A gateway that is stopped serves nobody.
    """

    changed: bool
    before: Entries
    after: Entries
    reloads: int
    served: bool


class _Disturbed(Exception):
    """The gateway or the file moved under the writer's hands before the rename; nothing was written."""


class _Stopped(RosterError):
    """Somebody stopped the gateway before it could prove anything; what is on disk is valid and stays."""


class Roster:
    """The roster of one gateway."""

    def __init__(self, gateway: Gateway, *, start_timeout: float = 120, serve_timeout: float = 30) -> None:
        """``start_timeout``, ``serve_timeout``: seconds to be ready and to serve a change; each agent adds to
        them (1 s and 0.5 s), because the gateway's work grows with its agents."""
        self.gateway = gateway
        self.path = Path(gateway.roster)
        self.previous = Path(f"{gateway.roster}.previous")
        self._start_timeout = start_timeout
        self._serve_timeout = serve_timeout
        self._held = False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the gateway's lock; may be entered again by the same object."""
        if self._held:
            yield
            return
        with _durable.lock(self.gateway.lock_path):
            self._held = True
            try:
                yield
            finally:
                self._held = False

    def entries(self) -> Entries:
        """The entries in the file. No file is no agents, but only where there never was one."""
        return self._parse(self._read())

    def is_served(self) -> bool:
        """Whether the gateway says now that it serves what is in the file. Asked once: `apply` waits for it."""
        try:
            served = self.gateway.served()
        except GatewayUnreachable:
            return False
        return served.valid and bool(served.converged) and matches(self.entries(), served.agents)

    def wait_ready(self, agents: int = 0) -> UnitState:
        """Wait until the gateway is ready, as long as one with this many agents more may take."""
        return self.gateway.wait_ready(self._start_timeout + agents)

    def create(self, *, check: bool = False) -> bool:
        """Have a roster, empty if there never was one; whether it is new or got its mode and owner back."""
        with nullcontext() if check else self.lock():
            if self._read() is not None:
                return self._keep_attributes(check)
            if not check:
                self._write(_encode({}))
            return True

    def apply(self, entries: Mapping[str, Mapping[str, Any]], *, check: bool = False) -> RosterChange:
        """Make ``entries`` the whole roster and prove that a running gateway serves it.

        Without a difference nothing is written, but what an earlier run did not live to prove is proven.
        In check mode only the difference is told. A gateway that is not running is not started.
        """
        wanted: Entries = {name: dict(entry) for name, entry in entries.items()}
        with nullcontext() if check else self.lock():
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    return self._apply(wanted, check)
                except _Disturbed as error:
                    if attempt == _ATTEMPTS:
                        raise RosterError(
                            f"{error}, {_ATTEMPTS} times in a row; nothing was written. Let the other change "
                            "end and run again"
                        ) from error
        raise AssertionError("the last attempt returns or raises")

    def _apply(self, wanted: Entries, check: bool) -> RosterChange:
        old = self._read()
        before = self._parse(old)
        if old is not None and before == wanted:
            changed = self._keep_attributes(check)
            served = self.gateway.unit_state().running if check else self._prove_unchanged(wanted)
            return RosterChange(changed, before, wanted, 0, served)
        self._check(wanted)
        if check:
            running = self.gateway.unit_state().running
            return RosterChange(True, before, wanted, int(running), running)
        new = _encode(wanted)
        issues = self.gateway.validate(roster=new)
        if issues:
            raise RosterError(
                f"OpenClaw would refuse the new roster, so nothing was written: {_listed(issues)}"
            )
        state = self._commit(old, new, len(before) + len(wanted))
        if state is not None:
            self._settle(old, wanted, state)
        return RosterChange(True, before, wanted, int(state is not None), state is not None)

    def _check(self, wanted: Entries) -> None:
        """What can be seen without asking OpenClaw, and what it would take although the fleet must not."""
        faults: list[str] = []
        homes: dict[str, str] = {}
        state = Path(self.gateway.state_dir)
        for name, entry in wanted.items():
            try:
                _coach.check_agent_id(name)
            except ValueError as error:
                faults.append(f"an agent's id {error}")
            if entry.keys() not in _ALLOWED:
                faults.append(f"the entry of {name} has the keys {', '.join(sorted(entry))}")
            for key in ("workspace", "agentDir"):
                home = str(entry.get(key) or "")
                if state not in Path(home).parents or ".." in Path(home).parts:
                    faults.append(f"{key} of {name} is not below {state}")
                if home in homes:
                    faults.append(f"{key} of {name} is also that of {homes[home]}")
                homes[home] = name
        if len(_encode(wanted)) > _MAX_BYTES:
            faults.append(f"the file would be larger than {_MAX_BYTES} bytes; use more gateways")
        if faults:
            raise RosterError(f"the roster cannot be written: {_listed(faults)}")

    def _commit(self, old: bytes | None, new: bytes, agents: int) -> UnitState | None:
        """The rename; the state of the gateway it was made under, or None if it was not running."""
        state = self.gateway.unit_state()
        if state.running:
            state = self.wait_ready(agents)
            # A gateway that cannot be asked cannot prove anything either.
            self.gateway.served()
        if old is not None:
            # As the roster itself, so that it can be put back as it is.
            _durable.write(self.previous, old, mode=0o640, owner=self._roster_owner())
        # A write while the gateway starts ends its process, so look as late as possible.
        now = self.gateway.unit_state()
        if now.running != state.running or now.pid != state.pid or (now.running and not self.gateway.ready()):
            raise _Disturbed(f"gateway {self.gateway.name} was started or stopped meanwhile")
        if self._read() != old:
            raise _Disturbed(f"{self.path} was changed by somebody else meanwhile")
        try:
            self._write(new)
        except _durable.DurableError as error:
            if self._read() == old:
                raise
            # It is in place, but it may not outlast a crash of the machine.
            raise RosterError(f"{error}. {self._put_back(old, state.running)}") from error
        return state if state.running else None

    def _settle(self, old: bytes | None, wanted: Entries, state: UnitState) -> None:
        """Wait until the change is served; else the old bytes are put back and served."""
        began = time.time()
        try:
            self._wait_served(wanted, state)
        except _Stopped:
            raise
        except (RosterError, GatewayError) as error:
            said = self._last_words(state, began)
            raise RosterError(f"{error}.{said}{self._put_back(old, True)}") from error

    def _last_words(self, state: UnitState, began: float) -> str:
        """What the process said if it has ended. Whatever is wrong with that, the old roster is put back."""
        with suppress(GatewayError):
            if self.gateway.unit_state().pid != state.pid:
                return f" It said:\n{self.gateway.words(began)}\n"
        return " "

    def _put_back(self, old: bytes | None, running: bool) -> str:
        """Restore the old roster and, for a gateway that is to run, wait for it; a sentence on how that went."""
        before = _encode({}) if old is None else old
        try:
            self._write(before)
        except _durable.DurableError as error:
            return f"The old roster could not be put back: {error}"
        if not running:
            return "The old roster was put back"
        try:
            if not self.gateway.unit_state().running:
                self.gateway.start()
            state = self.wait_ready()
            # Only now, as nothing of its files is touched while it starts.
            self._nudge()
            self._wait_served(self._parse(before), state)
        except (RosterError, GatewayError) as error:
            return f"The old roster was put back, but it is not served either: {error}"
        return "The old roster was put back and is served"

    def _prove_unchanged(self, wanted: Entries) -> bool:
        """What is on disk must be served as well: a writer may have been killed before its proof.

        False if no gateway runs.
        """
        state = self.gateway.unit_state()
        if not state.running:
            return False
        state = self.wait_ready(len(wanted))
        self._wait_served(wanted, state)
        return True

    def _wait_served(self, wanted: Entries, state: UnitState) -> None:
        """Poll until the gateway serves ``wanted``. A process that ended is waited for, or started, once."""
        deadline = time.monotonic() + self._serve_timeout + len(wanted) / 2
        nudge_at = time.monotonic() + _UNNOTICED_SECONDS
        pid, restarted, objections = state.pid, False, 0
        served: Served | None = None
        while True:
            try:
                served = self.gateway.served()
                if served.valid and served.converged and matches(wanted, served.agents):
                    return
                objections = 0 if served.valid else objections + 1
                if objections >= _OBJECTION_POLLS:
                    raise RosterError(
                        f"gateway {self.gateway.name} finds its config not valid: {_listed(served.issues)}"
                    )
            except GatewayUnreachable:
                # Busy with the reload, or gone; the supervisor knows.
                pass
            now = self.gateway.unit_state()
            if not now.running or now.pid != pid:
                if restarted:
                    raise RosterError(
                        f"gateway {self.gateway.name} ended twice over the roster; "
                        f"look at journalctl -u {self.gateway.unit}"
                    )
                pid, restarted = self._after_end(now).pid, True
                deadline = time.monotonic() + self._serve_timeout + len(wanted) / 2
            if time.monotonic() >= deadline:
                raise RosterError(self._describe_unserved(served))
            if time.monotonic() >= nudge_at:
                self._nudge()
                nudge_at += _UNNOTICED_SECONDS
            time.sleep(_POLL_SECONDS)

    def _nudge(self) -> None:
        """Have the gateway look at its files. OpenClaw loses sight of a roster that is as it was when it comes to read it,
        and hears of no later one until it is restarted or its own config changes: for that the time of the file is enough.
        """
        with suppress(OSError):
            os.utime(self.gateway.config, follow_symlinks=False)

    def _after_end(self, state: UnitState) -> UnitState:
        """The gateway's process ended under a roster that OpenClaw called valid: it gets one more start."""
        if not state.running:
            if state.active == "inactive" and state.result == "success":
                raise _Stopped(
                    f"gateway {self.gateway.name} was stopped before it served the new roster, which is on "
                    "disk and was found valid. Start it and run again"
                )
            self.gateway.start()
        return self.wait_ready()

    def _describe_unserved(self, served: Served | None) -> str:
        name = self.gateway.name
        if served is None:
            return f"gateway {name} did not answer in time to say whether it serves the roster"
        if not served.valid:
            return f"gateway {name} finds its config not valid: {_listed(served.issues)}"
        what = "has not applied it" if served.converged is False else "serves other entries"
        return f"gateway {name} read the roster but {what}; look at journalctl -u {self.gateway.unit}"

    def _keep_attributes(self, check: bool) -> bool:
        owner = self._roster_owner()
        found = _durable.inspect(self.path)
        if found is not None and (found.mode, found.owner) == (0o640, owner):
            return False
        if not check:
            _durable.set_attributes(self.path, mode=0o640, owner=owner)
        return True

    def _roster_owner(self) -> _durable.Owner:
        return _durable.Owner(os.geteuid(), self.gateway.owner.gid)

    def _write(self, data: bytes) -> None:
        _durable.write(self.path, data, mode=0o640, owner=self._roster_owner())

    def _read(self) -> bytes | None:
        data = _durable.read(self.path)
        if data is None and _durable.inspect(self.previous) is not None:
            raise RosterError(
                f"{self.path} is gone although gateway {self.gateway.name} had a roster; it is never taken "
                f"for an empty one. Put the one before back by `cp -p {self.previous} {self.path}` and restart "
                f"{self.gateway.unit}, as OpenClaw does not look again at a file that was away; or remove that too, "
                "to begin without agents"
            )
        return data

    def _parse(self, data: bytes | None) -> Entries:
        if data is None:
            return {}
        found: Any = None
        with suppress(ValueError):
            found = json.loads(data)
        if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
            raise RosterError(
                f"{self.path} does not hold a roster; it is never taken for an empty one. "
                f"Put it right, or put the one before back by `cp -p {self.previous} {self.path}`, and run again"
            )
        return found


def matches(wanted: Any, served: Any) -> bool:
    """Whether what a gateway tells equals what was written, where it may have redacted text."""
    if isinstance(wanted, dict) and isinstance(served, dict):
        return wanted.keys() == served.keys() and all(matches(wanted[key], served[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(served, list):
        return len(wanted) == len(served) and all(map(matches, wanted, served))
    return served == wanted or (served == REDACTED and isinstance(wanted, str))


def _encode(entries: Mapping[str, Any]) -> bytes:
    return (json.dumps(entries, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _listed(faults: list[str]) -> str:
    shown = "; ".join(faults[:5])
    return shown + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
