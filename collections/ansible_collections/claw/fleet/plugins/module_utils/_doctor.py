# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at a gateway and its machine, and telling what was found. It changes nothing.

PRIVATE to claw.fleet: may change at any time.

Each check stands for itself: what it cannot look at is a finding too, and stops none of the others.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from ansible_collections.claw.fleet.plugins.module_utils import _durable
from ansible_collections.claw.fleet.plugins.module_utils._findings import CODES
from ansible_collections.claw.fleet.plugins.module_utils._findings_code import SEVERITIES
from ansible_collections.claw.fleet.plugins.module_utils._gateway import (
    DEFAULT_CONFIG_ROOT,
    Gateway,
    GatewayError,
    Served,
)
from ansible_collections.claw.fleet.plugins.module_utils._roster import Entries, Roster, RosterError
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import SupervisorError, UnitState

MACHINE_OPTIONS: dict[str, Any] = {
    "gateway": {"type": "str", "default": ""},
    "config_root": {"type": "path", "default": DEFAULT_CONFIG_ROOT},
    "machine": {"type": "bool", "default": True},
    "url": {"type": "str", "default": ""},
    "coach_api_url": {"type": "str", "default": ""},
    "dns_hosts": {"type": "list", "elements": "str", "default": []},
    "proxy_port": {"type": "int", "default": 0},
    "files": {"type": "dict", "default": {}},
    "ready_timeout": {"type": "int", "default": 60},
}
"""What the machine is told of what it is given: the options of doc fragment claw.fleet.doctor."""
_SHOWN = 400
_COMMAND_SECONDS = 60
_POLL_SECONDS = 0.5
_STARTS = 3
_STEADY_SECONDS = 5
"""After which one that cannot do its work has mostly ended; nginx tries for half of that to have its port."""


class Finding(NamedTuple):
    """A fault: its code; one plain sentence; what it was told by, without secrets; which agent or unit it is about.

    ``fix``: instead of the code's own, where this one has to be mended otherwise, and then not by the playbook.
    """

    code: str
    sentence: str
    evidence: str = ""
    agent: str = ""
    unit: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Given:
    """What only the controller knows.

    ``app``: what the app knows of the gateway ({} for
    nothing), None if that is not known; ``rows``: the app's rows of its coaches, None if they are not known; ``url``: where the
    app should reach the gateway, "" for the tunnel's address; ``coach_api_url``: where agents ask the app; ``dns_hosts``: more
    names to look up; ``proxy_port``: 0 if there is no proxy; ``files``: {path: sha256} of files as roles would write them;
    ``patience``: seconds that a gateway which is starting is waited for.
    """

    app: Mapping[str, Any] | None = None
    rows: Sequence[Mapping[str, Any]] | None = None
    url: str = ""
    coach_api_url: str = ""
    dns_hosts: Sequence[str] = ()
    proxy_port: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    patience: float = 60


class Patient:
    """A gateway on its machine, asked for everything once. ``root``: the machine's /, another one in tests."""

    def __init__(self, name: str, config_root: str, given: Given, root: Path = Path("/")) -> None:
        self.name = name
        self.config_root = config_root
        self.given = given
        self.root = root

    @cached_property
    def gateway(self) -> Gateway | None:
        """The gateway; None where it cannot be loaded, which its own check tells."""
        try:
            found = Gateway.load(self.name, self.config_root)
            _owner = found.owner
        except (GatewayError, _durable.DurableError):
            return None
        return found

    @property
    def there(self) -> Gateway:
        """The gateway, for checks that are made only where it is there."""
        if self.gateway is None:
            raise LookupError(f"gateway {self.name} is not there")
        return self.gateway

    @property
    def config_dir(self) -> Path:
        """Where the fleet has what is this gateway's."""
        return Path(self.config_root) / self.name

    @cached_property
    def state(self) -> UnitState:
        """Its process as systemd sees it."""
        return self.there.unit_state()

    @cached_property
    def ready(self) -> bool:
        """Whether it can be asked. One that is starting, or ends first, is waited for, also where it needs another start."""
        pids: set[int] = set()
        deadline = time.monotonic() + self.given.patience
        while self.gateway is not None:
            state = self.gateway.unit_state()
            # What is said of it is what it came to.
            self.__dict__["state"] = state
            pids |= {state.pid} - {0}
            if state.active == "active" and self.gateway.ready():
                return True
            # One that is ending may be about to start again; if it is not, it will have ended.
            goes_on = state.running or state.active == "deactivating"
            if not goes_on or len(pids) > _STARTS or time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return False

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """What its process was started with; empty where there is none any more, which its own check tells."""
        pid = self.state.pid if self.gateway else 0
        try:
            text = (self.root / f"proc/{pid}/environ").read_text("utf-8", "replace") if pid else ""
        except (FileNotFoundError, ProcessLookupError):
            return {}
        return dict(variable.split("=", 1) for variable in text.split("\0") if "=" in variable)

    @cached_property
    def token_taken(self) -> bool:
        """Whether it is ready and takes the token of its file, so that it can be asked as the fleet does."""
        try:
            return self.gateway is not None and self.ready and self.gateway.accepts(self.gateway.token())
        except GatewayError:
            # A token that is gone is told by its own check.
            return False

    @cached_property
    def served(self) -> Served | None:
        """What it makes of its files; None where it cannot be asked, which other checks tell."""
        return self.gateway.served() if self.gateway and self.token_taken else None

    @cached_property
    def roster(self) -> Entries | None:
        """Its agents by the file; None if that cannot be read, which its own check tells."""
        try:
            return Roster(self.gateway).entries() if self.gateway else None
        except (RosterError, _durable.DurableError):
            return None

    @property
    def homes(self) -> Path:
        """The gateway's state directory."""
        return Path(self.there.state_dir)


def run(command: Sequence[str], seconds: float = _COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
    """What a program said. Raises SupervisorError where it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SupervisorError(f"{' '.join(command)} did not work: {error}") from error


def unit(name: str, *properties: str) -> dict[str, str]:
    """Properties of a unit, as systemd has them; empty text for what it does not know."""
    wanted = ("LoadState", "ActiveState", "SubState", "UnitFileState", "Result", *properties)
    done = run(["systemctl", "show", "--timestamp=unix", f"--property={','.join(wanted)}", name])
    if done.returncode != 0:
        raise SupervisorError(f"systemctl show {name} failed: {done.stderr.strip()}")
    values = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return {key: values.get(key, "") for key in wanted}


def stopped(name: str, code: str, what: str) -> Iterable[Finding]:
    """The finding about a unit that is there and does not run, does not come up with the machine, or runs with former files."""
    found = _steady(name)
    if found["LoadState"] in ("not-found", "masked", ""):
        return
    # One that ends at every start is never failed for good; one that waits for others for too long is told by its own look.
    dies = found["SubState"] == "auto-restart" and found["Result"] != "timeout"
    # What is ending was told to, and mostly to start anew.
    if dies or found["ActiveState"] not in ("active", "activating", "reloading", "deactivating"):
        told = f"{found['ActiveState']}/{found['SubState']}, result {found['Result']}"
        yield Finding(code, f"{what} does not run.", f"{name} is {told}", unit=name)
    elif found["UnitFileState"] == "disabled":
        yield Finding(
            "unit-disabled", f"{what} does not come up with the machine.", f"{name} is disabled", unit=name
        )
    elif name.endswith(".service") and (newer := _newer_files(found)):
        sentence = f"{what} runs with other files than it has now."
        yield Finding("unit-outdated", sentence, f"{name}: {newer}", unit=name)


def _steady(name: str) -> dict[str, str]:
    """What a unit is. One that was just started is what it is some seconds later: many end only then."""
    deadline = time.monotonic() + 2 * _STEADY_SECONDS
    while True:
        found = unit(name, "Type", "FragmentPath", "DropInPaths", "NeedDaemonReload", "ActiveEnterTimestamp")
        young = found["ActiveState"] == "active" and time.time() - _since(found) < _STEADY_SECONDS
        if not young or time.monotonic() >= deadline:
            return found
        time.sleep(_POLL_SECONDS)


def _since(found: Mapping[str, str]) -> int:
    """When it was started, in whole seconds since the epoch; 0 if that is not known."""
    return int(found.get("ActiveEnterTimestamp", "").removeprefix("@") or 0)


def _newer_files(found: Mapping[str, str]) -> str:
    """Which of a running unit's files are newer than its start, in words; "" if none is."""
    if found.get("Type") == "oneshot":
        # What it has done it has done.
        return ""
    if found.get("NeedDaemonReload") == "yes":
        return "systemd has not read its files as they are"
    since = _since(found)
    newer = []
    for path in f"{found.get('FragmentPath', '')} {found.get('DropInPaths', '')}".split():
        with suppress(OSError):
            newer += [path] if since and Path(path).stat().st_mtime >= since + 1 else []
    return f"{', '.join(newer)} is newer than its start" if newer else ""


Check = Callable[[Patient], Iterable[Finding]]


def examine(patient: Patient, checks: Mapping[str, Check]) -> list[Finding]:
    """What all checks find, each by itself; ``checks`` by words that follow "look at"."""
    found: list[Finding] = []
    for what, check in checks.items():
        try:
            for finding in check(patient):
                found.append(finding)
        except Exception as error:  # whatever it is, the others go on
            kind = (
                ""
                if isinstance(error, (GatewayError, SupervisorError, _durable.DurableError))
                else f"{type(error).__name__}: "
            )
            found.append(Finding("check-failed", f"The doctor could not look at {what}.", f"{kind}{error}"))
    return causes(found)


def plain(url: object) -> str:
    """A URL as it may be shown: without what opens it."""
    parts = urlsplit(str(url or ""))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="")) or "(none)"


def causes(found: Iterable[Finding]) -> list[Finding]:
    """Without those that are seen because of another one, and without repetitions. One unit does not explain another's."""
    found = list(dict.fromkeys(found))
    explained = {(code, _kind(finding.unit)) for finding in found for code in CODES[finding.code].explains}
    return [
        finding
        for finding in found
        if not any(
            code == finding.code and ("" in (unit, finding.unit) or unit == _kind(finding.unit))
            for code, unit in explained
        )
    ]


def _kind(name: str) -> str:
    """A unit, or what it is an instance of."""
    return re.sub("@[^.]*", "@", name)


def told(finding: Finding, gateway: str) -> dict[str, Any]:
    """A finding for programs, with what its code says."""
    code = CODES[finding.code]
    unit_name = finding.unit or f"openclaw-gateway@{gateway}.service"
    return {
        "code": finding.code,
        "severity": code.severity,
        "gateway": gateway,
        "agent": finding.agent,
        "unit": finding.unit,
        "sentence": finding.sentence,
        "evidence": " ".join(finding.evidence.split())[:_SHOWN],
        "fix": finding.fix or code.fix.format(gateway=gateway, unit=unit_name),
        "remedies": [] if finding.fix else list(code.remedies),
    }


def sorted_by_weight(findings: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The worst first."""
    return sorted(
        ({**finding} for finding in findings),
        key=lambda one: (
            SEVERITIES.index(one["severity"]),
            one["gateway"],
            list(CODES).index(one["code"]),
            one["agent"],
        ),
    )


def counted(findings: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many there are of each severity."""
    all_of_them = [finding["severity"] for finding in findings]
    return {severity: all_of_them.count(severity) for severity in SEVERITIES}


def failing(findings: Iterable[Mapping[str, Any]], fail_on: str) -> list[str]:
    """The codes that are as bad as ``fail_on`` or worse; none with "never"."""
    bad = SEVERITIES[: SEVERITIES.index(fail_on) + 1] if fail_on in SEVERITIES else ()
    return sorted({finding["code"] for finding in findings if finding["severity"] in bad})


def table(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    """For people: a line for each finding, and below it what it was told by and what to do."""
    rows = [(one["severity"], one["code"], one["gateway"], one["agent"] or one["unit"]) for one in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    lines = []
    for row, one in zip(rows, findings, strict=True):
        first = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        about = f"{row[3]}: " if row[3] and row[3] not in one["sentence"] else ""
        lines.append(f"{first}  {about}{one['sentence']}")
        lines += [f"    seen: {one['evidence']}"] if one["evidence"] else []
        safe = " (--tags fix does this)" if one["remedies"] else ""
        lines.append(f"    fix{safe}: {one['fix']}")
    return lines
