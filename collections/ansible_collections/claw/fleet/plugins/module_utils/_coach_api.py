# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Django side of the fleet, as the controller talks to it.

PRIVATE to claw.fleet: may change at any time.

One `Client` serves the inventory plugin and the action plugins; `ApiOptions` is what an app may do
differently from the reference coach list: paths, the header, field names. Every request may be repeated
without harm. Errors are `ApiError` (of an answer) and `OptionsError` (of an option); see _http.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urljoin

from ansible.module_utils.basic import env_fallback
from ansible_collections.claw.fleet.plugins.module_utils._coach import FIELDS, Row, shown
from ansible_collections.claw.fleet.plugins.module_utils._http import (
    Answer,
    ApiError,
    JsonHttp,
    OptionsError,
    origin,
    shown_origin,
    where,
)

__all__ = ["DJANGO_ARGUMENT_SPEC", "ApiError", "ApiOptions", "Client", "CoachPages", "OptionsError"]

DJANGO_ARGUMENT_SPEC: dict[str, Any] = {
    "api_url": {"type": "str", "required": True, "fallback": (env_fallback, ["CLAW_FLEET_API_URL"])},
    "api_token": {
        "type": "str",
        "required": True,
        "no_log": True,
        "fallback": (env_fallback, ["CLAW_FLEET_API_TOKEN"]),
    },
    "api": {
        "type": "dict",
        "default": {},
        "options": {
            "paths": {"type": "dict", "default": {}},
            "auth_header": {"type": "str", "default": "Authorization"},
            "auth_prefix": {"type": "str", "default": "Bearer"},
            "fields": {"type": "dict", "default": {}},
            "send": {"type": "str", "default": "hash", "choices": ["hash", "plaintext"]},
            "page_size": {"type": "int", "default": 500},
        },
    },
    "timeout": {"type": "int", "default": 30},
    "retries": {"type": "int", "default": 5},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
    "use_proxy": {"type": "bool", "default": True},
}
"""The options of doc fragment claw.fleet.django; `Client.of` takes what they were set to."""

_PATHS = {
    "coaches": "internal/coaches/",
    "claim": "internal/coaches/{pk}/claim/",
    "status": "internal/coaches/{pk}/status/",
    "set_key": "internal/set-key/{agent_id}/",
    "gateway": "internal/gateways/{name}/",
    "service_token": "internal/service-tokens/{token_sha256}/",
}
_OTHER_FIELDS = (
    "url",
    "token",
    "next_token",
    "capacity",
    "token_sha256",
    "next_token_sha256",
    "api_key",
    "changed",
)
_NAMES = frozenset(FIELDS)
_MAX_PAGES = 100_000


@dataclass(frozen=True)
class ApiOptions:
    """How this app's API differs from the reference coach list.

    ``paths`` are below the API's URL, with {pk}, {agent_id}, {name} or {token_sha256} in them. ``fields`` maps our names of
    fields to theirs. ``send`` is what set-key gets: "hash" or "plaintext".
    """

    paths: Mapping[str, str] = field(default_factory=dict)
    auth_header: str = "Authorization"
    auth_prefix: str = "Bearer"
    fields: Mapping[str, str] = field(default_factory=dict)
    send: str = "hash"
    page_size: int = 500

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> ApiOptions:
        """Options from the dictionary that users write; OptionsError names what is wrong in it."""
        given = {name: value for name, value in (given or {}).items() if value is not None}
        _refuse_unknown("api", given, [option.name for option in fields(cls)])
        for name, known in (("paths", tuple(_PATHS)), ("fields", (*FIELDS, *_OTHER_FIELDS))):
            inner = given.setdefault(name, {})
            if not isinstance(inner, Mapping) or not all(isinstance(text, str) for text in inner.values()):
                raise OptionsError(f"api.{name} must map names to text, not {shown(inner)}.")
            _refuse_unknown(f"api.{name}", inner, known)
        options = cls(**given)
        if options.send not in ("hash", "plaintext"):
            raise OptionsError(f"api.send is {shown(options.send)}; it must be hash or plaintext.")
        if not isinstance(options.page_size, int) or options.page_size < 1:
            raise OptionsError(f"api.page_size is {shown(options.page_size)}; it must be a number above 0.")
        if not isinstance(options.auth_header, str) or not isinstance(options.auth_prefix, str):
            raise OptionsError("api.auth_header and api.auth_prefix must be text.")
        for name, path in options.paths.items():
            try:
                path.format(pk=0, agent_id="", name="", token_sha256="")
            except (KeyError, IndexError, ValueError):
                raise OptionsError(
                    f"api.paths.{name} is {shown(path)}; it may hold {{pk}}, {{agent_id}}, {{name}}, "
                    "{token_sha256}."
                ) from None
        return options

    def path(self, which: str, **values: object) -> str:
        """The path below the API's URL, the values quoted."""
        quoted = {key: quote(str(value), safe="") for key, value in values.items()}
        return self.paths.get(which, _PATHS[which]).format(**quoted)

    def theirs(self, name: str) -> str:
        """The app's name of one of our fields."""
        return self.fields.get(name, name)


class CoachPages(NamedTuple):
    """A whole list, rows reduced to FIELDS, and its ETag: "" for none or where it changed while read."""

    rows: list[Row]
    etag: str


class Client:
    """Requests to one coach list with one service token; ``timeout`` in seconds, ``sleep`` waits so many."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        options: ApiOptions | None = None,
        timeout: int = 30,
        retries: int = 5,
        validate_certs: bool = True,
        ca_path: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        use_proxy: bool = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.options = options or ApiOptions()
        self._http = JsonHttp(
            url,
            token,
            auth_header=self.options.auth_header,
            auth_prefix=self.options.auth_prefix,
            timeout=timeout,
            retries=retries,
            validate_certs=validate_certs,
            ca_path=ca_path,
            client_cert=client_cert,
            client_key=client_key,
            use_proxy=use_proxy,
            sleep=sleep,
        )

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Client:
        """A client from the options in DJANGO_ARGUMENT_SPEC; other keys are ignored."""
        given = {name: params[name] for name in DJANGO_ARGUMENT_SPEC if name in params}
        options = ApiOptions.of(given.pop("api", None))
        return cls(given.pop("api_url"), given.pop("api_token"), options=options, **given)

    def __repr__(self) -> str:
        return f"<Client of {self._http.url}>"

    def coaches(self, filters: Mapping[str, Any] | None = None, etag: str = "") -> CoachPages | None:
        """Read every page of the list, or return None if it still is the one that ``etag`` names.

        Any page that fails, or does not look like one, is an ApiError: there is no partial list.
        """
        query = urlencode({"page_size": self.options.page_size, **(filters or {})}, doseq=True)
        url: str | None = urljoin(self._http.url, f"{self.options.path('coaches')}?{query}")
        headers = {"If-None-Match": etag} if etag else {}
        rows: list[Row] = []
        etags: set[str] = set()
        visited: set[str] = set()
        pks: set[int | str] = set()
        while url:
            visited.add(url)
            answer = self._http.call("GET", url, headers=headers)
            if answer.status == 304:
                return None
            headers = {}
            etags.add(answer.etag)
            page = self._page(url, answer, pks)
            rows.extend(page)
            url = self._next(url, answer.data["next"], visited, len(page))
        return CoachPages(rows, etags.pop() if len(etags) == 1 else "")

    def claim(self, pk: int | str, gateway: str) -> Row:
        """Claim a coach for a gateway and return her row; ApiError 409: she is another's, or it is full."""
        return self._row("POST", self.options.path("claim", pk=pk), {"gateway": gateway})

    def write_status(
        self, pk: int | str, *, gateway: str | None, status: str, reason: str, observed_generation: int | None
    ) -> Row:
        """Write what the fleet made of a coach and return her row; None leaves the generation as it is."""
        body: dict[str, Any] = {"gateway": gateway, "status": status, "reason": reason}
        if observed_generation is not None:
            body["observed_generation"] = observed_generation
        return self._row("PATCH", self.options.path("status", pk=pk), body)

    def set_key(
        self,
        agent_id: str,
        *,
        key_id: str,
        key_sha256: str,
        key_generation: int,
        plaintext: str | None = None,
        former_seconds: int | None = None,
    ) -> bool:
        """Register a coach's key, by hash or, as ``send`` says, as it is; returns whether it changed.

        ``former_seconds``: how long the key before shall stay good, where it has to; never longer than told before.
        """
        body: dict[str, Any] = {"key_id": key_id, "key_generation": key_generation}
        if former_seconds is not None:
            body["former_seconds"] = former_seconds
        if self.options.send == "plaintext":
            if not plaintext:
                raise OptionsError("api.send is plaintext, but only the key's hash is at hand; use hash.")
            body["api_key"] = plaintext
        else:
            body["key_sha256"] = key_sha256
        answer = self._object("POST", self.options.path("set_key", agent_id=agent_id), body, (plaintext,))
        return bool(answer.get("changed", True))

    def revoke_key(self, agent_id: str) -> bool:
        """Revoke a coach's key; returns whether there was one."""
        answer = self._object("DELETE", self.options.path("set_key", agent_id=agent_id), None)
        return bool(answer.get("changed", True))

    def gateway(self, name: str) -> dict[str, Any] | None:
        """What Django knows of a gateway: url, capacity, token_sha256; None where it knows no such."""
        try:
            return self._object("GET", self.options.path("gateway", name=name), None)
        except ApiError as exc:
            if exc.status == 404 and exc.of_row:
                return None
            raise

    def put_gateway(
        self,
        name: str,
        *,
        url: str | None = None,
        token: str | None = None,
        next_token: str | None = None,
        capacity: int | None = None,
    ) -> dict[str, Any]:
        """Tell Django of a gateway what is not None; returns what it then knows.

        ``next_token`` is to be tried where the gateway refuses the one that Django has; ``token`` ends that.
        """
        told = {"url": url, "token": token, "next_token": next_token, "capacity": capacity}
        body = {field: value for field, value in told.items() if value is not None}
        return self._object("PUT", self.options.path("gateway", name=name), body, (token, next_token))

    def service_token(self, token_sha256: str) -> dict[str, Any]:
        """What Django knows of a service token by its hash; ApiError 404: it is unknown or revoked."""
        return self._object("GET", self.options.path("service_token", token_sha256=token_sha256), None)

    def put_service_token(self, token_sha256: str, name: str, gateways: Iterable[str] | None = None) -> bool:
        """Register a service token by its hash; returns whether it is new, or good for others than before.

        With ``gateways`` it may say where these are, and nothing else.
        """
        path = self.options.path("service_token", token_sha256=token_sha256)
        scope = {} if gateways is None else {"gateways": list(gateways)}
        return bool(self._object("PUT", path, {"name": name, **scope}).get("changed", True))

    def revoke_service_token(self, token_sha256: str) -> bool:
        """Revoke a service token by its hash; returns whether it was good until then."""
        path = self.options.path("service_token", token_sha256=token_sha256)
        return bool(self._object("DELETE", path, None).get("changed", True))

    def _page(self, url: str, answer: Answer, pks: set[int | str]) -> list[Row]:
        data = answer.data
        if not isinstance(data, dict) or not isinstance(data.get("results"), list) or "next" not in data:
            raise ApiError(
                f"{where('GET', url)} answered {answer.status}, but not with a page of coaches "
                "({next, results}). Check api_url and api.paths.coaches.",
                answer.status,
            )
        page = [self._reduced(row) if isinstance(row, dict) else row for row in data["results"]]
        for row in page:
            pk = row.get("pk") if isinstance(row, dict) else None
            if not isinstance(pk, (int, str)):
                continue
            if pk in pks:
                raise ApiError(
                    f"{where('GET', url)} lists the coach with pk {shown(pk)} a second time: its pages are "
                    "not one list. Check that Django orders the list by pk and pages it by cursor.",
                    answer.status,
                )
            pks.add(pk)
        return page

    def _next(self, url: str, following: Any, visited: set[str], count: int) -> str | None:
        if following is None:
            return None
        if not isinstance(following, str) or not following:
            raise ApiError(f"{where('GET', url)} has {shown(following)} as next; it must be a URL or null.")
        target = urljoin(url, following)
        if origin(target) != origin(self._http.url):
            raise ApiError(
                f"{where('GET', url)} names its next page on another origin, {shown_origin(target)} instead "
                f"of {shown_origin(self._http.url)}; the token is not sent there. Check ALLOWED_HOSTS and, "
                "behind a proxy that ends TLS, SECURE_PROXY_SSL_HEADER; or set api_url to that origin."
            )
        if target in visited or not count or len(visited) >= _MAX_PAGES:
            raise ApiError(
                f"{where('GET', url)} leads its reader in a circle: after page {len(visited)} comes one that "
                "was read already, or it is empty and not the last. Check the list's paging in Django."
            )
        return target

    def _reduced(self, row: Mapping[str, Any]) -> Row:
        if not self.options.fields:
            # Most lists hold nothing else.
            return dict(row) if row.keys() == _NAMES else {name: row[name] for name in FIELDS if name in row}
        return {name: row[theirs] for name in FIELDS if (theirs := self.options.theirs(name)) in row}

    def _row(self, method: str, path: str, body: Mapping[str, Any]) -> Row:
        row = self._object(method, path, body)
        if "pk" not in row:
            raise ApiError(
                f"{where(method, path)} answered, but not with the coach's row: it has no "
                f"{shown(self.options.theirs('pk'))}. Check api.paths and api.fields."
            )
        return {name: row[name] for name in FIELDS if name in row}

    def _object(
        self, method: str, path: str, body: Mapping[str, Any] | None, secrets: Iterable[str | None] = ()
    ) -> dict[str, Any]:
        """Send and receive one object, its fields in our names."""
        theirs = None if body is None else {self.options.theirs(name): value for name, value in body.items()}
        answer = self._http.call(method, path, body=theirs, secrets=secrets)
        data: dict[str, Any] = answer.data
        if not isinstance(data, dict):
            raise ApiError(
                f"{where(method, path)} answered {answer.status}, but with no JSON object. Check api.paths.",
                answer.status,
            )
        ours = {self.options.theirs(name): name for name in self.options.fields}
        return {ours.get(name, name): value for name, value in data.items()}


def _refuse_unknown(place: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    unknown = [shown(name) for name in given if name not in known]
    if unknown:
        raise OptionsError(f"{place} has no {', '.join(unknown)}; it knows {', '.join(known)}.")
