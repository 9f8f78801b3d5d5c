# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups and verbs, built of what commands.json describes."""

from __future__ import annotations

import datetime
import json
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from coachcli.asking import Problem, ask
from coachcli.showing import FORMS, show

EXIT_CODES = """\b
Exit status: 0 done, 2 wrong usage, 3 the API refuses what was given, 4 there is no such thing,
5 the key is not accepted, 6 the API cannot be reached or has failed."""
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_TYPES: Mapping[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool}
_FORMATS: Mapping[str, Callable[[str], Any]] = {
    "date": datetime.date.fromisoformat,
    "date-time": datetime.datetime.fromisoformat,
    "uuid": uuid.UUID,
}


class Json(click.ParamType):  # type: ignore[type-arg]
    """A value that is written as JSON."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError as error:
            self.fail(f"is not JSON: {error}", param, ctx)


class Chosen(click.Choice):  # type: ignore[type-arg]
    """One of some values, which need not be text."""

    def __init__(self, values: list[Any]) -> None:
        super().__init__([str(value) for value in values])
        self._values = {str(value): value for value in values}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._values[super().convert(str(value), param, ctx)]


class Written(click.ParamType):  # type: ignore[type-arg]
    """A string of a certain form, such as a date."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return _FORMATS[self.name](value)
        except ValueError as error:
            self.fail(f"is no {self.name}: {error}", param, ctx)


def main() -> None:
    """Entry point."""
    described = description()
    command(described)(prog_name=described["name"])


def description() -> dict[str, Any]:
    """What there is to command."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("commands.json").read_text(encoding="utf-8"))
    return found


def command(described: Mapping[str, Any]) -> click.Group:
    """The whole command."""
    top = click.Group(
        help=f"{described['title']}.", epilog=EXIT_CODES, context_settings=_CONTEXT, no_args_is_help=True
    )
    for name, group in sorted(described["groups"].items()):
        below = click.Group(name, help=group["help"], no_args_is_help=True)
        for verb in group["verbs"]:
            below.add_command(_verb(described, verb))
        top.add_command(below)
    return top


def _verb(described: Mapping[str, Any], verb: Mapping[str, Any]) -> click.Command:
    body = verb["body"]
    params: list[click.Parameter] = [
        click.Argument(
            [_dest("path", argument)], type=_type(argument, typed=True), metavar=argument["name"].upper()
        )
        for argument in verb["arguments"]
    ]
    params += [_option("query", option, typed=True) for option in verb["options"]]
    if body:
        params += [_field(field) for field in body["fields"]]
        params.append(
            click.Option(
                ["--json", "json_body"], type=Json(), help="The whole body, or the rest of it, as JSON."
            )
        )
    if verb["paged"]:
        params.append(
            click.Option(["--all", "all_pages"], is_flag=True, help="Every page, not the first alone.")
        )
    params.append(
        click.Option(
            ["-o", "--output", "form"],
            type=click.Choice(FORMS),
            default=FORMS[0],
            show_default=True,
            help="How it is shown.",
        )
    )

    def run(form: str, json_body: Any = None, all_pages: bool = False, **given: Any) -> None:
        values = {key: value for key, value in given.items() if value not in (None, ())}
        parameters = {
            told["python"]: list(value) if isinstance(value := values[dest], tuple) else value
            for where, listed in (("path", verb["arguments"]), ("query", verb["options"]))
            for told in listed
            if (dest := _dest(where, told)) in values
        }
        sent = _body(body, values, json_body) if body else None
        try:
            show(ask(described, verb, parameters, sent, all_pages=all_pages), form)
        except Problem as problem:
            click.echo(f"{described['name']}: {problem}", err=True)
            sys.exit(problem.status)

    return click.Command(
        verb["name"],
        callback=run,
        params=params,
        help="\n\n".join(filter(None, (verb["help"], verb["more"]))),
        short_help=verb["help"],
    )


def _body(body: Mapping[str, Any], values: Mapping[str, Any], whole: Any) -> dict[str, Any] | None:
    if whole is not None and not isinstance(whole, dict):
        raise click.UsageError("--json must be a JSON object")
    fields = {
        told["name"]: values[dest] for told in body["fields"] if (dest := _dest("body", told)) in values
    }
    missing = [
        told
        for told in body["fields"]
        if told["required"] and told["name"] not in {**(whole or {}), **fields}
    ]
    if not fields and whole is None and not body["required"]:
        return None
    if missing:
        raise click.UsageError(f"Missing option '--{missing[0]['flag']}'.")
    return {**(whole or {}), **fields}


def _field(told: Mapping[str, Any]) -> click.Option:
    """What --json may give as well, so it is judged when both are known."""
    help_ = f"{told['help']}  [required]".strip() if told["required"] else told["help"]
    return _option("body", {**told, "required": False, "help": help_}, typed=False)


def _option(where: str, told: Mapping[str, Any], *, typed: bool) -> click.Option:
    many = typed and told["type"] == "array"
    kind = _type({**told, "type": told["items"], "choices": []} if many else told, typed=typed)
    names = f"--{told['flag']}"
    if kind is bool and not many:
        names += f"/--no-{told['flag']}"
    return click.Option(
        [names, _dest(where, told)],
        type=kind,
        default=None,
        required=told["required"],
        multiple=many,
        help=told["help"] + (" May be given more than once." if many else ""),
    )


def _type(told: Mapping[str, Any], *, typed: bool) -> Any:
    """What click makes of a value; ``typed``: as the generated client takes it, else as JSON does."""
    if told["choices"]:
        return Chosen(told["choices"])
    if typed and told["type"] == "string" and told["format"] in _FORMATS:
        return Written(told["format"])
    return _TYPES.get(told["type"]) or Json()


def _dest(where: str, told: Mapping[str, Any]) -> str:
    """click's own name for it, which no other has."""
    name = told.get("flag") or told["name"]
    return f"{where}_" + "".join(character if character.isalnum() else "_" for character in name).lower()
