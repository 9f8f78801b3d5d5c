# SPDX-License-Identifier: GPL-3.0-or-later
"""manage.py add_coach AGENT_ID --name NAME [--var KEY=VALUE …] [--client NAME …]"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from claw_fleet.coachlist import people
from claw_fleet.coachlist.models import CompanionProfile, Wanted


class Command(BaseCommand):
    """Adds a coach, or brings one who is there to the given name and variables."""

    help = (
        "Add a coach who should have an agent. Done again with the same values it changes nothing; with "
        "others it changes name and variables. It never resumes a coach who is paused or removed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """An id, a name, variables, clients."""
        parser.add_argument("agent_id", help="for example coach-anna; it cannot be changed later")
        parser.add_argument("--name", help="required for a coach who is not there yet")
        parser.add_argument(
            "--var",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="a template variable; can be given several times. Of a coach who is there the others stay.",
        )
        parser.add_argument(
            "--client",
            action="append",
            default=[],
            metavar="NAME",
            help="a client of hers; can be given several times. One of that name who is there stays as she is.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it, and say what was done."""
        agent_id: str = options["agent_id"]
        given = dict(_variable(item) for item in options["var"])
        coach = CompanionProfile.objects.filter(agent_id=agent_id).first()
        if coach is None:
            coach = CompanionProfile(agent_id=agent_id, name=options["name"] or "", vars=given)
            self._add(coach)
        else:
            self._change(coach, options["name"], given)
        for name in options["client"]:
            coach.clients.get_or_create(name=name)

    def _change(self, coach: CompanionProfile, name: str | None, given: dict[str, str]) -> None:
        variables = {**coach.vars, **given} if isinstance(coach.vars, dict) else given
        wished = {"name": coach.name if name is None else name, "vars": variables}
        changes = {field: value for field, value in wished.items() if getattr(coach, field) != value}
        for field, value in changes.items():
            setattr(coach, field, value)
        _validate(coach, exclude=set(people.EDITABLE - changes.keys()) | {"agent_id"})
        people.edit(coach.pk, **changes)
        said = f"changed: {', '.join(sorted(changes))}" if changes else "is there already; nothing changed"
        self.stdout.write(f"{coach.agent_id} {said}.")
        if coach.wanted != Wanted.RUNNING:
            self.stderr.write(
                f"{coach.agent_id} is wanted {coach.wanted}, and stays so. "
                "In the admin, Provision has it running again."
            )

    def _add(self, coach: CompanionProfile) -> None:
        if not coach.name:
            raise CommandError(f"{coach.agent_id} is not there yet: give --name.")
        _validate(coach, exclude=set())
        coach.save(force_insert=True)
        self.stdout.write(
            f"{coach.agent_id} added: wanted running, pending. The fleet's next run provisions it."
        )


def _variable(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise CommandError(f"--var {item}: write it as KEY=VALUE.")
    return key, value


def _validate(coach: CompanionProfile, exclude: set[str]) -> None:
    try:
        coach.full_clean(exclude=exclude)
    except ValidationError as exc:
        lines = [f"{field}: {' '.join(texts)}" for field, texts in exc.message_dict.items()]
        raise CommandError(" ".join(lines)) from None
