# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of claw.fleet.reconciler_runtime: it has the lock file, and ships the collection."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.claw.fleet.plugins.plugin_utils.actions import place_on_machine

_COLLECTION = Path(__file__).resolve().parents[2]
_BUILD_SECONDS = 120


class ActionModule(ActionBase):
    """Reads the lock file, builds the collection, asks the node, and ships to it what it lacks."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        args = dict(self._task.args)
        try:
            with tempfile.TemporaryDirectory(prefix="claw-collection-") as directory:
                given = args.get("collection")
                archive = Path(str(given)).expanduser() if given else built(_COLLECTION, Path(directory))
                args |= {"requirements": Path(str(args.get("lock"))).expanduser().read_text(encoding="utf-8")}
                args |= identity(archive)
                found = self._module(args, variables)
                if found.get("failed") or found["present"] or self._task.check_mode:
                    return found
                return self._ship(args, archive, variables)
        except (OSError, tarfile.TarError, ValueError) as error:
            raise AnsibleActionFail(f"The reconciler is not installed: {error}") from error

    def _ship(self, args: dict[str, Any], archive: Path, variables: dict[str, Any]) -> dict[str, Any]:
        wheels = Path(str(args["wheels"])).expanduser() if args.get("wheels") else None
        files = [archive, *(sorted(wheels.glob("*.whl")) if wheels else [])]
        if wheels and len(files) == 1:
            raise ValueError(f"there are no wheels in {wheels}")
        with place_on_machine(self) as shipment:
            for file in files:
                self._transfer_file(str(file), self._connection._shell.join_path(shipment, file.name))
            return self._module({**args, "shipment": shipment}, variables)

    def _module(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module(
            module_name="claw.fleet.reconciler_runtime", module_args=args, task_vars=variables
        )
        return found


def built(collection: Path, place: Path) -> Path:
    """The collection as one archive: built from its sources, or as it was installed."""
    if (collection / "galaxy.yml").is_file():
        command = [
            sys.executable,
            "-m",
            "ansible.cli.galaxy",
            "collection",
            "build",
            "--output-path",
            str(place),
        ]
        done = subprocess.run(
            command,
            cwd=collection,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_BUILD_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ValueError(f"the collection in {collection} cannot be built: {done.stderr.strip()}")
        (archive,) = place.glob("*.tar.gz")
        return archive
    info = json.loads((collection / "MANIFEST.json").read_bytes())["collection_info"]
    archive = place / f"{info['namespace']}-{info['name']}-{info['version']}.tar.gz"
    files = [file["name"] for file in json.loads((collection / "FILES.json").read_bytes())["files"]]
    with tarfile.open(archive, "w:gz") as bundle:
        for name in ["MANIFEST.json", "FILES.json", *files]:
            bundle.add(collection / name, arcname=name, recursive=False)
    return archive


def identity(archive: Path) -> dict[str, str]:
    """The version of a built collection, and what stands for its files, whenever and wherever it was built."""
    with tarfile.open(archive) as bundle:
        manifest, listed = (_json_of(bundle, name) for name in ("MANIFEST.json", "FILES.json"))
    files = sorted(
        (file["name"], file["chksum_sha256"]) for file in listed["files"] if file["ftype"] == "file"
    )
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return {"version": manifest["collection_info"]["version"], "files_sha256": digest}


def _json_of(bundle: tarfile.TarFile, name: str) -> dict[str, Any]:
    member = bundle.extractfile(name)
    if member is None:
        raise ValueError(f"{name} of the collection is no file")
    found: dict[str, Any] = json.loads(member.read())
    return found
