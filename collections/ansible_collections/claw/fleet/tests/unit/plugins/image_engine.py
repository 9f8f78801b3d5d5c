# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine that has images in memory: builds at once, and calls whatever is built by a new id."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

_NUMBERS = count(1)
"""Of all engines: an id is nobody else's, and the higher one was made later."""


class Image:
    """One of its images."""

    def __init__(self, engine: ImageEngine, labels: dict[str, str], number: int | None = None) -> None:
        self.engine = engine
        self.number = next(_NUMBERS) if number is None else number
        self.id = f"sha256:{self.number}"
        self.labels = labels
        self.tags: list[str] = []
        self.attrs = {"Created": f"{self.number:08}"}
        engine.all.append(self)

    def tag(self, name: str, tag: str) -> None:
        """It is called so, and no other is."""
        wanted = f"{name}:{tag}"
        for image in self.engine.all:
            image.tags = [other for other in image.tags if other != wanted]
        self.tags.append(wanted)


class ImageEngine:
    """What the SDK gives of images, as far as it is used; ``used``: the ids of those that containers are of."""

    def __init__(self, not_found: type[Exception]) -> None:
        self.all: list[Image] = []
        self.used: list[str] = []
        self._not_found = not_found
        self.images = SimpleNamespace(get=self.get, list=self._list, prune=self._prune, remove=self._remove)
        self.containers = SimpleNamespace(list=self._containers, create=_Container)
        self.api = SimpleNamespace(build=self._build, get_image=self._save, load_image=self._load)

    def seen(self) -> list[tuple[str, list[str]]]:
        """The images that there are, and what they are called."""
        return [(image.id, list(image.tags)) for image in self.all]

    def get(self, which: str) -> Image:
        for image in self.all:
            if which in (image.id, *image.tags):
                return image
        raise self._not_found(which)

    def _list(self, name: str, filters: dict[str, str] | None = None) -> list[Image]:
        label = (filters or {}).get("label")
        return [
            image
            for image in self.all
            if any(tag.startswith(f"{name}:") for tag in image.tags) and (not label or label in image.labels)
        ]

    def _prune(self, filters: dict[str, Any]) -> None:
        assert filters["dangling"]
        self.all = [
            image
            for image in self.all
            if image.tags or image.id in self.used or filters["label"] not in image.labels
        ]

    def _remove(self, tag: str) -> None:
        image = self.get(tag)
        image.tags.remove(tag)
        if not image.tags:
            assert image.id not in self.used, "an engine refuses that"
            self.all.remove(image)

    def _containers(self, filters: dict[str, str] | None = None, **_how: Any) -> list[Any]:
        """None of them has a label."""
        return [] if filters else [SimpleNamespace(attrs={"Image": image_id}) for image_id in self.used]

    def _build(self, *, labels: dict[str, str], **_how: Any) -> Iterator[dict[str, Any]]:
        yield {"stream": "Step 1\n"}
        yield {"aux": {"ID": Image(self, labels).id}}

    def _save(self, tag: str) -> Iterator[bytes]:
        image = self.get(tag)
        yield json.dumps([image.number, image.labels, tag]).encode()

    def _load(self, pieces: Iterable[bytes]) -> list[Any]:
        data = b"".join(pieces)
        # An archive may be compressed.
        number, labels, tag = json.loads(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
        there = [image for image in self.all if image.number == number]
        (there[0] if there else Image(self, labels, number)).tag(*tag.rsplit(":", 1))
        return []


class _Container:
    """One in which the line ends as it should: only the command's own help succeeds."""

    def __init__(self, _image_id: str, command: list[str], **_how: Any) -> None:
        self._status = 0 if command[-1].endswith("--help") else 126
        self.start = lambda: None

    def wait(self, **_how: Any) -> dict[str, int]:
        return {"StatusCode": self._status}

    def logs(self, **_how: Any) -> bytes:
        return b""

    def remove(self, **_how: Any) -> None:
        pass
