# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor's ear: what a gateway that runs has said of its work, and the kernel of its memory.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils._coach import shown
from ansible_collections.claw.fleet.plugins.module_utils._doctor import Finding, Patient, run, unit
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway
from ansible_collections.claw.fleet.plugins.module_utils._gateway_config import ConfigFile

_STUCK = "another OpenClaw process owns"
_BACKGROUND = ("Idle shared-state database cleanup", " [plugins] ")
"""Work that nobody waits for, and that does not get the lock when a busy process is putting its database in order."""
_SAID_SECONDS, _STUCK_MINUTES = 3600, 3
_MINUTE = len("2026-11-27T03:00")
_JOBS = 200
_WORDS_LINES = 2000
_REFUSAL = re.compile(r"^(\S+) \[model-fallback/decision\] .* candidate=([^/\s]+)/\S+ reason=auth\b")
"""When, and by which provider, a question was answered that its key is good for nothing."""
_HANGS = re.compile(
    r"^(\S+) \[diagnostic\] (?:stalled|stuck) session: .*?\bsessionKey=(agent:([^:\s]+):\S+) state=\S+ age=(\d+)s .*?\breason=(\S+)"
    r"(?:.*?\bactiveTool=(\S+))?"
)
"""When, which conversation of whose, for how many seconds, why, and in which tool."""
_LOOKED_AFTER = re.compile(
    r"^(\S+) \[diagnostic\] stuck session recovery outcome: status=(\S+) .*?\bsessionKey=(agent:\S+)"
)
"""When, what came of ending it, and which conversation."""
_ENDED = ("aborted", "released")
_HANGS_SECONDS = 90
"""OpenClaw says of each every 30 seconds that it hangs, or that it could not be ended."""


def said(patient: Patient) -> Iterator[Finding]:
    """What the words of the process that runs tell of its lock and of its keys; and whether the kernel ended some of it."""
    gateway = patient.gateway
    if gateway is None or not patient.state.pid:
        return
    words = _said(gateway)
    lines = stuck_words(words)
    if lines:
        sentence = f"Gateway {gateway.name}'s own lock is left taken."
        yield Finding("gateway-stuck", sentence, f"{len(lines)} times within an hour: {lines[-1]}")
    yield from _refused_keys(gateway, words)
    yield from _hanging(words)
    killed = _killed(patient.state.pid, patient.root)
    if killed:
        sentence = f"The kernel has ended processes of gateway {gateway.name} for want of memory."
        yield Finding("gateway-out-of-memory", sentence, f"oom_kill {killed} in its control group")


def _said(gateway: Gateway) -> list[str]:
    """What the process that runs wrote into the journal within the last hour."""
    since = int(max(started(gateway), time.time() - _SAID_SECONDS))
    command = [
        *("journalctl", f"--unit={gateway.unit}", f"--since=@{since}", f"--lines={_WORDS_LINES}"),
        *("--output=cat", "--no-pager", "--quiet"),
    ]
    return run(command).stdout.splitlines()


def stuck_words(lines: Sequence[str]) -> list[str]:
    """What of a journal says so. Of work in the background it is meant only if it goes on, minute after minute."""
    found = [line for line in lines if _STUCK in line]
    background = [line for line in found if any(words in line for words in _BACKGROUND)]
    minutes = {line[:_MINUTE] for line in background}
    return found if len(background) < len(found) or len(minutes) >= _STUCK_MINUTES else []


def _refused_keys(gateway: Gateway, words: Sequence[str]) -> Iterator[Finding]:
    """Those that the gateway has now, and their providers refuse. A provider's own words may have some of the key."""
    for name, times in refusals(words).items():
        key = Path(gateway.state_dir) / f"provider-{name}.key"
        with suppress(FileNotFoundError):
            since = [moment for moment in times if moment > key.lstat().st_mtime]
            if since:
                last = datetime.fromtimestamp(max(since), UTC).isoformat(timespec="seconds")
                yield Finding(
                    "provider-refuses-key",
                    f"The provider {name} refuses gateway {gateway.name}'s key.",
                    f"{len(since)} times within an hour, the last time at {last}",
                )


def refusals(lines: Sequence[str]) -> dict[str, list[float]]:
    """What of a journal says so: when, in seconds since the epoch, by provider."""
    found: dict[str, list[float]] = {}
    for match in filter(None, map(_REFUSAL.match, lines)):
        found.setdefault(match[2], []).append(datetime.fromisoformat(match[1]).timestamp())
    return found


def _hanging(words: Sequence[str]) -> Iterator[Finding]:
    """The agents of whose conversations OpenClaw says now that one does not go on. Which conversation it is is not told."""
    hanging: dict[str, tuple[str, re.Match[str]]] = {}
    for line in words:
        if match := _HANGS.match(line):
            hanging[match[2]] = (match[1], match)
        elif (match := _LOOKED_AFTER.match(line)) and match[3] in hanging:
            _when, first = hanging.pop(match[3])
            if match[2] not in _ENDED:
                hanging[match[3]] = (match[1], first)
    for when, match in hanging.values():
        if datetime.fromisoformat(when).timestamp() > time.time() - _HANGS_SECONDS:
            told = f"for {match[4]} s, {match[5]}" + (f" in {match[6]}" if match[6] else "")
            yield Finding("session-stalled", f"A conversation of {match[3]} does not go on.", told, match[3])


def jobs(patient: Patient) -> Iterator[Finding]:
    """Whether what is scheduled on it succeeds."""
    gateway = patient.gateway
    if gateway is None or not patient.token_taken:
        return
    meant = ConfigFile(gateway, {}, [], 0).applied.get("cron") or {}
    if gateway.rpc("cron.status").get("enabled") is False and meant.get("enabled", True):
        yield Finding(
            "jobs-off",
            f"Nothing that is scheduled happens on gateway {gateway.name}.",
            "it says that its scheduler is off",
            unit=gateway.unit,
        )
    for job in _jobs(gateway):
        state = job.get("state") or {}
        enabled, failed = job.get("enabled", True), state.get("lastRunStatus") == "error"
        given_up = state.get("autoDisabled") or (failed and (job.get("schedule") or {}).get("kind") == "at")
        if enabled and failed:
            code, how = "job-failing", "fails"
        elif not enabled and given_up:
            code, how = "job-given-up", "does not run any more"
        else:
            continue
        agent = str(job.get("effectiveAgentId") or job.get("agentId") or "")
        yield Finding(
            code,
            f"A job of {agent or 'nobody'} on gateway {gateway.name} {how}.",
            f"{shown(job.get('name'))}: {_failures(state)}",
            agent=agent,
        )


def _failures(state: Mapping[str, Any]) -> str:
    """What OpenClaw counts, of a job's runs or of working out its next one. What it was told may have some of a key."""
    given_up = state.get("autoDisabled") or {}
    times = given_up.get("consecutiveErrors") or state.get("consecutiveErrors") or 1
    if given_up.get("reason") == "schedule-errors":
        return f"when it is to run could not be worked out, {times} times in a row"
    reason = state.get("lastErrorReason")
    failed = f"it failed {times} times in a row" if times > 1 else "it failed"
    return failed + (f", the last time for {shown(reason)}" if reason else "")


def _jobs(gateway: Gateway) -> Iterator[dict[str, Any]]:
    """All of them, page by page."""
    offset = 0
    while True:
        page = gateway.rpc("cron.list", {"includeDisabled": True, "limit": _JOBS, "offset": offset})
        found = page.get("jobs") or []
        yield from found
        offset += len(found)
        if not found or not page.get("hasMore"):
            return


def _killed(pid: int, root: Path) -> int:
    """How many processes of its control group the kernel has ended; 0 where it does not say."""
    with suppress(OSError):
        for line in (root / f"proc/{pid}/cgroup").read_text().splitlines():
            _number, kinds, place = line.split(":", 2)
            if kinds == "":
                file = root / f"sys/fs/cgroup{place}/memory.events"
            elif "memory" in kinds.split(","):
                file = root / f"sys/fs/cgroup/memory{place}/memory.oom_control"
            else:
                continue
            with suppress(OSError):
                words = dict(line.split() for line in file.read_text().splitlines())
                if int(words.get("oom_kill", 0)):
                    return int(words["oom_kill"])
    return 0


def started(gateway: Gateway) -> float:
    """When the process of now was started, in seconds since the epoch."""
    found = unit(gateway.unit, "ExecMainStartTimestampMonotonic")["ExecMainStartTimestampMonotonic"]
    return time.time() - (time.monotonic() - int(found or 0) / 1e6)
