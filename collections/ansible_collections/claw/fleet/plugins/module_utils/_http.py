# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON over HTTP to one origin with one token, with patience and with errors that people can act on.

PRIVATE to claw.fleet: may change at any time.

For requests that may be repeated without harm: 429, 5xx and broken connections are tried again with growing
pauses, other refusals are not. Everything that goes wrong is an `ApiError` whose text says which path, what
came back and what to check. The token goes into one header of requests to one origin: redirects are not
followed, and neither errors nor reprs hold it.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from ansible.module_utils.api import generate_jittered_backoff
from ansible.module_utils.urls import Request, make_context
from ansible_collections.claw.fleet.plugins.module_utils._coach import shown

_BACKOFF_BASE_SECONDS = 2
_MAX_WAIT_SECONDS = 60
_MAX_ERROR_BYTES = 65536
# 500 coaches, each with as much as a coach's vars may hold, are half of it.
_MAX_ANSWER_BYTES = 64 * 2**20
_MAX_DETAIL = 300


class ApiError(Exception):
    """A request that did not succeed; str() is for people.

    ``status`` is 0 where no answer came. ``detail`` is the JSON object of a refusal, empty where there was
    none. ``of_row`` is true where the refusal is about the one thing that was asked for (400, 404 or 409, in
    the API's own words), so that the others can go on. ``again`` is true where repeating the request may
    help, not sooner than ``retry_after`` seconds from now.
    """

    def __init__(
        self,
        message: str,
        status: int = 0,
        detail: Mapping[str, Any] | None = None,
        *,
        again: bool = False,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = dict(detail or {})
        self.again = again
        self.retry_after = retry_after

    @property
    def of_row(self) -> bool:
        return self.status in (400, 404, 409) and bool(self.detail)


class OptionsError(ValueError):
    """An option that cannot be used; str() names it and says what to write instead."""


class Answer(NamedTuple):
    """Status, decoded JSON (None for 304) and ETag ("" for none) of an answer."""

    status: int
    data: Any
    etag: str


class JsonHttp:
    """Requests below one base URL. ``timeout``: seconds for each; ``retries``: how often one is repeated."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        auth_header: str,
        auth_prefix: str,
        timeout: int,
        retries: int,
        validate_certs: bool,
        ca_path: str | None,
        client_cert: str | None,
        client_key: str | None,
        use_proxy: bool,
        sleep: Callable[[float], None],
    ) -> None:
        self.url = _base_url(url)
        self._token = _checked_token(token)
        self._retries = retries
        self._sleep = sleep
        try:
            context = (
                make_context(
                    cafile=ca_path,
                    validate_certs=validate_certs,
                    client_cert=client_cert,
                    client_key=client_key,
                )
                if "https" in _schemes(self.url, use_proxy)
                # By http nobody is asked for a certificate, and to read all authorities takes longer than to ask.
                else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            )
        except (OSError, ssl.SSLError) as exc:
            raise OptionsError(
                f"The TLS files cannot be used: {exc}. Check ca_path, client_cert and client_key."
            ) from None
        self._request = Request(
            headers={
                auth_header: f"{auth_prefix} {self._token}" if auth_prefix else self._token,
                "Accept": "application/json",
                "Content-Type": "application/json",
            },
            http_agent="claw.fleet",
            timeout=timeout,
            use_proxy=use_proxy,
            follow_redirects="none",
            # A ~/.netrc would replace our header by another one.
            use_netrc=False,
            context=context,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self.url}>"

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        secrets: Iterable[str | None] = (),
    ) -> Answer:
        """One request, repeated as long as that can help. ``path`` is below the base URL or on its origin.

        What is in ``secrets`` is in no error, whatever the other side says. Ansible's own retry decorator
        fixes each pause before it sees the failure; Retry-After needs it the other way round, hence the loop.
        """
        url = urljoin(self.url, path)
        if origin(url) != origin(self.url):
            raise ApiError(
                f"{where(method, url)} is on another origin than api_url; the token is not sent there."
            )
        data = None if body is None else json.dumps(body).encode()
        hidden = (self._token, *(text for text in secrets if text))
        for tried, pause in enumerate(_pauses(self._retries), start=1):
            try:
                return self._once(method, url, data, dict(headers or {}), hidden)
            except ApiError as exc:
                if not exc.again:
                    raise
                if pause is None:
                    times = f" It was tried {tried} times." if tried > 1 else ""
                    raise ApiError(f"{exc}{times}", exc.status, exc.detail) from None
                self._sleep(min(_MAX_WAIT_SECONDS, max(pause, exc.retry_after)))
        raise AssertionError("the last pause is None")

    def _once(
        self, method: str, url: str, data: bytes | None, headers: dict[str, str], hidden: tuple[str, ...]
    ) -> Answer:
        here = where(method, url)
        try:
            with self._request.open(method, url, data=data, headers=headers) as response:
                return _decoded(here, response.status, response.headers, _body(here, response))
        except urllib.error.HTTPError as exc:
            with exc:
                if exc.code == 304:
                    return Answer(304, None, exc.headers.get("ETag", ""))
                raise _refusal(here, exc, hidden) from None
        except http.client.IncompleteRead:
            raise ApiError(
                f"{here} was cut off in the middle of its answer. Check Django and the proxies before it.",
                again=True,
            ) from None
        except (OSError, http.client.HTTPException) as exc:
            reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
            said = _hide(str(reason) or type(reason).__name__, hidden)
            raise ApiError(
                f"{here} got no answer from {shown_origin(url)}: {said}. "
                "Check api_url, that Django runs, and that the controller reaches it.",
                again=not isinstance(reason, ssl.SSLCertVerificationError),
            ) from None


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL, the default port filled in; empty where it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ("", "", None)
    return (parts.scheme, parts.hostname or "", port or {"http": 80, "https": 443}.get(parts.scheme))


def shown_origin(url: str) -> str:
    """An origin for people; credentials that stand in the URL are not part of it."""
    scheme, host, port = origin(url)
    return f"{scheme}://{host}:{port}" if host else "no URL"


def where(method: str, url: str) -> str:
    """Method and path, which is what people look for in Django's log."""
    parts = urlsplit(url)
    return f"{method} {parts.path}{f'?{parts.query}' if parts.query else ''}"


def _body(here: str, response: Any) -> bytes:
    """The whole answer, if it is not larger than any that makes sense."""
    # Without a length it is packed, or comes in pieces.
    known = response.length is not None
    if not known or response.length <= _MAX_ANSWER_BYTES:
        raw: bytes = response.read() if known else response.read(_MAX_ANSWER_BYTES + 1)
        if len(raw) <= _MAX_ANSWER_BYTES:
            return raw
    raise ApiError(
        f"{here} answered with more than {_MAX_ANSWER_BYTES // 2**20} MB, which was not taken. Check that "
        "api_url is the API's own base, that its list is paged, and lower api.page_size.",
        response.status,
    )


def _decoded(here: str, status: int, headers: Any, raw: bytes) -> Answer:
    if status == 204 and not raw:
        return Answer(status, {}, "")
    try:
        return Answer(status, json.loads(raw), headers.get("ETag", ""))
    except (ValueError, RecursionError):
        what = (
            "HTML" if b"<html" in raw[:2000].lower() else f"{len(raw)} bytes of {headers.get_content_type()}"
        )
        raise ApiError(
            f"{here} answered {status} with {what} that is not valid JSON. Check that api_url is the API's "
            "own base, not a page for people, and that no proxy or login page before it changes answers.",
            status,
        ) from None


def _refusal(here: str, exc: urllib.error.HTTPError, hidden: tuple[str, ...]) -> ApiError:
    """The error of an answer that is not 2xx, with what its status means here and what to check."""
    detail: dict[str, Any] = {}
    try:
        read = json.loads(exc.read(_MAX_ERROR_BYTES))
        detail = read if isinstance(read, dict) else {}
    except (ValueError, RecursionError, OSError, http.client.HTTPException):
        # The status says enough; the body of an error page is for browsers.
        pass
    said = _hide(_said(detail), hidden)
    message = f"{here} answered {exc.code}{f': {said}' if said else ''}. {_advice(exc, bool(detail))}"
    return ApiError(
        message.rstrip(),
        exc.code,
        detail,
        again=exc.code == 429 or exc.code >= 500,
        retry_after=_seconds(exc.headers.get("Retry-After")),
    )


def _advice(exc: urllib.error.HTTPError, in_json: bool) -> str:
    if 300 <= exc.code < 400:
        target = shown_origin(exc.headers.get("Location") or "")
        return f"A token does not follow redirects; set api_url to where this one leads ({target})."
    if exc.code == 401:
        return "Check api_token against Django's service tokens, and api.auth_header and api.auth_prefix."
    if exc.code == 403:
        return "The token may not do this. Check its rights in Django, and what stands before Django."
    if exc.code == 404:
        return "Check that it still is in Django." if in_json else "Check api_url and api.paths."
    if exc.code == 429:
        return (
            "Django takes no more requests for now. Raise retries, or its rate limit for the service token."
        )
    if exc.code >= 500:
        return "Check Django's log and its database."
    return ""


def _said(detail: Mapping[str, Any]) -> str:
    """What a refusal says of itself: Django REST framework's "detail", or its messages by field."""
    said = detail.get("detail")
    if not isinstance(said, str):
        said = "; ".join(f"{name}: {value}" for name, value in detail.items())
    return repr(said[:_MAX_DETAIL])[1:-1].rstrip(".")


def _pauses(retries: int) -> Iterator[int | None]:
    """Seconds before each repetition, then None: the last attempt."""
    yield from generate_jittered_backoff(retries, _BACKOFF_BASE_SECONDS, _MAX_WAIT_SECONDS)
    yield None


def _seconds(retry_after: str | None) -> float:
    """What Retry-After asks for in seconds, given as a number or as a date; 0 where it says nothing."""
    if not retry_after:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 0.0


def _schemes(url: str, use_proxy: bool) -> set[str]:
    """Of what is connected to: the origin, and the proxy before it."""
    scheme = urlsplit(url).scheme
    proxy = urllib.request.getproxies().get(scheme, "") if use_proxy else ""
    return {scheme, urlsplit(proxy).scheme}


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise OptionsError(
            f"api_url is {shown(url)}; it must be the base of the API, "
            "like https://app.example.com/api/companion/v1/, without a query."
        )
    if parts.username or parts.password:
        raise OptionsError("api_url must hold no user name and no password; the token belongs in api_token.")
    return url if url.endswith("/") else f"{url}/"


def _checked_token(token: str) -> str:
    stripped = token.strip()
    if not stripped:
        raise OptionsError("api_token is empty; give a service token of Django's internal API.")
    if not stripped.isascii() or not stripped.isprintable():
        raise OptionsError(
            "api_token holds characters that cannot be in a header; check where it comes from."
        )
    return stripped


def _hide(text: str, hidden: tuple[str, ...]) -> str:
    for secret in hidden:
        text = text.replace(secret, "***")
    return text
