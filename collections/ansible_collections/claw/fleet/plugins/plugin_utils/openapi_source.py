# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An app's OpenAPI document as it comes: fetched, not beyond measure, and made plain data.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.urls import Request

MAX_BYTES = 8 * 2**20


class DocumentError(Exception):
    """A document of which no command line can be made; str() says what is wrong where, and what to do."""


def fetch(where: str, *, token: str | None = None, timeout: int = 30, ca_path: str | None = None) -> bytes:
    """A document's bytes, from a URL or a file. The token goes to that URL alone.

    Raises:
        DocumentError: it cannot be had, or is larger than ``MAX_BYTES``.
    """
    try:
        if where.startswith(("http://", "https://")):
            found = _fetched(where, _checked(token), timeout, ca_path)
        else:
            with Path(where).expanduser().open("rb") as file:
                found = file.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise DocumentError(
            f"the OpenAPI document {where} cannot be read: {error}{_advice(error.code)}"
        ) from None
    except (OSError, ValueError, EOFError, RuntimeError, http.client.HTTPException) as error:
        raise DocumentError(f"the OpenAPI document {where} cannot be read: {error}") from None
    if len(found) > MAX_BYTES:
        raise DocumentError(
            f"the OpenAPI document {where} is larger than {MAX_BYTES >> 20} MB; check that the URL is the document's"
        )
    return found


def _fetched(url: str, token: str, timeout: int, ca_path: str | None) -> bytes:
    headers = {"Accept": "application/vnd.oai.openapi+json, application/json;q=0.9, */*;q=0.1"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(
        headers=headers,
        timeout=timeout,
        ca_path=ca_path,
        http_agent="claw.fleet",
        follow_redirects="none" if token else "safe",
        use_netrc=False,
    )
    with request.open("GET", url) as answer:
        found: bytes = answer.read(MAX_BYTES + 1)
        return found


def _checked(token: str | None) -> str:
    found = (token or "").strip()
    if not (found.isascii() and found.isprintable() and " " not in found):
        raise DocumentError("openapi_token has a character that no bearer token has; check how it is read")
    return found


def _advice(status: int) -> str:
    if status in (401, 403):
        return ". Check openapi_token"
    return ". It leads elsewhere; set openapi to that place" if 300 <= status < 400 else ""


class _PlainLoader(yaml.SafeLoader):
    """YAML as JSON means it: no dates, no other words for true and false, and nothing that stands for something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        first: [
            (tag, pattern) for tag, pattern in known if not tag.endswith((":bool", ":timestamp", ":merge"))
        ]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases (*); write it without")
        return super().compose_node(parent, index)


_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


def parse(data: bytes) -> dict[str, Any]:
    """The document as JSON has it, whether it is written as JSON or as YAML. Raises DocumentError."""
    if not data.strip():
        raise DocumentError("it is empty")
    try:
        text = data.decode("utf-8-sig")
        try:
            found = json.loads(text)
        except ValueError:
            # Its loader is a safe one. Through JSON, so that all keys are text.
            found = json.loads(json.dumps(yaml.load(text, _PlainLoader)))  # noqa: S506
    except (ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise DocumentError(f"it is neither JSON nor YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(found, dict):
        raise DocumentError("it is no OpenAPI document: not an object at its top")
    return found
