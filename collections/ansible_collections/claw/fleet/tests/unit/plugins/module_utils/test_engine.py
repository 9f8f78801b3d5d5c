# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine that does not answer, and what is said of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _engine
from ansible_collections.claw.fleet.plugins.module_utils._engine import EngineError

docker = pytest.importorskip("docker")


def test_one_that_refuses_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "('Connection aborted.', PermissionError(13, 'Permission denied'))"

    def client(**_where: Any) -> None:
        raise docker.errors.DockerException(f"Error while fetching server API version: {words}")

    monkeypatch.setattr(docker, "DockerClient", client)
    with pytest.raises(EngineError) as error:
        _engine.connect("unix:///run/docker.sock")
    assert str(error.value) == (
        "the container engine at unix:///run/docker.sock refuses this user: become root, or name another docker_host"
    )


def test_a_socket_that_is_nobodys(tmp_path: Path) -> None:
    """As after an engine that was killed: it is there, and nobody listens."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(path))
    with pytest.raises(
        EngineError, match=f"no container engine answers at unix://{path} .*: install or start one"
    ):
        _engine.connect(f"unix://{path}")
