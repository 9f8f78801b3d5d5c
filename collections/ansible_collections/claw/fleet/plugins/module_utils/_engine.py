# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine of a machine, asked with the Docker SDK for Python.

PRIVATE to claw.fleet: may change at any time.

It needs that SDK on the machine, 5.0 or later (Debian: python3-docker).
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    import docker
    import docker.errors
    from urllib3.exceptions import HTTPError
except ImportError:
    SDK_MISSING: str | None = traceback.format_exc()
    ERRORS: tuple[type[Exception], ...] = (OSError,)
else:
    SDK_MISSING = None
    # requests, which the SDK is built on, raises what is an OSError.
    ERRORS = (docker.errors.DockerException, OSError, HTTPError)

SDK_HINT = "(Debian: apt-get install python3-docker)"
_SECONDS = 60


class EngineError(Exception):
    """The engine does not answer; str() says what happened and what to do."""


def connect(docker_host: str) -> Any:
    """A client of the engine that answers there."""
    try:
        client = docker.DockerClient(base_url=docker_host, timeout=_SECONDS)
        client.ping()
    except ERRORS as error:
        raise EngineError(_unreachable(docker_host, str(error))) from error
    return client


class Engine:
    """One engine, which tells what it could not do as an error of whoever asks it.

    ``client``: the SDK's; ``where``: its URL.
    """

    def __init__(self, docker_host: str, error: type[Exception]) -> None:
        """Raises that error where no engine answers."""
        self.where = docker_host
        self._error = error
        try:
            self.client = connect(docker_host)
        except EngineError as unreachable:
            raise error(str(unreachable)) from unreachable

    @contextlib.contextmanager
    def asked_to(self, deed: str) -> Iterator[None]:
        """Whatever it answers to what is asked of it here; ``deed`` are words that follow "could not"."""
        try:
            yield
        except ERRORS as error:
            raise self._error(
                f"the container engine at {self.where} could not {deed}: {error}. Its journal may say more (journalctl -u "
                "docker, or of claw-podman's units); mend that and run again"
            ) from error


def end_with(
    module: AnsibleModule, subject: str, error: type[Exception], work: Callable[[], dict[str, Any]]
) -> None:
    """End a module that asks an engine: with what the work returns, or why it could not be done to the subject."""
    if SDK_MISSING:
        module.fail_json(msg=missing_required_lib("docker", reason=SDK_HINT), exception=SDK_MISSING)
    try:
        module.exit_json(**work())
    except error as failed:
        module.fail_json(msg=f"{subject}: {failed}")


def _unreachable(where: str, words: str) -> str:
    if "Permission denied" in words:
        return f"the container engine at {where} refuses this user: become root, or name another docker_host"
    return f"no container engine answers at {where} ({words}): install or start one, or name its docker_host"
