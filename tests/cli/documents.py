"""OpenAPI documents small enough to be read, and the command lines made of them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.plugin_utils import cli, openapi

ROLE = (
    Path(__file__).resolve().parents[2]
    / "collections"
    / "ansible_collections"
    / "claw"
    / "fleet"
    / "roles"
    / "sandbox"
)
KEY = "key-never-to-be-seen"


def operation(operation_id: str | None = "pets_list", **more: Any) -> dict[str, Any]:
    """An operation of the tag `pets` that answers anything."""
    named = {} if operation_id is None else {"operationId": operation_id}
    return {"tags": ["pets"], "responses": {"200": {"description": ""}}, **named, **more}


def parameter(name: str, where: str = "query", **schema: Any) -> dict[str, Any]:
    """A parameter; a string unless the schema says something else."""
    return {"name": name, "in": where, "required": where == "path", "schema": {"type": "string", **schema}}


def body(**schema: Any) -> dict[str, Any]:
    """A body in JSON; an object unless the schema says something else."""
    return {"required": True, "content": {"application/json": {"schema": {"type": "object", **schema}}}}


def document(paths: dict[str, Any], **more: Any) -> bytes:
    """A document with these paths below /api/."""
    info = {"title": "Pets", "version": "1"}
    found = {"openapi": "3.0.3", "info": info, "paths": {f"/api{path}": item for path, item in paths.items()}}
    return json.dumps({**found, **more}).encode()


@dataclass
class CommandLine:
    """A command line that was made, and its key's file."""

    place: Path

    @property
    def credentials(self) -> Path:
        return self.place / "credentials.json"

    def key(self, url: str, key: str = KEY) -> None:
        """Have a key for the API at this URL."""
        self.credentials.write_text(json.dumps({"api_key": key, "api_url": url}))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it."""
        command = [sys.executable, "-c", "from coachcli.commands import main; main()", *words]
        return subprocess.run(command, cwd=self.place, text=True, capture_output=True, check=False)

    def told(self, *words: str) -> Any:
        """What it prints, which has to be JSON."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def make(data: bytes, place: Path, leave_out: tuple[str, ...] = (), name: str = "journeyloop") -> CommandLine:
    """The command line of a document."""
    made = CommandLine(place)
    settings = cli.Settings(name, str(made.credentials))
    cli.make(openapi.judge(data, leave_out), settings, ROLE / "files" / "cli" / "coachcli", place)
    return made
