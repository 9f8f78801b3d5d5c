"""Ending a run at any of its system calls, or making that call fail: from outside, by strace, with no hook in our code.

Three things that strace does decide how this is built:

- A call is tampered with only if it is traced too; `-e trace=none` would quietly do nothing.
- `when=N` counts each kind of call for itself, and anew in each process. So a point is a call and a number of that
  call, and only the module's own process is traced, without `-f`: what a module starts (systemctl, OpenClaw's
  validation) lives on when it is killed, as it would if somebody else killed it.
- SIGKILL strikes as the call is entered, and the call is not made. What a kill after the last call would leave is
  what a kill at the next one finds.

A module is recorded as Ansible sends it, by an interpreter which keeps a copy, and then replayed without Ansible, with
other arguments as needed. Points are the calls by which a process changes files or speaks to another, whatever they are
about: only what Ansible itself unpacks below /tmp is left out. Errors go to files below the gateway's directories alone,
because a module that cannot tell its result is not at fault; and `openat` counts where it makes a file.

The controller cannot be counted like that, for it is many processes: the coordinator reads what strace tells of all of
them and kills them all, ssh included, after the N-th call. Each call is delayed a little, so that the next one does not
overtake the kill.
"""

from __future__ import annotations

import ast
import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clawbench.shell import program

from .fleet import INVENTORY, ROOT, Fleet, until

SOAK = os.environ.get("CLAW_SOAK") == "all"
"""Every point instead of a sample."""
SEED = os.environ.get("CLAW_SEED") or (str(secrets.randbelow(10**6)) if SOAK else "1")
"""What the samples are drawn by. The same in every `make test`, so that a change is judged by what it changes."""
FROM = os.environ.get("CLAW_SOAK_FROM", "")
"""NAME:N to go on with the sweep of that name at its N-th round; those that run before it are left out."""

# What repeats while something is waited for comes last, so that a round's number means the same in every run.
CALLS = (
    *("mkdir", "mkdirat", "ftruncate", "pwrite64", "write", "fsync", "fdatasync", "fchmod", "fchown"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "connect", "sendto", "sendmsg"),
)
ASKS = ("connect", "sendto", "sendmsg")
ROW = (8, 2)
"""Of a row of asking with nothing changed in between, as where something is waited for, its first and its last: each time
it finds the machine as the time before, and how often it asks depends on how busy the machine is."""
ERRORS = {
    "ENOSPC": ("mkdir", "mkdirat", "openat", "pwrite64", "write", "rename", "renameat", "renameat2"),
    "EIO": ("write", "fsync", "fdatasync", "rename", "renameat", "renameat2"),
}
WORDS = {"ENOSPC": "No space left on device", "EIO": "Input/output error"}
Say = Callable[[str], None]
_KILLED = 128 + signal.SIGKILL
_PLACE = "/root/kills"
_OURS = ("/etc/claw/", "/var/lib/claw/", "/opt/claw/")
_LOG = "--- calls"
_SHIPPED = ("archive", "context", "shipment")
"""Which arguments name what came from the controller for this module alone."""
_ANY_OF_THEM = r"\|".join(_SHIPPED)
_PYTHON = f"""#!/bin/sh
# What Ansible takes for Python: keeps a copy of each module, of the shipment that came with it too, and runs the one that
# is to be hit under strace.
script=$(mktemp {_PLACE}/sent.XXXXXX) && cat >"$script" || exit
module=$(sed -n "s/^module_fqn='.*\\.\\([^.]*\\)',$/\\1/p" "$script")
cp "$script" "{_PLACE}/$module.sent"
shipped=$(sed -n 's/^params=.*"\\({_ANY_OF_THEM}\\)": "\\([^"]*\\)".*/\\2/p' "$script")
[ -z "$shipped" ] || {{ rm -rf "{_PLACE}/$module.shipped" && cp -r "$shipped" "{_PLACE}/$module.shipped"; }}
if [ -n "$module" ] && [ "$module" = "$(cat {_PLACE}/target)" ]; then
  : >{_PLACE}/target
  exec strace $(cat {_PLACE}/options) /usr/bin/python3 "$script"
fi
exec /usr/bin/python3 "$script"
"""


@dataclass(frozen=True)
class Point:
    """The N-th call of a kind in a process: where it is killed or, with ``error``, what the call answers."""

    call: str
    number: int
    error: str = ""
    what: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.call}:{self.number}" + (f"={self.error}" if self.error else "")

    @property
    def options(self) -> tuple[str, ...]:
        """What strace is to be told."""
        deed = f"error={self.error}" if self.error else "signal=KILL"
        return ("-e", f"trace={self.call}", "-e", f"inject={self.call}:{deed}:when={self.number}")


WATCH = ("-e", "trace=" + ",".join(f"?{call}" for call in (*CALLS, "openat")))


@dataclass
class Run:
    """What came of a replay: its status, its result (nothing if it was killed), what it said, what strace saw."""

    rc: int
    result: dict[str, Any]
    said: str
    calls: list[str]

    @property
    def killed(self) -> bool:
        """Whether it met its point."""
        return self.rc == _KILLED

    @property
    def hit(self) -> bool:
        """Whether an error was put into a call about the fleet's own files."""
        return any("(INJECTED)" in call and _is_ours(call) for call in self.calls)

    @property
    def reasons(self) -> str:
        """Why it failed, as a whole and row by row."""
        rows = [row.get("error") for row in self.result.get("results") or []]
        told = [self.result.get("msg"), *(error["reason"] for error in rows if error)]
        told += list((self.result.get("wrong") or {}).values())
        return "\n".join(filter(None, told))


def points_of(calls: Sequence[str], errors: bool = False) -> list[Point]:
    """The points of a run that strace has watched, in an order which does not depend on how long it waited."""
    counted: dict[str, int] = {}
    found: list[Point] = []
    rows: dict[str, list[Point]] = {}
    for line in calls:
        call = line.partition("(")[0]
        counted[call] = number = counted.get(call, 0) + 1
        if not errors and call in CALLS and "/tmp/ansible_" not in line:
            if call in ASKS:
                rows.setdefault(call, []).append(Point(call, number, what=line))
            else:
                found += [*_ends_of(rows), Point(call, number, what=line)]
                rows.clear()
        if errors and _is_ours(line) and (call != "openat" or "O_CREAT" in line):
            found += [Point(call, number, name, line) for name, of in ERRORS.items() if call in of]
    found += _ends_of(rows)
    if not errors:
        # One more of each: only a run that is not killed shows that it was the last.
        found += [Point(call, counted[call] + 1) for call in {point.call for point in found}]
    order = {call: position for position, call in enumerate(("openat", *CALLS))}
    return sorted(found, key=lambda point: (order[point.call], point.number, point.error))


def _ends_of(rows: Mapping[str, list[Point]]) -> list[Point]:
    first, last = ROW
    return [
        point
        for row in rows.values()
        for number, point in enumerate(row)
        if number < first or number >= len(row) - last
    ]


def _is_ours(call: str) -> bool:
    return any(place in call for place in _OURS)


class Machine:
    """The machine, with strace on it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._container = fleet.bench.container("machine1")

    def __enter__(self) -> Machine:
        self.fleet.sh(
            "command -v strace >/dev/null || { apt-get update -qq && apt-get install -qq strace; } >/dev/null"
        )
        self.fleet.sh(f"rm -rf {_PLACE} && mkdir -m 0700 {_PLACE} && : >{_PLACE}/target")
        self._put("python", _PYTHON)
        self.fleet.sh(f"chmod 0700 {_PLACE}/python")
        self._put("probe.py", Path(__file__).with_name("probe.py").read_text())
        return self

    def __exit__(self, *_exception: object) -> None:
        self.fleet.sh(f"rm -rf {_PLACE}")

    @property
    def variables(self) -> dict[str, Any]:
        """What makes a play use our interpreter."""
        return {"ansible_python_interpreter": f"{_PLACE}/python"}

    def aim(self, module: str, point: Point) -> None:
        """Have the next play's first process of a module meet its point."""
        options = ("-qq", "-y", "-o", f"{_PLACE}/log", *point.options)
        self._put("options", " ".join(options))
        self._put("log", "")
        self._put("target", module)

    def struck(self) -> bool:
        """Whether it did, since `aim`."""
        log = self.fleet.machine.run(f"tail -n 1 {_PLACE}/log")
        return "killed by SIGKILL" in log.stdout

    def keep(self, module: str) -> dict[str, Any]:
        """Have the module as the last play sent it ready for replays; the arguments it had."""
        sent = self.fleet.sh(f"cat {_PLACE}/{module}.sent")
        line = re.compile(r"^params=(.*),$", re.MULTILINE)
        (params,) = line.findall(sent)
        self._put(f"{module}.py", line.sub(f"params=open('{_PLACE}/{module}.json').read(),", sent))
        arguments: dict[str, Any] = json.loads(ast.literal_eval(params))["ANSIBLE_MODULE_ARGS"]
        kept = {name: f"{_PLACE}/{module}.shipped" for name in _SHIPPED if arguments.get(name)}
        return arguments | kept

    def replay(self, module: str, arguments: dict[str, Any], options: Iterable[str] = ()) -> Run:
        """Run the module as Ansible would, under strace if it is given any options."""
        strace = " ".join(("strace", "-qq", "-y", "-o", f"{_PLACE}/log", *options)) if options else ""
        done = self._exec(
            f"cat >{_PLACE}/{module}.json; : >{_PLACE}/log; "
            f"{strace} /usr/bin/python3 {_PLACE}/{module}.py </dev/null; rc=$?; "
            f"echo '{_LOG}' >&2; cat {_PLACE}/log >&2; exit $rc",
            json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        )
        said, _mark, calls = done.stderr.partition(_LOG + "\n")
        try:
            result = json.loads(done.stdout) if done.stdout.strip() else {}
        except ValueError:
            result = {}
            said += done.stdout
        return Run(done.returncode, result, said, calls.splitlines())

    def probe(self, gateway: str) -> dict[str, Any]:
        """What is on the machine now."""
        found: dict[str, Any] = json.loads(self.fleet.sh(f"python3 {_PLACE}/probe.py {gateway}"))
        return found

    def _put(self, name: str, content: str) -> None:
        done = self._exec(f"cat >{_PLACE}/{name}", content)
        assert done.returncode == 0, done.stderr

    def _exec(self, command: str, stdin: str) -> subprocess.CompletedProcess[str]:
        words = ["docker", "exec", "-i", self._container, "sh", "-c", command]
        return subprocess.run(words, input=stdin, text=True, capture_output=True, check=False)


@dataclass
class Step:
    """One run of a module: what goes before it, how it is called, and how to see that nothing is left to do."""

    name: str
    module: str
    arguments: Callable[[], dict[str, Any]]
    prepare: Callable[[], None] = lambda: None
    again: Callable[[], dict[str, Any]] | None = None
    calls: list[str] = field(default_factory=list)
    """What it does undisturbed, as strace saw it."""


_waiting = [FROM.partition(":")[0]] if SOAK and FROM else []
"""The sweep that is to be gone on with, until it is met."""


def first_round(name: str) -> int | None:
    """The round at which the sweep of this name begins; None if it was before the one to be gone on with."""
    if name not in _waiting:
        return None if _waiting else 1
    _waiting.clear()
    return int(FROM.partition(":")[2] or 1)


def survey(machine: Machine, steps: list[Step]) -> None:
    """Have the calls of all steps: go round once, undisturbed, where they are not known."""
    if all(step.calls for step in steps):
        return
    for step in steps:
        step.prepare()
        run = machine.replay(step.module, step.arguments(), WATCH)
        assert run.rc == 0 and not run.reasons, (step.name, run.result, run.said)
        step.calls = run.calls


@dataclass
class Striker:
    """Runs a step at a point; then again, which makes it good; then once more, which finds nothing to do."""

    machine: Machine
    look: Callable[[Step], dict[str, Any]]
    """Looks whether all holds that must hold after this step; what there is."""

    def kill(self, step: Step, point: Point | None) -> bool:
        """Kill the step's process at the point."""
        step.prepare()
        arguments = step.arguments()
        run, where = self._killed(step, arguments, point)
        self._make_good(step, arguments, where)
        return run.killed

    def fail(self, step: Step, point: Point | None) -> bool:
        """Have the call at the point fail."""
        step.prepare()
        arguments = step.arguments()
        run, where = self._failed(step, arguments, point)
        self._make_good(step, arguments, where)
        return run.hit

    def _killed(self, step: Step, arguments: dict[str, Any], point: Point | None) -> tuple[Run, str]:
        run = self.machine.replay(step.module, arguments, point.options if point else ())
        where = f"{step.name} {point}: {run}"
        assert run.killed or (run.rc == 0 and not run.reasons), where
        return run, where

    def _failed(self, step: Step, arguments: dict[str, Any], point: Point | None) -> tuple[Run, str]:
        run = self.machine.replay(step.module, arguments, point.options if point else ())
        where = f"{step.name} {point}: {run}"
        assert "Traceback" not in run.said and "exception" not in run.result, where
        assert run.rc == 0 or run.hit, where
        if run.reasons:
            assert point and WORDS[point.error] in run.reasons, where
            assert any(place in run.reasons for place in _OURS), where
        return run, where

    def _make_good(self, step: Step, arguments: dict[str, Any], where: str) -> dict[str, Any]:
        rerun = self.machine.replay(step.module, arguments)
        assert rerun.rc == 0 and not rerun.reasons, f"{where}; then {rerun}"
        again = self.machine.replay(step.module, (step.again or step.arguments)())
        assert again.rc == 0 and not again.reasons, f"{where}; then {again}"
        assert again.result["changed"] is False, f"{where}; then {again}"
        return self.look(step)


@dataclass
class GatewayStriker(Striker):
    """What is struck is of a gateway, which serves what is written all the time, and whose pending secrets stay."""

    gateway: str

    def kill(self, step: Step, point: Point | None) -> bool:
        """Kill the step's process at the point."""
        step.prepare()
        arguments = step.arguments()
        run, where = self._killed(step, arguments, point)
        pends = run.killed and step.name.endswith("pending")
        pending = self.machine.probe(self.gateway)["pending"] if pends else {}
        found = self._make_good(step, arguments, where)
        for name in pending.keys() & found["pending"].keys():
            assert found["pending"][name] == pending[name], f"a retry made another secret: {where}"
        return run.killed

    def fail(self, step: Step, point: Point | None) -> bool:
        """Have the call at the point fail."""
        step.prepare()
        arguments, before = step.arguments(), self.machine.probe(self.gateway)
        run, where = self._failed(step, arguments, point)
        between = self.machine.probe(self.gateway)
        assert between["served"] == between["roster"], f"what is served is not what is written: {where}"
        after = self._make_good(step, arguments, where)
        assert between["roster"] in (before["roster"], after["roster"]), where
        return run.hit


class Sweep:
    """Steps that lead in a circle, each to be hit at each of its points, one a round."""

    def __init__(self, name: str, machine: Machine, steps: list[Step], say: Say) -> None:
        self.name = name
        self.steps = steps
        self._machine = machine
        self._say = say

    def run(
        self, strike: Callable[[Step, Point | None], bool], *, samples: int, errors: bool = False
    ) -> None:
        """Go round: ``strike`` runs a step at a point, or undisturbed, and says whether it was hit."""
        begin = first_round(self.name)
        if begin is None:
            return
        survey(self._machine, self.steps)
        points = [points_of(step.calls, errors) for step in self.steps]
        hits = [0 for _step in self.steps]
        chosen = _all(points, begin) if SOAK else self._sample(points, samples)
        for number, aims in chosen:
            for index, (step, point) in enumerate(zip(self.steps, aims, strict=True)):
                if not strike(step, point) or point is None:
                    continue
                hits[index] += 1
                # How often it asks while it waits is the machine's doing, and has no end on a busy one.
                if not point.what and point.call not in ASKS:
                    points[index].append(Point(point.call, point.number + 1))
            shown = ", ".join(
                f"{step.name} {point}" for step, point in zip(self.steps, aims, strict=True) if point
            )
            self._say(f"{self.name}:{number}  {shown}")
        known = [sum(1 for point in of_step if point.what) for of_step in points]
        told = ", ".join(
            f"{step.name} {hit} of {count}" for step, hit, count in zip(self.steps, hits, known, strict=True)
        )
        # A point may not be met, as where something is waited for; but not all of them.
        assert sum(hits) > 0, f"{self.name}: nothing was hit"
        self._say(f"{self.name}: hit at {sum(hits)} of {sum(known)} points ({told}); CLAW_SEED={SEED}")

    def _sample(self, points: list[list[Point]], samples: int) -> Iterator[tuple[int, list[Point | None]]]:
        choose = random.Random(f"{SEED} {self.name}")  # noqa: S311 - which points, not a secret
        for number in range(1, samples + 1):
            yield number, [choose.choice([point for point in of_step if point.what]) for of_step in points]


def _all(points: list[list[Point]], first: int) -> Iterator[tuple[int, list[Point | None]]]:
    number = first
    # There may be more of them on the way.
    while number <= max(map(len, points)):
        yield number, [of_step[number - 1] if number <= len(of_step) else None for of_step in points]
        number += 1


class Controller:
    """ansible-playbook on this side, every process of it under strace's eyes.

    What it writes, makes and removes counts where it is the fleet's own, as a token's file: the rest is Ansible's.
    """

    CALLS = ("connect", "sendto", "sendmsg", "rename", "renameat", "renameat2", "fsync")
    FILES = ("write", "mkdir", "mkdirat", "unlink", "unlinkat")
    _LINE = re.compile(rf"^\d+ +(?:{'|'.join(CALLS)})\(")
    _FILE = re.compile(rf"^\d+ +(?:{'|'.join(FILES)})\(")
    _NOISE = ("AF_NETLINK", "ENOENT")

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._strace = program("strace", "strace")

    def play(self, playbook: str, end_at: int, *arguments: str) -> tuple[int | None, int, str]:
        """Run a playbook and kill all of it at its N-th call: (status or None if killed, calls, output and last call)."""
        delayed = ",".join(f"?{call}" for call in self.CALLS)
        traced = ",".join((delayed, *(f"?{call}" for call in self.FILES)))
        reading, writing = os.pipe()
        command = [self._strace, "-f", "-y", "--seccomp-bpf", "-qq", "-o", f"/dev/fd/{writing}"]
        command += ["-e", "signal=none", "-e", f"trace={traced}", "-e", f"inject={delayed}:delay_enter=5000"]
        command += [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(INVENTORY)]
        environment = {**self.fleet.environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        with tempfile.TemporaryFile("w+") as output:
            strace = subprocess.Popen(
                [*command, str(ROOT / playbook), *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[writing],
                start_new_session=True,
            )
            os.close(writing)
            seen, last = 0, ""
            with os.fdopen(reading) as log:
                for line in log:
                    if self._counts(line):
                        seen, last = seen + 1, line
                    if seen == end_at:
                        _end_all(strace)
                        break
            rc = strace.wait(60)
            output.seek(0)
            return None if seen == end_at else rc, seen, output.read() + last

    def _counts(self, line: str) -> bool:
        if self._LINE.match(line):
            return not any(noise in line for noise in self._NOISE)
        return bool(self._FILE.match(line)) and f"{self.fleet.state}/service-token" in line


class Inventory:
    """ansible-inventory on this side, with a cache of its own, which is all that it writes but what is Ansible's."""

    CALLS = ("mkdir", "openat", "write", "rename", "chmod")

    def __init__(self, fleet: Fleet, place: Path) -> None:
        self._cache = place / "cache"
        self._log = place / "strace.log"
        self._strace = program("strace", "strace")
        self._environment = {
            **fleet.environment,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_INVENTORY_CACHE": "1",
            "ANSIBLE_INVENTORY_CACHE_PLUGIN": "ansible.builtin.jsonfile",
            "ANSIBLE_INVENTORY_CACHE_CONNECTION": str(self._cache),
        }

    def points(self) -> list[Point]:
        """Where a first read writes: to be killed there, or to fail."""
        self.forget()
        counted: dict[str, int] = {}
        found = []
        for line in self.read("-e", "trace=" + ",".join(self.CALLS)).calls:
            call = line.partition("(")[0]
            counted[call] = number = counted.get(call, 0) + 1
            if str(self._cache) in line and (call != "openat" or "O_CREAT" in line):
                found += [Point(call, number, error, line) for error in ("", "ENOSPC", "EIO")]
        return found

    def forget(self) -> None:
        """Have no cache."""
        shutil.rmtree(self._cache, ignore_errors=True)

    def read(self, *options: str) -> Run:
        """Read the inventory; its result is what Ansible makes of it."""
        command = [self._strace, "-qq", "-y", "-o", str(self._log), *options] if options else []
        command += [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(INVENTORY), "--list"]
        done = subprocess.run(
            command, cwd=ROOT, env=self._environment, text=True, capture_output=True, check=False
        )
        result = json.loads(done.stdout) if done.returncode == 0 else {}
        # strace ends as what it has traced did.
        killed = done.returncode == -signal.SIGKILL
        rc = _KILLED if killed else done.returncode
        return Run(rc, result, done.stderr, self._log.read_text().splitlines() if options else [])


def _end_all(strace: subprocess.Popen[bytes]) -> None:
    """Kill every process that this strace holds, wherever it has detached to, until there is none."""

    def held() -> list[int]:
        found = []
        for status in Path("/proc").glob("[0-9]*/status"):
            with suppress(OSError):
                if re.search(rf"^TracerPid:\t{strace.pid}$", status.read_text(), re.MULTILINE):
                    found.append(int(status.parent.name))
        return found

    def none_left() -> bool:
        pids = held()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    until("all of the controller's processes to end", none_left)
