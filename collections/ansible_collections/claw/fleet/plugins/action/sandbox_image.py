# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of claw.fleet.sandbox_image: the app's document, and the command line that is made of it.

The machine is asked first. Nothing is made or sent where it has an image of these inputs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.claw.fleet.plugins.module_utils._image import Base, digest
from ansible_collections.claw.fleet.plugins.modules.sandbox_image import ARGUMENT_SPEC
from ansible_collections.claw.fleet.plugins.plugin_utils import cli, openapi, openapi_source
from ansible_collections.claw.fleet.plugins.plugin_utils.actions import place_on_machine

_FILES = Path(__file__).resolve().parents[2] / "roles" / "sandbox" / "files"
_RUNTIME = _FILES / "cli" / "coachcli"
_RECIPE = _FILES / "image"
# By their names in the role: where the image's recipe looks for them, and what interprets them, which no file of a
# collection but a module may say of itself. Isolated (-I): Python takes nothing from its environment or directory.
_PROGRAMS = {
    "command.py": ("bin/{command}", b"#!/usr/bin/python3 -I\n"),
    "shell.sh": ("sh", b"#!/usr/bin/busybox sh\n"),
}
# They would stand before the programs of that name.
_NOT_COMMANDS = frozenset({"sh", "bash", "dash", "busybox", "env", "python3", "sleep"})
# What Podman has made itself it calls localhost's; of another registry nothing is made here.
_NAME = re.compile(r"(localhost/)?[a-z0-9]+([._-][a-z0-9]+)*")
_COMMAND = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_BY_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")


def _sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# What makes a command line of a document is an input as well.
_MAKERS = [_sha256(maker) for maker in (__file__, cli.__file__, openapi.__file__, openapi_source.__file__)]


class ActionModule(ActionBase):
    """Judge the document, ask the machine, and ship the build's files to it if it has no such image."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        args = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        _refuse(args)
        settings = cli.Settings(args["command"], args["credentials"], args["proxy"])
        try:
            return self._reconcile(args, settings, variables)
        except openapi_source.DocumentError as exc:
            raise AnsibleActionFail(f"openapi {args['openapi']}: {exc}. No image was built.") from None

    def _reconcile(
        self, args: dict[str, Any], settings: cli.Settings, variables: dict[str, Any]
    ) -> dict[str, Any]:
        data = openapi_source.fetch(
            args["openapi"],
            token=args["openapi_token"],
            timeout=args["openapi_timeout"],
            ca_path=args["ca_path"],
        )
        document = openapi.judge(data, args["leave_out"])
        inputs = _inputs(document, settings, args)
        asked = {**args, "inputs": inputs, "context": None, "stage": "image", "openapi_token": None}
        found = self._module(asked, variables)
        if found.get("failed") or found["present"] or self._task.check_mode:
            return found

        def tell(what: str) -> None:
            Display().display(f"{variables.get('inventory_hostname')}: {found['image']}, {what}")

        tell(f"which differs in {', '.join(found['differs'])}, is built")
        with tempfile.TemporaryDirectory(prefix="claw-image-") as place:
            # First, as it is soon done, and fails for what cannot be said in a command line.
            tell("1 of 3: the command is made of the app's document")
            cli.make(document, settings, _RUNTIME, Path(place))
            archive = Path(place) / "context.tar"
            archive.write_bytes(_context(Path(place) / "coachcli", settings.name))
            if not found["base_present"]:
                tell("2 of 3: its base is made of Debian's packages (a minute or two)")
                made = self._module({**asked, "stage": "base"}, variables)
                if made.get("failed"):
                    return made
            with place_on_machine(self) as directory:
                remote = self._connection._shell.join_path(directory, archive.name)
                self._transfer_file(str(archive), remote)
                tell("3 of 3: it is put together, and tried whether it executes the command and nothing else")
                return self._module({**asked, "context": remote}, variables)

    def _module(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module(
            module_name="claw.fleet.sandbox_image", module_args=args, task_vars=variables
        )
        return found


def _refuse(args: dict[str, Any]) -> None:
    """Raise AnsibleActionFail for what cannot be meant."""
    if not _NAME.fullmatch(args["name"]):
        raise AnsibleActionFail(
            f"name is {args['name']!r}; it must be a plain name of small letters and digits, without a registry"
        )
    if not _COMMAND.fullmatch(args["command"]) or args["command"] in _NOT_COMMANDS:
        raise AnsibleActionFail(
            f"command is {args['command']!r}; it must be a plain name of small letters, digits, - and _, of no other program"
        )
    image = args["base"]["image"]
    if image and not _BY_DIGEST.fullmatch(image):
        raise AnsibleActionFail(
            f"base.image is {image!r}; name it by its digest (NAME@sha256:...), for a tag may mean another image tomorrow"
        )
    if image and args["base"]["renewed"]:
        raise AnsibleActionFail(
            "base.renewed is for a base of Debian's packages; to renew an image of a registry name another digest in base.image"
        )
    if args["keep"] < 0:
        raise AnsibleActionFail(f"keep is {args['keep']}; it must be 0 or more")
    for option, url in (
        ("openapi", args["openapi"]),
        ("proxy", args["proxy"]),
        ("base.mirror", args["base"]["mirror"]),
    ):
        if "@" in urlsplit(url).netloc:
            # Not the value, which has what it must not have.
            raise AnsibleActionFail(
                f"{option} has a user or a password in its URL, which would be shown or kept in the image; leave it out"
            )


def _inputs(document: openapi.Document, settings: cli.Settings, args: dict[str, Any]) -> dict[str, str]:
    """The digest of everything that makes an image another."""
    return {
        "base": digest(Base(**args["base"]).recipe),
        "command": digest([settings.name, settings.credentials, settings.proxy, _tree(_RUNTIME), _MAKERS]),
        "document": digest(document.source),
        "generator": digest(_generator()),
        "recipe": digest(_tree(_RECIPE)),
    }


def _generator() -> str:
    """The version of what generates the client."""
    try:
        return importlib.metadata.version(cli.GENERATOR)
    except importlib.metadata.PackageNotFoundError as exc:
        raise AnsibleActionFail(
            f"The Python package {cli.GENERATOR} is missing on the controller; install it beside ansible-core."
        ) from exc


def _files(place: Path) -> Iterator[tuple[str, Path]]:
    """The files below a directory by their names there, always in the same order."""
    for path in sorted(place.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield str(path.relative_to(place)), path


def _tree(place: Path) -> dict[str, str]:
    """The digest of each file below a directory."""
    return {name: _sha256(path) for name, path in _files(place)}


def _context(package: Path, command: str) -> bytes:
    """What is sent to the build: the recipe, the package, and the command that starts it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, path in _files(_RECIPE):
            goal, interpreter = _PROGRAMS.get(name, (name, b""))
            _add(
                tar, goal.format(command=command), interpreter + path.read_bytes(), program=bool(interpreter)
            )
        for name, path in _files(package):
            _add(tar, f"coachcli/{name}", path.read_bytes(), program=False)
    return archive.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, *, program: bool) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o755 if program else 0o644
    tar.addfile(entry, io.BytesIO(data))
