# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client against a real HTTP server: whole lists or an error that says what to check."""

from __future__ import annotations

import json
import socket
import time
from email.utils import formatdate
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import (
    ApiError,
    ApiOptions,
    Client,
    OptionsError,
)
from ansible_collections.claw.fleet.tests.unit.plugins.coach_list import (
    BASE,
    TOKEN,
    CoachList,
    Handler,
    cut_off,
    endless,
    hang_up,
    never,
    refuse,
    row,
    send,
    settled,
)

WHERE = f"{BASE}internal/coaches/"


class Patient(Client):
    """A client that notes how long it would have waited."""

    def __init__(self, url: str, token: str = TOKEN, **options: Any) -> None:
        self.waits: list[float] = []
        super().__init__(url, token, sleep=self.waits.append, **{"timeout": 5, "retries": 3, **options})


def failure(client: Client) -> str:
    """What the list's reader is told; the token is never in it."""
    with pytest.raises(ApiError) as caught:
        client.coaches()
    told = str(caught.value)
    assert TOKEN not in told
    assert TOKEN not in repr(caught.value)
    return told


def test_every_page_is_read(coach_list: CoachList) -> None:
    coach_list.add(*(row(pk) for pk in range(1, 8)))
    pages = Patient(coach_list.url, options=ApiOptions.of({"page_size": 3})).coaches()
    assert pages is not None
    assert [item["pk"] for item in pages.rows] == [1, 2, 3, 4, 5, 6, 7]
    assert pages.etag == coach_list.etag()
    assert len(coach_list.requests) == 3


def test_other_fields_are_left_out_and_missing_ones_stay_missing(coach_list: CoachList) -> None:
    coach_list.add({"pk": 1, "agent_id": "a", "password": "x"})
    pages = Patient(coach_list.url).coaches()
    assert pages is not None
    assert pages.rows == [{"pk": 1, "agent_id": "a"}]


def test_an_unchanged_list_costs_one_request(coach_list: CoachList) -> None:
    coach_list.add(*(row(pk) for pk in range(1, 8)))
    client = Patient(coach_list.url, options=ApiOptions.of({"page_size": 3}))
    assert client.coaches(etag=coach_list.etag()) is None
    assert len(coach_list.requests) == 1
    coach_list.rows[7]["name"] = "Other"
    assert client.coaches(etag='"old"') is not None
    assert len(coach_list.requests) == 4


def test_a_list_that_changes_while_it_is_read_has_no_etag(coach_list: CoachList) -> None:
    coach_list.add(row(1), row(2))

    def change(handler: Handler) -> None:
        coach_list.rows[2]["name"] = "Other"
        handler.route()

    coach_list.faults = [None, change]
    pages = Patient(coach_list.url, options=ApiOptions.of({"page_size": 1})).coaches()
    assert pages is not None
    assert pages.etag == ""
    assert pages.rows[1]["name"] == "Other"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (refuse(401, "Invalid token."), ["answered 401: Invalid token. Check api_token"]),
        (refuse(403), ["answered 403", "The token may not do this"]),
        (send(b"<html>nothing here", 404, "text/html"), ["answered 404. Check api_url and api.paths"]),
        (refuse(400, "No such status."), ["answered 400: No such status"]),
        (send(b"<!doctype html><html>Log in", 200, "text/html"), ["answered 200 with HTML", "login page"]),
        (send(b'{"results": ['), ["answered 200 with 13 bytes of application/json that is not valid JSON"]),
        (send(b"[]"), ["not with a page of coaches"]),
        (send(b'{"next": null}'), ["not with a page of coaches"]),
        (send(b'{"results": []}'), ["not with a page of coaches"]),
        (send(b'{"next": 7, "results": [{"pk": 1}]}'), ["has 7 as next"]),
        (send(b'{"next": "?cursor=1", "results": []}'), ["in a circle"]),
        (
            send(b'{"next": null, "results": [{"pk": 1}, {"pk": 1}]}'),
            ["lists the coach with pk 1 a second time"],
        ),
        (send(b"[" * 100_000), ["not valid JSON"]),
        (
            refuse(302, Location="https://login.example.com/"),
            ["set api_url", "https://login.example.com:443"],
        ),
    ],
)
def test_a_refusal_is_final_and_says_what_to_check(
    coach_list: CoachList, fault: Any, words: list[str]
) -> None:
    coach_list.faults = [fault]
    client = Patient(coach_list.url)
    told = failure(client)
    assert WHERE in told
    for word in words:
        assert word in told
    assert client.waits == []
    assert len(coach_list.requests) == 1


@pytest.mark.parametrize("fault", [refuse(500), refuse(503), refuse(429), hang_up, cut_off])
def test_what_may_pass_is_tried_again(coach_list: CoachList, fault: Any) -> None:
    coach_list.add(row(1))
    coach_list.faults = [fault, fault]
    client = Patient(coach_list.url)
    pages = client.coaches()
    assert pages is not None
    assert len(pages.rows) == 1
    assert len(client.waits) == 2
    assert len(coach_list.requests) == 3


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            refuse(500, "boom"),
            "answered 500: boom. Check Django's log and its database. It was tried 4 times.",
        ),
        (refuse(429), "takes no more requests for now"),
        (cut_off, "was cut off in the middle of its answer"),
        (hang_up, "got no answer from http://127.0.0.1:"),
    ],
)
def test_patience_ends(coach_list: CoachList, fault: Any, words: str) -> None:
    coach_list.faults = [fault] * 9
    client = Patient(coach_list.url)
    assert words in failure(client)
    assert len(client.waits) == 3
    assert len(coach_list.requests) == 4


def test_retry_after_is_honoured_within_bounds(coach_list: CoachList) -> None:
    soon = formatdate(time.time() + 30, usegmt=True)
    coach_list.faults = [
        refuse(429, Retry_After="7"),
        refuse(503, Retry_After="86400"),
        refuse(429, Retry_After=soon),
        refuse(429, Retry_After="whenever"),
    ]
    client = Patient(coach_list.url, retries=4)
    client.coaches()
    assert 7 <= client.waits[0] <= 8
    assert client.waits[1] == 60
    assert 20 < client.waits[2] <= 30
    assert 0 <= client.waits[3] <= 16


def test_pauses_grow_and_are_bounded(coach_list: CoachList) -> None:
    coach_list.faults = [refuse(500)] * 12
    client = Patient(coach_list.url, retries=12)
    client.coaches()
    assert all(wait < bound for wait, bound in zip(client.waits, [2, 4, 8, 16, 32, *[60] * 7], strict=True))


def test_a_fault_on_a_later_page_is_no_shorter_list(coach_list: CoachList) -> None:
    coach_list.add(*(row(pk) for pk in range(1, 6)))
    coach_list.faults = [None, refuse(403)]
    assert "answered 403" in failure(Patient(coach_list.url, options=ApiOptions.of({"page_size": 2})))


def test_an_answer_that_does_not_come(coach_list: CoachList) -> None:
    coach_list.faults = [never]
    told = failure(Patient(coach_list.url, timeout=1, retries=0))
    assert "got no answer" in told
    assert "timed out" in told


@pytest.mark.parametrize(
    "fault", [endless, lambda handler: handler.raw(200, b" ", "application/json", length=200 * 2**20)]
)
def test_an_answer_larger_than_any_list_is_not_taken(coach_list: CoachList, fault: Any) -> None:
    coach_list.faults = [fault]
    client = Patient(coach_list.url)
    assert "answered with more than 64 MB, which was not taken. Check that api_url" in failure(client)
    assert client.waits == []


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_wrong_makes_no_pause_longer_than_the_longest(
    coach_list: CoachList, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    coach_list.faults = [refuse(503, Retry_After=formatdate(time.time() + 10, usegmt=True))]
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() + hours * 3600)
    client = Patient(coach_list.url)
    assert client.coaches() is not None
    assert all(0 <= pause <= 60 for pause in client.waits)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "Connection refused" in failure(Patient(f"http://127.0.0.1:{port}/", retries=1))


def test_the_token_follows_no_page_to_another_origin(coach_list: CoachList) -> None:
    coach_list.add(row(1), row(2))
    with CoachList().serving() as stranger:
        coach_list.next_origin = stranger.url.removesuffix(BASE)
        told = failure(Patient(coach_list.url, options=ApiOptions.of({"page_size": 1})))
        assert "on another origin" in told
        assert "SECURE_PROXY_SSL_HEADER" in told
        assert stranger.requests == []


def test_the_token_follows_no_redirect(coach_list: CoachList) -> None:
    with CoachList().serving() as stranger:
        coach_list.faults = [refuse(307, Location=f"{stranger.url}internal/coaches/")]
        assert "does not follow redirects" in failure(Patient(coach_list.url))
        assert stranger.requests == []


def test_a_relative_next_is_followed_and_a_circle_is_not(coach_list: CoachList) -> None:
    page = json.dumps({"next": "?cursor=1&page_size=500", "results": [{"pk": 1}]}).encode()
    again = json.dumps({"next": "?cursor=1&page_size=500", "results": [{"pk": 2}]}).encode()
    coach_list.faults = [send(page), send(again)]
    assert "in a circle" in failure(Patient(coach_list.url))
    assert len(coach_list.requests) == 2


def test_a_server_that_repeats_the_token_does_not_get_it_into_errors(coach_list: CoachList) -> None:
    coach_list.faults = [refuse(401, f"Bad header: Bearer {TOKEN}")]
    assert "Bad header: Bearer ***" in failure(Patient(coach_list.url))
    assert TOKEN not in repr(Patient(coach_list.url))


def test_errors_are_one_escaped_line(coach_list: CoachList) -> None:
    coach_list.faults = [refuse(403, "a\n\x1b[31mb" + "x" * 9000)]
    told = failure(Patient(coach_list.url))
    assert "\n" not in told
    assert "\x1b" not in told
    assert len(told) < 600


def test_claim_status_and_keys(coach_list: CoachList) -> None:
    coach_list.add(row(1), settled(2, "gw-b"))
    client = Patient(coach_list.url)
    assert client.claim(1, "gw-a")["status"] == "provisioning"
    with pytest.raises(ApiError) as held:
        client.claim(2, "gw-a")
    assert held.value.of_row
    assert held.value.status == 409
    assert held.value.detail["gateway"] == "gw-b"
    done = client.write_status(1, gateway="gw-a", status="active", observed_generation=1, reason="")
    assert (done["status"], done["observed_generation"]) == ("active", 1)
    assert client.set_key("coach-1", key_id="k", key_sha256="0" * 64, key_generation=1)
    assert coach_list.requests[-1] == (
        "POST",
        "internal/set-key/coach-1/",
        {"key_id": "k", "key_sha256": "0" * 64, "key_generation": 1},
    )
    assert client.revoke_key("coach-1") is True
    assert client.revoke_key("coach-1") is False


def test_a_key_is_sent_as_it_is_only_where_the_app_wants_it(coach_list: CoachList) -> None:
    key: dict[str, Any] = {"key_id": "k", "key_sha256": "0" * 64, "key_generation": 1}
    client = Patient(
        coach_list.url, options=ApiOptions.of({"send": "plaintext", "fields": {"api_key": "key"}})
    )
    client.set_key("coach-1", **key, plaintext="secret-key")
    assert coach_list.requests[-1][2] == {"key_id": "k", "key_generation": 1, "key": "secret-key"}
    coach_list.faults = [refuse(400, "secret-key is too short")]
    with pytest.raises(ApiError, match=r"\*\*\* is too short"):
        client.set_key("coach-1", **key, plaintext="secret-key")
    with pytest.raises(OptionsError, match="hash"):
        client.set_key("coach-1", **key)


def test_gateways(coach_list: CoachList) -> None:
    client = Patient(coach_list.url)
    assert client.gateway("gw-a") is None
    told = client.put_gateway("gw-a", url="http://m:8080/gw-a/", token="t" * 48, capacity=None)
    assert told["url"] == "http://m:8080/gw-a"
    assert client.gateway("gw-a") == told
    coach_list.faults = [send(b"<html>", 404, "text/html")]
    with pytest.raises(ApiError, match=r"api\.paths"):
        client.gateway("gw-a")


def test_an_app_of_another_kind(coach_list: CoachList) -> None:
    options = ApiOptions.of(
        {
            "paths": {"coaches": "v2/profiles/", "claim": "v2/profiles/{pk}/take/"},
            "auth_header": "X-Service-Key",
            "auth_prefix": "",
            "fields": {"agent_id": "openclaw_id", "pk": "id", "gateway": "shard"},
        }
    )
    theirs = {"id": 5, "openclaw_id": "coach-5", "shard": "gw-a", "name": "E"}
    coach_list.faults = [
        send(json.dumps({"next": None, "results": [theirs]}).encode()),
        send(json.dumps(theirs).encode()),
    ]
    client = Patient(coach_list.url, options=options)
    pages = client.coaches({"fleet": "staging"})
    assert pages is not None
    assert pages.rows == [{"pk": 5, "agent_id": "coach-5", "name": "E", "gateway": "gw-a"}]
    assert client.claim(5, "gw-a")["agent_id"] == "coach-5"
    assert [request[:2] for request in coach_list.requests] == [
        ("GET", "v2/profiles/"),
        ("POST", "v2/profiles/5/take/"),
    ]
    assert coach_list.requests[1][2] == {"shard": "gw-a"}
    assert coach_list.headers[0]["X-Service-Key"] == TOKEN
    assert "Authorization" not in coach_list.headers[0]


def test_an_answer_without_a_row_is_an_error(coach_list: CoachList) -> None:
    coach_list.faults = [send(b"{}"), send(b"[]")]
    client = Patient(coach_list.url)
    with pytest.raises(ApiError, match="it has no 'pk'"):
        client.claim(1, "gw-a")
    with pytest.raises(ApiError, match="no JSON object"):
        client.claim(1, "gw-a")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "app.example.com"}, "api_url is 'app.example.com'"),
        ({"url": "https://u:p@app.example.com/"}, "must hold no user name"),
        ({"url": "https://app.example.com/?x=1"}, "without a query"),
        ({"token": "  "}, "api_token is empty"),
        ({"token": "a\nb"}, "cannot be in a header"),
        ({"ca_path": "/nonexistent/ca.pem", "url": "https://a.example"}, "Check ca_path"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        Patient(**{"url": "http://127.0.0.1:1/", **options})


@pytest.mark.parametrize(
    ("api", "words"),
    [
        ({"path": {}}, "api has no 'path'; it knows paths"),
        ({"paths": {"coach": "x"}}, "api.paths has no 'coach'"),
        ({"paths": {"claim": "x/{id}/"}}, "api.paths.claim is 'x/{id}/'"),
        ({"paths": ["x"]}, "api.paths must map names to text"),
        ({"fields": {"agent": "x"}}, "api.fields has no 'agent'"),
        ({"send": "both"}, "hash or plaintext"),
        ({"page_size": 0}, "above 0"),
    ],
)
def test_api_options_that_cannot_be_used(api: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsError) as caught:
        ApiOptions.of(api)
    assert words in str(caught.value)
