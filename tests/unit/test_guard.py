"""The plugin that guards agents' tools: what it refuses, and whom it knows to be at work; by the node that runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUARD = (
    ROOT / "collections" / "ansible_collections" / "claw" / "fleet" / "roles" / "gateway" / "files" / "guard"
)
NODE = Path(sys.executable).parent / "node"
TOOLS = ["edit", "exec", "ls", "read", "write"]
JUDGE = """
import { readFileSync } from "node:fs";
const { refusal } = await import(`${process.argv[1]}/policy.mjs`);
const { policy, calls } = JSON.parse(readFileSync(0));
const judged = calls.map(([toolName, params]) => {
  try { return refusal({ toolName, params }, policy) ?? null; } catch (error) { return `it throws ${error}`; }
});
console.log(JSON.stringify(judged));
"""
"""Says of each call of a list why it is refused, or null."""
PERFORM = """
import { readFileSync } from "node:fs";
import { mock } from "node:test";
mock.timers.enable({ apis: ["setTimeout", "Date"] });
const { createRuns } = await import(`${process.argv[1]}/runs.mjs`);
const runs = createRuns();
const begun = [];
const deeds = {
  begin: (agentId, runId) => void runs.begin({ agentId, runId }).then(() => begun.push(runId)),
  note: (agentId, runId) => runs.note({ agentId, runId }),
  see: (agentId, runId) => runs.see({ agentId, runId }),
  end: (agentId, runId) => runs.end({ agentId, runId }),
  hold: runs.hold,
  release: runs.release,
  pass: (seconds) => mock.timers.tick(1000 * seconds),
  active: runs.active,
  begun: () => begun.splice(0),
};
const told = [];
for (const [deed, ...words] of JSON.parse(readFileSync(0))) {
  told.push(deeds[deed](...words) ?? null);
  await new Promise(setImmediate);
}
console.log(JSON.stringify(told));
"""
"""Does one thing after another, with a clock of its own, and says what came of each."""


def node(program: str, given: Any) -> Any:
    """What a program prints that is given this."""
    command = [str(NODE), "--input-type=module", "--eval", program, "--", GUARD.as_uri()]
    done = subprocess.run(command, input=json.dumps(given), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def exec_of(command: object, **more: object) -> tuple[str, dict[str, object]]:
    """A call of exec."""
    return "exec", {"command": command, **more}


ALLOWED: list[tuple[str, dict[str, object]]] = [
    exec_of("journeyloop"),
    exec_of("journeyloop clients list"),
    exec_of("  journeyloop clients list "),
    exec_of("journeyloop clients list", timeoutSeconds=5, yieldMs=100),
    # Quoted, a character means itself.
    exec_of("journeyloop clients create --name 'a; b | c > d & (e) `f` $(g)'"),
    exec_of('journeyloop clients create --name "a; b | c > d & (e)"'),
    exec_of("journeyloop clients create --name 'two\nlines'"),
    exec_of(r'journeyloop clients create --name "\`id\` and \$(id)"'),
    exec_of(r"journeyloop clients create --name a\;b\|c\`d"),
    exec_of('journeyloop clients create --name "it\'s"'),
    exec_of("journeyloop clients create --name '\"'"),
    # Nobody expands it.
    exec_of("journeyloop clients create --name $HOME"),
    ("read", {"path": "notes/today.md", "offset": 1, "limit": 5}),
    ("read", {"path": "/workspace/notes.md"}),
    ("read", {"path": "/workspace"}),
    ("read", {"path": "a..b/...c"}),
    ("ls", {}),
    ("ls", {"path": ""}),
    ("write", {"path": "notes.md", "content": "/etc/passwd is at ../../etc"}),
    ("edit", {"path": "notes.md", "oldText": "../a", "newText": "~b"}),
    # By these comes what is asked for again, under its own name.
    ("tool_call", {"id": "exec", "args": {"command": "id"}}),
    ("tool_search", {"query": "files"}),
    ("tool_describe", {"id": "read"}),
]

OTHERS = "Only `journeyloop` can be executed here"
REFUSED: list[tuple[tuple[str, dict[str, object]], str]] = [
    (exec_of("id"), f'{OTHERS}, one command at a time: this begins with "id"'),
    (exec_of(""), OTHERS),
    (exec_of(None), OTHERS),
    (exec_of(["journeyloop", "; id"]), OTHERS),
    (exec_of("journeyloopx"), OTHERS),
    (exec_of("./journeyloop"), OTHERS),
    (exec_of("/usr/local/bin/journeyloop"), OTHERS),
    (exec_of("FOO=1 journeyloop"), OTHERS),
    (exec_of("env journeyloop"), OTHERS),
    (exec_of("'journeyloop' x"), OTHERS),
    (exec_of("sh -c 'journeyloop'"), OTHERS),
    (exec_of("(journeyloop)"), OTHERS),
    (exec_of("journeyloop --help; id"), "; means nothing here"),
    (exec_of("journeyloop --help & id"), "& means nothing here"),
    (exec_of("journeyloop --help && id"), "& means nothing here"),
    (exec_of("journeyloop --help || id"), "| means nothing here"),
    (exec_of("journeyloop --help | cat"), "| means nothing here"),
    (exec_of("journeyloop --help > /workspace/x"), "> means nothing here"),
    (exec_of("journeyloop < /run/credentials/.credentials.json"), "< means nothing here"),
    (exec_of("journeyloop (id)"), "( means nothing here"),
    (exec_of("journeyloop --help\nid"), "a second line means nothing here"),
    (exec_of("journeyloop --help\rid"), "a second line means nothing here"),
    (exec_of("\njourneyloop --help"), "a second line means nothing here"),
    (exec_of("journeyloop --help\n"), "a second line means nothing here"),
    (exec_of("journeyloop $(id)"), "$ runs nothing here"),
    (exec_of('journeyloop "$(id)"'), "$ runs nothing here"),
    (exec_of("journeyloop `id`"), "` runs nothing here"),
    (exec_of('journeyloop "`id`"'), "` runs nothing here"),
    # In double quotes a backslash escapes few characters, and in single quotes none.
    (exec_of(r'journeyloop "\\$(id)"'), "$ runs nothing here"),
    (exec_of(r"journeyloop 'a\' ; id"), "; means nothing here"),
    (exec_of(r"journeyloop \\; id"), "; means nothing here"),
    (exec_of(r'journeyloop "\a" ; id'), "; means nothing here"),
    (exec_of("journeyloop 'x"), "the quote ' is not closed"),
    (exec_of('journeyloop "x'), 'the quote " is not closed'),
    (exec_of('journeyloop "x\\"'), 'the quote " is not closed'),
    (exec_of("journeyloop", env={"LD_PRELOAD": "/workspace/x.so"}), "exec takes no env here"),
    (exec_of("journeyloop", env={}), "exec takes no env here"),
    (exec_of("journeyloop", pty=True), "exec takes no pty here"),
    (exec_of("journeyloop", host="gateway"), "exec takes no host here"),
    (exec_of("journeyloop", elevated=True), "exec takes no elevated here"),
    (exec_of("journeyloop", workdir="/run/credentials"), "exec takes no workdir here"),
    (exec_of("journeyloop", background=True, node="x"), "exec takes no background, node here"),
    (("read", {"path": "/etc/passwd"}), "only files of the workspace can be reached"),
    (("read", {"path": "/run/credentials/.credentials.json"}), "only files of the workspace"),
    (("read", {"path": "../coach-ben/SOUL.md"}), "only files of the workspace"),
    (("read", {"path": "notes/../../x"}), "only files of the workspace"),
    (("read", {"path": "/workspace/../run/credentials/.credentials.json"}), "only files of the workspace"),
    (("read", {"path": "/workspace2/x"}), "only files of the workspace"),
    (("read", {"path": "//etc/passwd"}), "only files of the workspace"),
    (("read", {"path": "/"}), "only files of the workspace"),
    (("read", {"path": "~/x"}), "only files of the workspace"),
    (("read", {"path": "@/etc/passwd"}), "only files of the workspace"),
    (("read", {"path": "file:///etc/passwd"}), "only files of the workspace"),
    (("read", {"path": ["/etc/passwd"]}), "only files of the workspace"),
    (("read", {"file_path": "/etc/passwd"}), 'file_path is "/etc/passwd"'),
    (("write", {"path": "/tmp/x", "content": ""}), "only files of the workspace"),
    (("edit", {"path": "/etc/passwd", "oldText": "a", "newText": "b"}), "only files of the workspace"),
    (("ls", {"path": ".."}), "only files of the workspace"),
    (("ls", {"directory": "/"}), "only files of the workspace"),
    (("process", {"action": "list"}), "The fleet has not named process as a tool of its agents."),
    (("sessions_spawn", {"task": "x"}), "The fleet has not named sessions_spawn"),
    (("gateway", {}), "The fleet has not named gateway"),
    (("EXEC", {"command": "journeyloop"}), "The fleet has not named EXEC"),
    (("", {}), "The fleet has not named"),
]


@cache
def judged() -> list[str | None]:
    """What becomes of every call of both lists."""
    policy = {"tools": TOOLS, "command": "journeyloop"}
    calls = [*ALLOWED, *(call for call, _words in REFUSED)]
    found: list[str | None] = node(JUDGE, {"policy": policy, "calls": calls})
    assert len(found) == len(calls)
    return found


@pytest.mark.parametrize("number", range(len(ALLOWED)), ids=lambda number: json.dumps(ALLOWED[number]))
def test_what_is_allowed(number: int) -> None:
    assert judged()[number] is None


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=lambda number: json.dumps(REFUSED[number][0]))
def test_what_is_refused(number: int) -> None:
    words = judged()[len(ALLOWED) + number]
    assert words is not None and REFUSED[number][1] in words


def test_a_tool_that_was_not_named_stays_closed() -> None:
    read: list[Any] = ["read", {"path": "x"}]
    assert node(JUDGE, {"policy": {"tools": ["exec"], "command": "id"}, "calls": [exec_of("id"), read]}) == [
        None,
        "The fleet has not named read as a tool of its agents.",
    ]
    # Without its config it blocks everything: OpenClaw takes a handler that throws for a refusal.
    assert "it throws" in node(JUDGE, {"policy": {}, "calls": [exec_of("id")]})[0]


Deed = tuple[object, ...]
STORIES: dict[str, list[tuple[Deed, object]]] = {
    "who is at work, and how often": [
        (("active",), {}),
        (("begin", "anna", "1"), None),
        (("begun",), ["1"]),
        (("note", "anna", "1"), None),
        (("note", "anna", "2"), None),
        (("begin", "ben", "3"), None),
        (("active",), {"anna": 2, "ben": 1}),
        (("end", "anna", "1"), None),
        (("end", "anna", "1"), None),
        (("active",), {"anna": 1, "ben": 1}),
        (("end", "anna", "2"), None),
        (("end", "clara", "9"), None),
        (("active",), {"ben": 1}),
    ],
    "only of a run and an agent that are named": [
        (("note",), None),
        (("begin", "anna"), None),
        (("active",), {}),
    ],
    "who is at work cannot be held": [
        (("begin", "anna", "1"), None),
        (("hold", "anna", 5), False),
        (("hold", "ben", 5), True),
        (("end", "anna", "1"), None),
        (("hold", "anna", 5), True),
        (("hold", "", 5), False),
    ],
    "a turn waits while its agent is held, and nobody else's": [
        (("hold", "anna", 5), True),
        (("begin", "anna", "1"), None),
        (("begin", "anna", "2"), None),
        (("begin", "ben", "3"), None),
        (("begun",), ["3"]),
        (("active",), {"ben": 1}),
        (("release", "anna"), True),
        (("begun",), ["1", "2"]),
        (("active",), {"anna": 2, "ben": 1}),
        (("release", "anna"), False),
        (("hold", "anna", 5), False),
    ],
    "whoever holds may not live to release": [
        (("hold", "anna", 5), True),
        (("begin", "anna", "1"), None),
        (("pass", 4.9), None),
        (("begun",), []),
        (("pass", 0.2), None),
        (("begun",), ["1"]),
        (("release", "anna"), False),
    ],
    "nobody is held for longer than half a minute": [
        (("hold", "anna", 3600), True),
        (("begin", "anna", "1"), None),
        (("pass", 29.9), None),
        (("begun",), []),
        (("pass", 0.2), None),
        (("begun",), ["1"]),
    ],
    "without a number of seconds she is held for no time": [
        (("hold", "anna", None), True),
        (("begin", "anna", "1"), None),
        (("pass", 0.01), None),
        (("begun",), ["1"]),
    ],
    "a run that nothing was heard of for an hour is over": [
        (("begin", "anna", "1"), None),
        (("begin", "anna", "2"), None),
        (("pass", 3599), None),
        (("hold", "anna", 5), False),
        (("see", "anna", "2"), None),
        (("see", "anna", "3"), None),
        (("see", "ben", "1"), None),
        (("pass", 2), None),
        (("active",), {"anna": 1}),
        (("hold", "anna", 5), False),
        (("pass", 3599), None),
        (("hold", "anna", 5), True),
        (("active",), {}),
    ],
    "held anew, the former end does not count": [
        (("hold", "anna", 5), True),
        (("begin", "anna", "1"), None),
        (("pass", 4), None),
        (("hold", "anna", 5), True),
        (("pass", 4), None),
        (("begun",), []),
        (("pass", 2), None),
        (("begun",), ["1"]),
    ],
}


@pytest.mark.parametrize("name", STORIES)
def test_runs(name: str) -> None:
    story = STORIES[name]
    assert node(PERFORM, [deed for deed, _told in story]) == [told for _deed, told in story]
