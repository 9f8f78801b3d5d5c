# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The coach's command line, made of an OpenAPI document: a generated client, and what every such command line shares.

PRIVATE to claw.fleet: may change at any time.

A Python package in a directory, the same for the same inputs to the byte:

    coachcli/*.py            as they stand in the role claw.fleet.sandbox
    coachcli/client/         made by openapi-python-client
    coachcli/commands.json   the verbs, and how each is asked of the client

It needs Python 3.11, attrs, click, dateutil, httpx and tabulate, which Debian 12 and later have as packages.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.plugin_utils.openapi import Document, Option, Verb
from ansible_collections.claw.fleet.plugins.plugin_utils.openapi_source import DocumentError

GENERATOR = "openapi-python-client"
_SECONDS = 300
_RESERVED = frozenset({"all", "help", "json", "output"})
"""Flags that every verb has."""
_SETTINGS = {
    "project_name_override": "coachcli",
    "package_name_override": "client",
    "literal_enums": True,
    # What is made is run, not read; and the same whatever formatter is at hand.
    "post_hooks": [],
}


@dataclass(frozen=True)
class Settings:
    """What a command line is told when it is made.

    ``name``: of the command; ``credentials``: its key's file, {"api_key", "api_url"}; ``proxy``: URL, or "".
    """

    name: str
    credentials: str
    proxy: str = ""


def make(document: Document, settings: Settings, runtime: Path, place: Path) -> None:
    """Have the package in ``place``, which must not be there yet; ``runtime``: what all of them share.

    Raises:
        DocumentError: an operation cannot be made a verb.
    """
    package = place / "coachcli"
    shutil.copytree(runtime, package, ignore=shutil.ignore_patterns("__pycache__"))
    said = _generate(document, package / "client")
    modules = _modules(package / "client" / "api")
    models = (package / "client" / "models" / "__init__.py").read_text(encoding="utf-8")
    groups: dict[str, Any] = {name: {"help": told, "verbs": []} for name, told in document.groups.items()}
    for verb in document.verbs:
        module = modules.get((_bare(verb.tag), _bare(verb.operation_id)))
        if module is None:
            raise DocumentError(
                f"{GENERATOR} made nothing of {verb.operation_id!r} ({verb.method.upper()} {verb.path}): {said}"
            )
        groups[verb.group]["verbs"].append(_described(verb, module))
        model = groups[verb.group]["verbs"][-1]["body"]
        if model and not re.search(rf"\b{model['model'] or '-'}\b", models):
            raise DocumentError(
                f"the body of {verb.operation_id!r} ({verb.method.upper()} {verb.path}) is no object that a client can be "
                "generated for; describe its properties in the app, or leave it out"
            )
    commands = {"title": document.title, "prefix": document.prefix, **asdict(settings), "groups": groups}
    (package / "commands.json").write_text(json.dumps(commands, indent=1, sort_keys=True) + "\n")


def _generate(document: Document, place: Path) -> str:
    """Have the client in ``place``; what the generator said."""
    with tempfile.TemporaryDirectory(prefix="claw-cli-") as scratch:
        source, settings = Path(scratch) / "openapi.json", Path(scratch) / "settings.json"
        source.write_text(json.dumps(document.source))
        settings.write_text(json.dumps(_SETTINGS))
        command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
        command += ["--path", str(source), "--config", str(settings), "--output-path", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DocumentError(f"{GENERATOR} could not be run: {error}") from error
    said = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).split())[-1000:]
    if done.returncode != 0 or not place.is_dir():
        raise DocumentError(f"{GENERATOR} cannot use it: {said}")
    return said


def _modules(api: Path) -> dict[tuple[str, str], Path]:
    """The modules of the operations, by tag and operation id."""
    return {(_bare(path.parent.name), _bare(path.stem)): path for path in api.glob("*/*.py")}


def _described(verb: Verb, module: Path) -> dict[str, Any]:
    """What the command line needs to know of a verb."""
    names, body = _signature(module, verb)
    flags: set[str] = set(_RESERVED)
    return {
        "name": verb.name,
        "help": verb.help,
        "more": verb.more,
        "module": f"{module.parent.name}.{module.stem}",
        "paged": verb.paged,
        "arguments": [_told(option, names, verb) for option in verb.arguments],
        "options": [_told(option, names, verb) | {"flag": _flag(option, flags)} for option in verb.options],
        "body": None
        if verb.body is None
        else {
            "model": body,
            "required": verb.body_required,
            "fields": [asdict(option) | {"flag": _flag(option, flags)} for option in verb.body],
        },
    }


def _signature(module: Path, verb: Verb) -> tuple[dict[str, str], str]:
    """The generated function's own names for what it takes, and the model of its body ("" if it has none)."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "_get_kwargs":
            arguments = (*node.args.args, *node.args.kwonlyargs)
            bodies = (argument for argument in arguments if verb.body is not None and argument.arg == "body")
            body = next(bodies, None)
            names = {_bare(argument.arg): argument.arg for argument in arguments if argument is not body}
            model = re.match(r"\w+", ast.unparse(body.annotation)) if body and body.annotation else None
            return names, model.group() if model else ""
    raise DocumentError(
        f"{GENERATOR} made a client of another shape for {verb.operation_id!r}; use a version that is pinned"
    )


def _told(option: Option, names: dict[str, str], verb: Verb) -> dict[str, Any]:
    name = names.pop(_bare(option.name), None)
    if name is None:
        raise DocumentError(
            f"{GENERATOR} has no parameter of its own for {option.name!r} of {verb.operation_id!r}; where another one is "
            "called alike rename it in the app, else leave the operation out"
        )
    return asdict(option) | {"python": name}


def _flag(option: Option, taken: set[str]) -> str:
    """A name for the option that no other of its verb has."""
    name = re.sub(r"[^a-z0-9]+", "-", option.name.lower()).strip("-") or "value"
    flag = name
    while flag in taken:
        flag = f"set-{flag}"
    taken |= {flag, f"no-{flag}"} if option.type == "boolean" else {flag}
    return flag


def _bare(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
