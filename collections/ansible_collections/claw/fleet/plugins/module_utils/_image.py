# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images of sandboxes in a container engine, named by what they were made of.

PRIVATE to claw.fleet: may change at any time.

An image's tag is the digest of its inputs, and its label ``claw.fleet.inputs`` has the digest of each, so what is there
is never built again, and of what is not it can be told which input differs. A tag is given once and for all: a build
that fails, or that does not start, leaves no name behind.

It needs the Docker SDK for Python on the machine, 5.0 or later (Debian: python3-docker).
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils import _command, _engine

with contextlib.suppress(ImportError):
    import docker.errors

INPUTS = "claw.fleet.inputs"
_BASE = "claw.fleet.base"
_TRIED = "claw.fleet.tried"
"""Of the containers in which an image is tried."""
_DIGITS = 16
_ROOM = "/var/tmp"  # noqa: S108 - for a directory of our own
"""Where a base is made: beyond /tmp, which may be memory, for this is some 500 MB."""
_IMAGE = re.compile(r'"image":\s*"([^"]+)"')
_FULL_BYTES = 2**20
_FULL = os.strerror(errno.ENOSPC)
_BUILD_SECONDS = 1800
_PROOF_SECONDS = 120
_WORDS = 1500
_REFUSED = 126
# To be raised when what is done below makes another base of the same recipe.
_EDITION = 1


class ImageError(Exception):
    """What cannot be done with images; str() says what happened and what to do."""


@dataclass(frozen=True)
class Base:
    """What images begin with: an image of a registry, by its digest, or Debian's packages, as of when they were ``renewed``."""

    image: str
    suite: str
    mirror: str
    packages: Sequence[str]
    renewed: str

    @property
    def recipe(self) -> dict[str, Any]:
        """What tells this base from another."""
        if self.image:
            return {"edition": _EDITION, "image": self.image, "packages": list(self.packages)}
        recipe = {"suite": self.suite, "mirror": self.mirror, "packages": list(self.packages)}
        return {"edition": _EDITION, **recipe, **({"renewed": self.renewed} if self.renewed else {})}


def digest(value: Any) -> str:
    """The digest of something that is JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def tag_of(inputs: Mapping[str, str]) -> str:
    """The tag of an image with these inputs."""
    return digest(dict(inputs))[:_DIGITS]


class Images:
    """The images of one name in one engine."""

    def __init__(self, name: str, docker_host: str) -> None:
        """Raises ImageError where no engine answers."""
        self.name = name
        self._engine = _engine.Engine(docker_host, ImageError)
        self._client = self._engine.client

    def find(self, tag: str) -> Any | None:
        """The image with this tag, if it is there."""
        with self._engine.asked_to("look for the image"):
            try:
                return self._client.images.get(f"{self.name}:{tag}")
            except docker.errors.ImageNotFound:
                return None

    def newest(self) -> Any | None:
        """The image that was made last."""
        return next(iter(self._all()), None)

    def has_base(self, base: Base) -> bool:
        """Whether nothing has to be made of Debian's packages before an image of this base is built."""
        if base.image:
            return True
        with self._engine.asked_to("look for the base"):
            try:
                self._client.images.get(self._base_name(base))
            except docker.errors.ImageNotFound:
                return False
            return True

    def make_base(self, base: Base) -> None:
        """Make an image of Debian's packages, if there is none of this recipe."""
        if self.has_base(base):
            return
        program = shutil.which("mmdebstrap")
        if program is None:
            raise ImageError("mmdebstrap is missing on the machine: apt-get install mmdebstrap")
        made = self._base_name(base)
        with tempfile.TemporaryDirectory(prefix="claw-base-", dir=_ROOM) as place:
            # For the user that apt fetches packages as.
            Path(place).chmod(0o711)
            tree = Path(place) / "root.tar"
            command = [program, "--quiet", "--variant=minbase", f"--include={','.join(base.packages)}"]
            hook = Path("/usr/share/mmdebstrap/hooks/maybe-merged-usr")
            command += [f"--hook-dir={hook}"] if hook.is_dir() else []
            command += [base.suite, str(tree), *([base.mirror] if base.mirror else [])]
            try:
                _command.run(command, Path(place), {**os.environ, "TMPDIR": place})
            except _command.CommandError as error:
                # Of a disk that is full where it writes the tar mmdebstrap says nothing, and what it unpacked is gone by now.
                full = _FULL in str(error) or shutil.disk_usage(place).free < _FULL_BYTES
                cure = f". {_ROOM} is full; make room in it, some 500 MB" if full else ""
                raise ImageError(f"Debian's packages make no base, {error}{cure}") from error
            with self._engine.asked_to("import the base"):
                # The tag within the name: Podman does not heed another.
                self._client.api.import_image(
                    src=str(tree), repository=made, changes=[f"LABEL {_BASE}={made.rpartition(':')[2]}"]
                )

    def build(self, context: Path, inputs: Mapping[str, str], base: Base, command: str) -> Any:
        """Build from a context (tar), prove what it does and refuses, and only then give it its tag."""
        self._clear()
        self.make_base(base)
        begins_with = self._base_name(base)
        labels = {INPUTS: json.dumps(dict(inputs), sort_keys=True)}
        arguments = {"BASE": begins_with, "PACKAGES": " ".join(base.packages) if base.image else ""}
        said: list[str] = []
        found = ""
        with self._engine.asked_to("build the image"), context.open("rb") as file:
            for step in self._client.api.build(
                fileobj=file,
                custom_context=True,
                buildargs=arguments,
                labels=labels,
                # Of Debian's packages nothing is fetched any more.
                network_mode=None if base.image else "none",
                rm=True,
                forcerm=True,
                decode=True,
                timeout=_BUILD_SECONDS,
            ):
                said.append(str(step.get("stream") or step.get("status") or ""))
                found = (step.get("aux") or {}).get("ID") or found
                if "error" in step:
                    raise ImageError(f"the build failed: {step['error'].strip()} After:\n{_tail(said)}")
        if not found:
            raise ImageError(f"the build made no image. It said:\n{_tail(said)}")
        with self._engine.asked_to("find what it has built"):
            image = self._client.images.get(found)
        try:
            self._prove(image, command)
        except ImageError:
            # What is not removed now the next build removes.
            with contextlib.suppress(ImageError):
                self._clear()
            raise
        with self._engine.asked_to("name the image"):
            image.tag(self.name, tag_of(inputs))
        self._forget_bases_but(begins_with)
        return image

    def known(self, tag: str) -> Any:
        """The image with this tag, which has to be there."""
        image = self.find(tag)
        if image is None:
            raise ImageError(
                "the engine it is to be copied from does not have it. Run the role claw.fleet.sandbox, which builds it, or "
                "name one that was kept"
            )
        return image

    def pieces(self, tag: str) -> Iterator[bytes]:
        """The image with this tag, as an archive."""
        with self._engine.asked_to("save the image"):
            yield from self._client.api.get_image(f"{self.name}:{tag}")

    def save(self, tag: str, archive: Path) -> None:
        """Write the image with this tag to a file, which whoever has its directory may read."""
        with gzip.open(archive, "wb", compresslevel=1) as file:
            for piece in self.pieces(tag):
                file.write(piece)
        archive.chmod(0o644)

    def load(self, tag: str, pieces: Iterable[bytes], image_id: str) -> None:
        """Have the image of such an archive, which has to be the one of this id."""
        self._clear()
        with self._engine.asked_to("load the image"):
            for _step in self._client.api.load_image(pieces):
                pass
        image = self.find(tag)
        if image is None or image.id != image_id:
            raise ImageError(
                f"what was loaded is not {image_id}: the two engines keep images in different formats, or it was changed on "
                "its way. With sandbox_build: each every machine builds its own"
            )

    def prune(self, keep: int, current: str, config_root: str, *, check: bool) -> list[str]:
        """Remove what nobody uses, but for ``keep`` beside the one with the current tag; their tags.

        Used is what a container is of, and what a gateway below ``config_root`` has its agents' next containers made of. Those
        are kept first, as what one would go back to, then the newest. A check may come before there is an image with the
        current tag, or while it is another one that has it.
        """
        named = _named_by_gateways(Path(config_root))
        with self._engine.asked_to("look for images that are used"):
            of_containers = {
                container.attrs["Image"]
                for container in self._client.containers.list(all=True, ignore_removed=True)
            }

        def unused(image: Any) -> bool:
            return image.id not in of_containers and not named & set(image.tags)

        former = [image for image in self._all() if f"{self.name}:{current}" not in image.tags]
        gone: list[str] = []
        for image in filter(unused, sorted(former, key=unused)[keep:]):
            tags = [tag for tag in image.tags if tag.startswith(f"{self.name}:")]
            gone += tags
            if not check:
                with self._engine.asked_to(f"remove {tags[0]}"):
                    for tag in tags:
                        self._client.images.remove(tag)
        return gone

    def _all(self) -> list[Any]:
        """The images of this name, the newest first."""
        with self._engine.asked_to("list the images"):
            found = self._client.images.list(self.name, filters={"label": INPUTS})
        return sorted(found, key=lambda image: str(image.attrs["Created"]), reverse=True)

    def _prove(self, image: Any, command: str) -> None:
        """As an agent has lines executed, in the worst environment: the command runs, and nothing else does."""
        for line, wanted in ((f"{command} --help", 0), ("id", _REFUSED)):
            status, said = self._execute(image, line)
            # A program that is not static complains of the environment, and would heed it.
            if status != wanted or (wanted == 0 and said):
                raise ImageError(
                    f"the image was built, but `{line}` ends with status {status} in it where {wanted} is right: "
                    f"{said[-_WORDS:] or 'it says nothing'}. Check base.packages and base.image; nothing has changed."
                )

    def _execute(self, image: Any, line: str) -> tuple[int, str]:
        """The status of a line, and what it says of errors."""
        with self._engine.asked_to("try the image"):
            container = self._client.containers.create(
                image.id,
                ["/bin/sh", "-lc", line],
                environment={"LD_PRELOAD": "/nonexistent.so"},
                network_mode="none",
                read_only=True,
                cap_drop=["ALL"],
                labels=[_TRIED],
                security_opt=["no-new-privileges"],
                # Of what an engine may log to by itself, not everything can be read again.
                log_config={"Type": "json-file"},
            )
            try:
                container.start()
                status = int(container.wait(timeout=_PROOF_SECONDS)["StatusCode"])
                return status, container.logs(stdout=False, stderr=True).decode(errors="replace").strip()
            finally:
                container.remove(force=True)

    def _clear(self) -> None:
        """Remove what has our label and no name: a build that failed, or whose run was killed, has left it."""
        with self._engine.asked_to("remove what an earlier build left"):
            for container in self._client.containers.list(
                all=True, filters={"label": _TRIED}, ignore_removed=True
            ):
                container.remove(force=True)
            self._client.images.prune(filters={"dangling": True, "label": INPUTS})

    def _base_name(self, base: Base) -> str:
        """What the images of a base begin with, by name."""
        return base.image or f"{self.name}-base:{digest(base.recipe)[:_DIGITS]}"

    def _forget_bases_but(self, current: str) -> None:
        """Take their names off the bases of former images, which have all of their layers by themselves."""
        with self._engine.asked_to("remove a former base"):
            for image in self._client.images.list(f"{self.name}-base"):
                for tag in image.tags:
                    if tag.startswith(f"{self.name}-base:") and tag != current:
                        self._client.images.remove(tag)


def _named_by_gateways(config_root: Path) -> set[str]:
    """The images that gateways' descriptors and rosters have, also where one of those files is damaged."""
    files = [path for name in ("sandbox.json", "agents.json") for path in config_root.glob(f"*/{name}")]
    return {name for path in files for name in _IMAGE.findall(path.read_text(errors="replace"))}


def _tail(said: Sequence[str]) -> str:
    return "".join(said).strip()[-_WORDS:]
