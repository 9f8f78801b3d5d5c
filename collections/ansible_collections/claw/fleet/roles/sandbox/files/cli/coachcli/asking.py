# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One request, or one a page, by the generated client, with the coach's own key."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

_SECONDS = 60
_PAGES = 1000
_SHOWN = 500


class Problem(Exception):
    """What went wrong, for people; ``status``: what the command ends with."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.status = status


def ask(
    described: Mapping[str, Any],
    verb: Mapping[str, Any],
    parameters: Mapping[str, Any],
    body: Mapping[str, Any] | None,
    *,
    all_pages: bool = False,
) -> Any:
    """What the API answers: decoded JSON, text, or None where there is nothing to say.

    Raises:
        Problem: it refuses, or cannot be asked.
    """
    request = _request(verb, parameters, body)
    with _client(described) as client:
        found = _answer(client, request)
        if not (all_pages and isinstance(found, dict)):
            return found
        results, page, seen = _results(found), found, [request.get("params")]
        while page.get("next"):
            # The same place with the next page's own query: what a link names as its host is not followed.
            query = parse_qsl(urlsplit(str(page["next"])).query)
            if not query or query in seen or len(seen) > _PAGES:
                raise Problem(
                    "the API's pages go in circles, or are too many; ask for fewer without --all", 6
                )
            seen.append(query)
            page = _answer(client, {**request, "params": query})
            results += _results(page)
        return {**found, "next": None, "results": results}


def _results(page: Any) -> list[Any]:
    found = page.get("results") if isinstance(page, dict) else None
    if not isinstance(found, list):
        raise Problem("the API answered a page without results", 6)
    return list(found)


def _request(
    verb: Mapping[str, Any], parameters: Mapping[str, Any], body: Mapping[str, Any] | None
) -> dict[str, Any]:
    module = importlib.import_module(f"coachcli.client.api.{verb['module']}")
    given = dict(parameters)
    try:
        if body is not None:
            model = getattr(importlib.import_module("coachcli.client.models"), verb["body"]["model"])
            given["body"] = model.from_dict(dict(body))
        request: dict[str, Any] = module._get_kwargs(**given)
    except KeyError as error:
        raise Problem(f"the body lacks {error}; give it with --json", 2) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise Problem(f"what was given does not fit: {error}", 2) from error
    return request


def _client(described: Mapping[str, Any]) -> httpx.Client:
    path = Path(described["credentials"])
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        key, url = str(found["api_key"]), str(found["api_url"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        # Not the error's own text, which could hold a part of the file.
        raise Problem(
            f"there is no key at {path} ({type(error).__name__}); the fleet has to provide it", 5
        ) from None
    if not (key.isascii() and key.isprintable() and key and " " not in key):
        # Never the key itself, nor what a library says of it.
        raise Problem(f"the key at {path} is none; the fleet has to provide it", 5)
    try:
        base = _base(httpx.URL(url), str(described["prefix"]))
    except (httpx.InvalidURL, ValueError) as error:
        raise Problem(f"the key is for {url}: {error}", 5) from None
    transport = httpx.HTTPTransport(proxy=httpx.Proxy(described["proxy"])) if described["proxy"] else None
    return httpx.Client(
        base_url=base,
        headers={"Authorization": f"Bearer {key}", "Accept": "application/json, */*;q=0.5"},
        timeout=_SECONDS,
        transport=transport,
        trust_env=False,
    )


def _base(url: httpx.URL, prefix: str) -> httpx.URL:
    """What the document's paths are relative to: the URL of the key's API without what they begin with."""
    path = url.path.rstrip("/") + "/"
    parts = prefix.strip("/").split("/")
    for count in range(len(parts), 0, -1):
        end = f"/{'/'.join(parts[:count])}/"
        if path.endswith(end):
            return url.copy_with(path=path[: -len(end)] + "/")
    if path != "/":
        raise ValueError(f"what is known of the API lies below {prefix}")
    return url


def _answer(client: httpx.Client, request: Mapping[str, Any]) -> Any:
    try:
        answer = client.request(**request)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise Problem(f"the API cannot be reached: {error or type(error).__name__}", 6) from error
    found: Any = None
    if answer.content:
        try:
            found = answer.json()
        except ValueError:
            found = answer.text
    if answer.is_success:
        return found
    raise Problem(_why(answer.status_code, found), _status(answer.status_code))


def _why(status: int, found: Any) -> str:
    if isinstance(found, dict) and isinstance(found.get("detail"), str):
        return str(found["detail"])
    told = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return f"the API answers {status}: {' '.join(told.split())[:_SHOWN]}"


def _status(status: int) -> int:
    known = {401: 5, 403: 5, 404: 4}
    return known.get(status, 3 if 400 <= status < 500 else 6)
