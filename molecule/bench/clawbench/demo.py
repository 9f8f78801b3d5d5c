"""The embedded demo: a machine with two gateways, the reference coach list, three coaches who answer.

    up     everything, from nothing; what already runs is left as it is, so it can be repeated at any time
    ask    one question to one or all of the coaches' agents, through Django, each with the coach's own key
    down   nothing of it is left but the cache of downloads

State, secrets and logs are in `.demo/` of the repository (0700), or where CLAW_DEMO_STATE says; the last part of that
path names the containers, so that two demos do not meet. With ANTHROPIC_API_KEY, OPENAI_API_KEY or GEMINI_API_KEY in
the environment of an `up` that provider answers from then on, else the stand-in. With CLAW_DEMO_ENGINE=none agents have
no tools.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clawbench import asking, engine, hosts, image
from clawbench.coachlist import ADMIN, CoachList
from clawbench.inventory import MACHINE, REAL, STAND_IN, choose_provider, clients_in, clients_of, furnish
from clawbench.progress import Steps
from clawbench.shell import ROOT, BenchError, cache_dir

INVENTORY = ROOT / "inventories" / "demo"
QUESTION = "Who are you, and for whom are you there?"
OF_CLIENTS = {
    STAND_IN: 'tool:exec {"command": "journeyloop clients list --output table"}',
    "": "Please look up who my clients are.",
}
"""What leads an agent to her tool, by the provider of models; the stand-in is told which."""
CLIENTS_SHOWN = ("name", "email", "----")
"""What stands above her clients where the tool did its work; a refusal is an answer too."""


def state_dir() -> Path:
    """The demo's state directory."""
    return Path(os.environ.get("CLAW_DEMO_STATE") or ROOT / ".demo").resolve()


def engine_of_sandboxes() -> str:
    """What agents' tools run in, as `inventories/demo` has it; with "none" they have no tools."""
    return os.environ.get("CLAW_DEMO_ENGINE") or "docker"


@dataclass(frozen=True)
class Answer:
    """What a coach's agent said, or why it did not."""

    agent_id: str
    name: str
    gateway: str
    status: str
    text: str
    seconds: float
    ok: bool


def _with_clients(answer: Answer) -> Answer:
    """The answer, which is none unless her tool showed her coach's clients and nobody else's."""
    shown = all(word in answer.text for word in CLIENTS_SHOWN)
    return replace(answer, ok=answer.ok and shown and clients_in(answer.text) == clients_of(answer.agent_id))


class Demo:
    """The demo in its state directory."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.state = state_dir()
        self.bench = hosts.Bench.of(self.state)
        self.coach_list = CoachList(self.state)

    def up(self) -> int:
        """Bring everything up and ask each coach's agent a question."""
        steps = Steps(self.console, total=7)
        with self._alone():
            provider = choose_provider(self.state)
            with steps.step("A Docker engine") as step:
                step.note = "started" if engine.up(self.state) else "was there"
            with steps.step("The image of a Debian host") as step:
                _tag, step.note = image.ensure()
            with steps.step("The machine, and who answers as the LLM provider") as step:
                changed = hosts.create(self.bench, [MACHINE], provider=provider == STAND_IN, engine=True)
                address = self.bench.facts()["hosts"][MACHINE]
                step.note = f"{MACHINE} {address}, {provider}" + ("" if changed else ", ran already")
            with steps.step("The coach list: Django with three coaches") as step:
                changed = furnish(self.bench, self.coach_list)
                step.note = self.coach_list.url + ("" if changed else ", ran already")
            for title, playbook in (
                ("The machine and its gateways: playbooks/site.yml", "site.yml"),
                ("An agent for each coach: playbooks/provision-coach.yml", "provision-coach.yml"),
            ):
                with steps.step(title) as step:
                    log = self.state / "log" / playbook.replace(".yml", ".log")
                    step.playbook(ROOT / "playbooks" / playbook, INVENTORY, log, env=self._ansible())
            sandboxed = engine_of_sandboxes() != "none"
            title = "Each looks up her coach's clients, in her sandbox" if sandboxed else "A question to each"
            with steps.step(title) as step:
                question = OF_CLIENTS.get(provider, OF_CLIENTS[""]) if sandboxed else QUESTION
                answers = self._ask(asking.coaches(self.coach_list), question, step.show)
                if sandboxed and provider == STAND_IN:
                    answers = [_with_clients(answer) for answer in answers]
                step.note = f"{sum(answer.ok for answer in answers)} of {len(answers)} answered"
        self._table(answers)
        if not all(answer.ok for answer in answers):
            return 1
        self._next(steps.seconds, provider)
        return 0

    def ask(self, coach: str, text: str) -> int:
        """Ask one coach's agent, or all."""
        coaches = asking.coaches(self.coach_list)
        if coach:
            wanted = coach.lower()
            coaches = [
                row
                for row in coaches
                if wanted in (row["agent_id"], row["agent_id"].removeprefix("coach-"), row["name"].lower())
            ]
            if not coaches:
                raise BenchError(f"No coach of the list is called {coach}. See {self.coach_list.url}/admin/.")
        with self.console.status("asking ...") as status:
            answers = self._ask(coaches, text or QUESTION, lambda detail: status.update(f"asking {detail}"))
        self._table(answers, whole=len(answers) == 1)
        return 0 if all(answer.ok for answer in answers) else 1

    def down(self) -> int:
        """Take everything away."""
        if not self.state.is_dir():
            # Somebody may have removed the directory alone.
            found = engine.answers() and hosts.destroy(self.bench)
            self.console.print("The machine is removed." if found else "Nothing of the demo is here.")
            return 0
        with self._alone():
            self.coach_list.down()
            said = "No Docker engine answers; if containers of the demo are left, start it and repeat this."
            if engine.answers():
                hosts.destroy(self.bench)
                said = engine.down(self.state)
            shutil.rmtree(self.state)
        self.console.print(f"Removed: the machine, the coach list with its data, and {self.state}. {said}")
        self.console.print(f"Kept for the next time: {cache_dir()} (make clean removes it too).")
        return 0

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One `up` or `down` at a time."""
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.state / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as held:
                raise BenchError(
                    "Another `make up` or `make down` is at work here. Wait for it to end."
                ) from held
            yield

    def _ansible(self) -> dict[str, str]:
        return {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "CLAW_DEMO_STATE": str(self.state),
            "CLAW_CACHE_DIR": str(cache_dir()),
            "ANSIBLE_FORCE_COLOR": "0",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def _ask(self, rows: list[dict[str, Any]], text: str, show: Any) -> list[Answer]:
        answers = []
        for row in rows:
            show(row["agent_id"])
            answers.append(self._ask_one(row, text))
        return answers

    def _ask_one(self, row: dict[str, Any], text: str) -> Answer:
        began = time.monotonic()
        try:
            said, ok = asking.turn(self.bench, self.coach_list, row, text), True
        except (BenchError, httpx.HTTPError) as error:
            said, ok = str(error).strip() or type(error).__name__, False
        seconds = time.monotonic() - began
        return Answer(row["agent_id"], row["name"], row["gateway"] or "", row["status"], said, seconds, ok)

    def _table(self, answers: list[Answer], *, whole: bool = False) -> None:
        table = Table("coach", "gateway", "agent", "status", "answer" if whole else "first words", "seconds")
        for answer in answers:
            words = answer.text if whole or not answer.ok else " ".join(answer.text.split()[:12])
            status = answer.status if answer.ok else f"[red]{answer.status}: no answer[/]"
            table.add_row(
                answer.name, answer.gateway, answer.agent_id, status, escape(words), f"{answer.seconds:.1f}"
            )
        self.console.print(table)

    def _next(self, seconds: float, provider: str) -> None:
        state = self.state.relative_to(ROOT) if self.state.is_relative_to(ROOT) else self.state
        who = f"The answers came from {provider}."
        if provider == STAND_IN:
            who = (
                "The answers came from a stand-in for the LLM provider, which repeats the agent's own soul; "
                f"with {' or '.join(REAL)} in the environment, `make up` lets a real model answer."
            )
        self.console.print(f"Up in {seconds:.0f} s. {who}", highlight=False)
        self.console.print(
            f"\n[bold]Open[/] {self.coach_list.url}/admin/ as [bold]{ADMIN}[/], password "
            f"[bold]{escape(self.coach_list.admin_password)}[/] (also in {state}/admin-password).\n\n"
            "[bold]Then type[/]\n"
            '  make ask COACH=anna TEXT="Please recall what I asked you"\n'
            "  source .venv/bin/activate\n"
            f"  {state}/manage add_coach coach-dora --name Dora    # or Add coach in the admin\n"
            "  ansible-playbook -i inventories/demo playbooks/provision-coach.yml --check --diff\n"
            "  ansible-playbook -i inventories/demo playbooks/provision-coach.yml -e coach=coach-dora\n"
            f"  ssh -F {state}/ssh_config {MACHINE}            # the machine, with sudo\n"
            "  make down\n",
            highlight=False,
        )


def main(arguments: list[str] | None = None) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="demo", description="The embedded demo.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="everything, from nothing")
    ask = commands.add_parser("ask", help="a question to one or all of the agents, through Django")
    ask.add_argument("--coach", default="", help="agent id or name; default: all")
    ask.add_argument("--text", default="", help=f"default: {QUESTION}")
    commands.add_parser("down", help="nothing is left")
    options = parser.parse_args(arguments)
    # Without a terminal lines are not cut at some width that nobody has.
    console = Console(width=None if sys.stdout.isatty() else 160)
    demo = Demo(console)
    again = "Nothing is lost: `make up` goes on from here; `make down` clears everything away."
    try:
        if options.command == "up":
            return demo.up()
        if options.command == "ask":
            return demo.ask(options.coach, options.text)
        return demo.down()
    except BenchError as error:
        console.print(f"[red]ERROR[/] {escape(str(error))}", highlight=False)
        if options.command == "up":
            console.print(again)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted. " + (again if options.command == "up" else ""))
        return 130
