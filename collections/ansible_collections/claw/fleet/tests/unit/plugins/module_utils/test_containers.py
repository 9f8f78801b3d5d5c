# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose containers there are in an engine, by a client that only remembers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _containers, _engine
from ansible_collections.claw.fleet.plugins.module_utils._containers import (
    Container,
    Containers,
    ContainersError,
)
from ansible_collections.claw.fleet.tests.unit.plugins.offline import offline_gateway

errors = pytest.importorskip("docker.errors")


class Found:
    """Something that the engine has."""

    def __init__(self, attrs: dict[str, Any]) -> None:
        self.attrs = attrs
        self.id = attrs.get("Id")


class Engine:
    """A client of an engine; all of its parts in one. ``broken``: what it says to everything."""

    def __init__(self) -> None:
        self.containers = self.images = self.api = self
        self.found: list[Found] = []
        self.removed: list[str] = []
        self.broken: Exception | None = None

    def list(self, **how: Any) -> list[Found]:
        assert how == {"all": True, "filters": {"label": "openclaw.sandbox=1"}, "ignore_removed": True}
        self._speak()
        return self.found

    def get(self, image: str) -> Found:
        self._speak()
        if image != "claw-sandbox:1":
            raise errors.ImageNotFound(image)
        return Found({"Id": "sha256:1"})

    def remove_container(self, container_id: str, **how: Any) -> None:
        assert how == {"force": True, "v": True}
        self._speak()
        self.removed.append(container_id)

    def _speak(self) -> None:
        if self.broken is not None:
            raise self.broken


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    monkeypatch.setattr(_engine, "connect", lambda _docker_host: engine)
    return engine


@pytest.fixture
def containers(engine: Engine, tmp_path: Path) -> Containers:
    return Containers(offline_gateway(tmp_path), "unix:///run/docker.sock")


def made_of(number: int, *mounts: str | Path, env: list[str] | None = None) -> Found:
    """A container as the engine describes it; the last mount is where the workspace is."""
    places = [*(f"/mnt/{at}" for at in range(len(mounts) - 1)), "/workspace"]
    sources: list[dict[str, Any]] = [
        {"Source": str(mount), "Destination": place} for mount, place in zip(mounts, places, strict=False)
    ]
    # A mount in memory has no source.
    sources.append({"Type": "tmpfs"})
    return Found(
        {"Id": f"id-{number}", "Image": "sha256:1", "Mounts": sources, "Config": {"Env": env}},
    )


def test_whose_they_are_their_mounts_tell(containers: Containers, engine: Engine, tmp_path: Path) -> None:
    mine = tmp_path / "state" / "workspaces"
    engine.found = [
        made_of(
            1, tmp_path / "state" / "credentials" / "coach-ben", mine / "coach-ben", env=["A=1", "B=x=y", "C"]
        ),
        # Whoever has another's workspace as well is still herself.
        made_of(2, mine / "coach-ben", mine / "coach-anna"),
        # Of another gateway, of something below a workspace, of the workspaces as a whole, and of nothing.
        made_of(3, "/var/lib/claw/gw-b/workspaces/coach-anna"),
        made_of(4, mine / "coach-anna" / "notes"),
        made_of(5, mine),
        made_of(6),
    ]
    assert containers.all() == [
        Container("coach-anna", "id-2", "sha256:1", {}),
        Container("coach-ben", "id-1", "sha256:1", {"A": "1", "B": "x=y", "C": ""}),
    ]


def test_one_whose_workspace_was_made_anew_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    monkeypatch.setattr(_containers, "_WORKSPACE", str(mine))
    assert not _containers._lost(os.getpid(), mine)
    # Where there is none at all something else is wrong; and what does not run gets the one that is there.
    assert not _containers._lost(os.getpid(), other)
    other.mkdir()
    assert _containers._lost(os.getpid(), other)
    assert not _containers._lost(0, other)


def test_images_are_there_or_not(containers: Containers) -> None:
    assert [containers.image_id(image) for image in ("claw-sandbox:1", "claw-sandbox:2")] == ["sha256:1", ""]


def test_one_that_is_gone_already_is_no_error(containers: Containers, engine: Engine) -> None:
    one = Container("coach-anna", "id-1", "sha256:1", {})
    containers.remove(one)
    engine.broken = errors.NotFound("no such container")
    containers.remove(one)
    assert engine.removed == ["id-1"]


@pytest.mark.parametrize("broken", [OSError("connection reset"), errors.APIError("server error")])
def test_what_an_engine_cannot_do_is_told(containers: Containers, engine: Engine, broken: Exception) -> None:
    engine.broken = broken
    for deed, words in (
        (containers.all, "list its containers"),
        (lambda: containers.image_id("claw-sandbox:1"), "look for the image claw-sandbox:1"),
        (
            lambda: containers.remove(Container("coach-anna", "1", "2", {})),
            "remove the sandbox of coach-anna",
        ),
    ):
        with pytest.raises(ContainersError) as error:
            deed()
        assert f"could not {words}: {broken}" in str(error.value)
        assert "journalctl -u docker" in str(error.value)


def test_where_no_engine_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = offline_gateway(tmp_path)
    with pytest.raises(ContainersError, match=f"no container engine answers at unix://{tmp_path}/none"):
        Containers(gateway, f"unix://{tmp_path}/none")
    monkeypatch.setattr(_engine, "SDK_MISSING", "ImportError: docker")
    with pytest.raises(ContainersError, match="apt-get install python3-docker"):
        Containers(gateway, "unix:///run/docker.sock")
