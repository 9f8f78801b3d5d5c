"""Where gateways are reached: who may tell it, what they may tell, and that it is so from the next ask on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, reverse
from django.utils import formats

from claw_fleet.coachlist import fleet
from claw_fleet.coachlist.models import Gateway, ServiceToken
from claw_fleet.coachlist.urls import urlpatterns

from .conftest import SERVICE_TOKEN, Api, MakeCoach, MakeGateway, sha256
from .standin import StandIn
from .test_admin import GATEWAYS, form_of, text_of
from .test_ask import ask, whole
from .test_races import at_once
from .test_rotation import at

pytestmark = pytest.mark.django_db

WATCHER = "watcher-" + "0123456789" * 4
TUNNEL = "https://calm-river.trycloudflare.com/gw-a"
INTERNAL = [pattern for pattern in urlpatterns if str(pattern.pattern).startswith("internal/")]
PARTS = {"pk": 1, "name": "gw-a", "agent_id": "coach-anna", "token_sha256": sha256("another")}


def address(name: str = "gw-a") -> str:
    """Where a gateway's address is told."""
    return f"internal/gateways/{name}/address/"


def probe(url: str = TUNNEL, **body: Any) -> dict[str, Any]:
    """What is told of a probe; without more, that the gateway answered."""
    return {"url": url, "answered": True, "reason": "", **body}


@pytest.fixture
def watcher(db: None, fleet_api: Api, make_gateway: MakeGateway) -> Api:
    """The internal API with a token for the addresses of gw-a and gw-b alone."""
    make_gateway("gw-a"), make_gateway("gw-b"), make_gateway("gw-c")
    told = fleet_api.put(at(WATCHER), {"name": "machine-1", "gateways": ["gw-b", "gw-a", "gw-b"]})
    assert told.status_code == 200 and told.json() == {"changed": True}
    return Api(WATCHER)


def test_what_a_token_is_for_is_told_changed_and_shown(watcher: Api, fleet_api: Api) -> None:
    def told(**body: Any) -> bool:
        changed: bool = fleet_api.put(at(WATCHER), {"name": "machine-1", **body}).json()["changed"]
        return changed

    assert fleet_api.get(at(WATCHER)).json()["gateways"] == ["gw-a", "gw-b"]
    assert not told(gateways=["gw-a", "gw-b"]) and not told()
    assert told(gateways=["gw-c"]) and not told(gateways=["gw-c"])
    assert watcher.put(address("gw-a"), probe()).status_code == 403
    assert watcher.put(address("gw-c"), probe()).status_code == 200
    assert not told() and fleet_api.get(at(WATCHER)).json()["gateways"] == ["gw-c"]
    assert told(gateways=[]) and watcher.get("internal/coaches/").status_code == 200


@pytest.mark.parametrize("gateways", ["gw-a", ["Gw A"], ["none"], [""], [None], {"gw-a": 1}, None])
def test_what_a_token_cannot_be_for(fleet_api: Api, gateways: Any) -> None:
    answer = fleet_api.put(at(WATCHER), {"name": "machine-1", "gateways": gateways})
    assert answer.status_code == 400 and "gateways" in answer.json()["detail"]
    assert not ServiceToken.objects.exists()


def test_nobody_binds_a_token_that_would_not_be_bound_or_their_own(watcher: Api, fleet_api: Api) -> None:
    body = {"name": "x", "gateways": ["gw-a"]}
    answer = fleet_api.put(at(SERVICE_TOKEN), body)
    assert answer.status_code == 409 and answer.json()["code"] == "service_token_configured"
    fleet_api.put(at(WATCHER), {"name": "x", "gateways": []})
    answer = watcher.put(at(WATCHER), body)
    assert answer.status_code == 409 and answer.json()["code"] == "service_token_presented"
    assert ServiceToken.objects.get().gateways == []


@pytest.mark.parametrize("route", INTERNAL, ids=lambda route: route.name)
def test_such_a_token_opens_nothing_but_addresses(watcher: Api, route: URLPattern) -> None:
    path = reverse(f"coachlist:{route.name}", kwargs={name: PARTS[name] for name in route.pattern.converters})
    for method in ("get", "post", "put", "patch", "delete"):
        answer = getattr(watcher.client, method)(path)
        if route.name == "internal-address":
            assert answer.status_code in {200, 400, 405}
        else:
            assert answer.status_code == 403
            assert "(internal/gateways/NAME/address/)" in answer.content.decode()


def test_such_a_token_is_no_coachs_key(watcher: Api) -> None:
    assert watcher.get("clients/").status_code == 401 and watcher.post("ask/").status_code == 401


def test_an_address_is_told_and_told_again(watcher: Api) -> None:
    assert watcher.get(address()).json() == {
        "url": "",
        "url_set_at": None,
        "probed_at": None,
        "probe_error": "",
    }
    first = watcher.put(address(), probe(f"{TUNNEL}/"))
    assert first.status_code == 200
    assert first.json() == {"changed": True, "url": TUNNEL, "former_url": ""}
    then = watcher.get(address()).json()
    assert then["url"] == TUNNEL and then["url_set_at"] and then["probed_at"] and then["probe_error"] == ""

    assert watcher.put(address(), probe()).json() == {"changed": False, "url": TUNNEL, "former_url": TUNNEL}
    again = watcher.get(address()).json()
    assert again["url_set_at"] == then["url_set_at"] and again["probed_at"] > then["probed_at"]

    other = "https://other.trycloudflare.com"
    told = watcher.put(address(), probe(other)).json()
    assert told == {"changed": True, "url": other, "former_url": TUNNEL}
    assert watcher.get(address()).json()["url_set_at"] > then["url_set_at"]
    assert Gateway.objects.get(name="gw-b").url == ""


def test_what_does_not_answer_leaves_the_address_and_says_why(watcher: Api) -> None:
    watcher.put(address(), probe())
    before = watcher.get(address()).json()
    # The address that was tried is not looked at, so anything may stand there.
    failed = watcher.put(address(), probe("http://127.0.0.1", answered=False, reason="HTTP 530 " * 200))
    assert failed.json() == {"changed": False, "url": TUNNEL, "former_url": TUNNEL}
    after = watcher.get(address()).json()
    assert (after["url"], after["url_set_at"]) == (TUNNEL, before["url_set_at"])
    assert after["probed_at"] > before["probed_at"]
    assert after["probe_error"] == ("HTTP 530 " * 200)[: fleet.PROBE_ERROR_MAX]
    watcher.put(address(), probe())
    assert watcher.get(address()).json()["probe_error"] == ""


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"url": ""}, "url: "),
        ({"url": "gw.example.org"}, "url: "),
        ({"url": "https://u:p@gw.example.org"}, "password"),
        ({"url": "https://gw.example.org/" + "x" * 500}, "url: "),
        ({"answered": None}, "answered: "),
        ({"answered": "perhaps"}, "answered: "),
        ({"answered": False}, "reason: "),
        ({"answered": False, "reason": "a\x00b"}, "reason: "),
    ],
)
def test_what_cannot_be_told_of_a_probe(
    watcher: Api, fleet_api: Api, body: dict[str, Any], word: str
) -> None:
    for api in (watcher, fleet_api):
        answer = api.put(address(), probe(**body))
        assert answer.status_code == 400 and word in answer.json()["detail"]
    assert Gateway.objects.get(name="gw-a").probed_at is None


NOT_PUBLIC = [
    "https://localhost",
    "https://LOCALHOST./gw-a",
    "https://app.localhost:8443",
    "https://127.0.0.1",
    "https://127.1",
    "https://2130706433",
    "https://0x7f.0.0.1",
    "https://0.0.0.0",
    "https://10.1.2.3:8443/gw-a",
    "https://172.16.0.1",
    "https://192.168.1.1.",
    "https://169.254.169.254",
    "https://100.64.0.1",
    "https://224.0.0.1",
    "https://[::1]",
    "https://[fe80::1%25eth0]",
    "https://[fd00::1]",
    "https://[::ffff:10.0.0.1]",
    "https://[2002:7f00:1::]",
    "https://[64:ff9b::10.0.0.1]",
]


@pytest.mark.parametrize(
    ("url", "word"),
    [
        *((url, "is not a public one") for url in NOT_PUBLIC),
        ("http://gw.example.org", "https://"),
        ("http://127.0.0.1", "https://"),
        ("https://evil.example\\.trycloudflare.com", "name of a host"),
        ("https://evil.example%2f.trycloudflare.com", "name of a host"),
    ],
)
def test_a_gateways_token_is_sent_nowhere_private_because_a_machine_said_so(
    watcher: Api, fleet_api: Api, url: str, word: str
) -> None:
    answer = watcher.put(address(), probe(url))
    assert answer.status_code == 400
    assert "url: " in answer.json()["detail"] and word in answer.json()["detail"]
    assert Gateway.objects.get(name="gw-a").url == ""
    # The fleet's own tokens have the rules of before.
    assert fleet_api.put(address(), probe(url)).status_code == 200


@pytest.mark.parametrize(
    "url", ["https://gw.example.org:8443/gw-a", "https://1.1.1.1", "https://[2606:4700::1]"]
)
def test_any_public_host_where_none_are_named(watcher: Api, url: str) -> None:
    assert watcher.put(address(), probe(url)).json()["url"] == url


@pytest.mark.parametrize(
    ("host", "taken"),
    [
        ("calm-river.trycloudflare.com", True),
        ("A.B.TryCloudflare.com", True),
        ("gw.example.org", True),
        ("trycloudflare.com", False),
        ("eviltrycloudflare.com", False),
        ("calm.trycloudflare.com.evil.example", False),
        ("a.gw.example.org", False),
        ("1.1.1.1", False),
        ("127.0.0.1", False),
    ],
)
def test_named_hosts_alone(watcher: Api, fleet_api: Api, settings: Any, host: str, taken: bool) -> None:
    settings.COACHLIST_ADDRESS_HOSTS = [".trycloudflare.com", "GW.example.org"]
    answer = watcher.put(address(), probe(f"https://{host}/gw-a"))
    assert answer.status_code == (200 if taken else 400)
    if not taken and host != "127.0.0.1":
        assert "COACHLIST_ADDRESS_HOSTS" in answer.json()["detail"]
    assert fleet_api.put(address(), probe(f"https://{host}/gw-a")).status_code == 200


@pytest.mark.parametrize("name", ["gw-x", "Gw-A", "%00"])
def test_an_unknown_gateway_has_no_address(fleet_api: Api, name: str) -> None:
    for answer in (fleet_api.get(address(name)), fleet_api.put(address(name), probe())):
        assert answer.status_code == 404 and "Register it first" in answer.json()["detail"]
    assert not Gateway.objects.exists()


@pytest.mark.parametrize("name", ["gw-c", "gw-x"])
def test_another_gateways_address_is_not_theirs(watcher: Api, name: str) -> None:
    for answer in (watcher.get(address(name)), watcher.put(address(name), probe())):
        assert answer.status_code == 403 and answer.json()["code"] == "not_your_gateway"
        assert "gw-a, gw-b" in answer.json()["detail"]


def by_the_fleet(url: str, admin_client: Client) -> None:
    """PUT internal/gateways/gw-a/."""
    assert Api(SERVICE_TOKEN).put("internal/gateways/gw-a/", {"url": url}).status_code == 200


def by_a_person(url: str, admin_client: Client) -> None:
    """The admin's form."""
    page = f"{GATEWAYS}gw-a/change/"
    admin_client.post(page, {**form_of(admin_client.get(page)), "url": url})


@pytest.mark.parametrize("change", [by_the_fleet, by_a_person])
def test_a_probe_is_about_the_address_it_was_of(
    watcher: Api, admin_client: Client, change: Callable[[str, Client], None]
) -> None:
    watcher.put(address(), probe())
    watcher.put(address(), probe(answered=False, reason="HTTP 530"))
    change(TUNNEL, admin_client)
    assert watcher.get(address()).json()["probe_error"] == "HTTP 530"
    change("https://new.example.org", admin_client)
    known = watcher.get(address()).json()
    assert (known["url"], known["probed_at"], known["probe_error"]) == ("https://new.example.org", None, "")


def test_the_admin_shows_the_address_and_the_last_probe(watcher: Api, admin_client: Client) -> None:
    pages = (GATEWAYS, f"{GATEWAYS}gw-a/change/")
    assert all("not probed yet" in text_of(admin_client.get(page)) for page in pages)
    watcher.put(address(), probe())
    for page in pages:
        shown = text_of(admin_client.get(page))
        gateway = Gateway.objects.get(name="gw-a")
        assert gateway.url_set_at and gateway.probed_at and "answers" in shown
        for moment in (gateway.url_set_at, gateway.probed_at):
            assert formats.date_format(moment, "DATETIME_FORMAT") in shown
    assert TUNNEL in text_of(admin_client.get(GATEWAYS))
    watcher.put(address(), probe(answered=False, reason="HTTP 530: <no tunnel>" + " x" * 100))
    for page in pages:
        answer = admin_client.get(page)
        assert "HTTP 530: <no tunnel>" in text_of(answer)
        assert b'class="coachlist-badge coachlist-error"' in answer.content
        assert b"coachlist/admin.css" in answer.content
    tokens = text_of(admin_client.get("/admin/coachlist/servicetoken/"))
    assert "tell the address of gw-a, gw-b" in tokens


def test_the_next_ask_goes_to_the_new_address(
    fleet_api: Api, make_coach: MakeCoach, make_gateway: MakeGateway, standin: StandIn
) -> None:
    standin.answer = lambda reply: reply.json(whole("x"))
    make_gateway(url=f"{standin.url}/before")
    make_coach(key="the-key-of-anna", gateway_id="gw-a", status="active")
    assert ask().status_code == 200
    assert fleet_api.put(address(), probe(f"{standin.url}/after")).json()["changed"]
    assert ask().status_code == 200
    assert [heard.path for heard in standin.heard] == ["/before/v1/responses", "/after/v1/responses"]


@pytest.mark.django_db(transaction=True)
def test_addresses_and_tokens_told_at_once_are_both_kept(make_gateway: MakeGateway) -> None:
    make_gateway()
    urls = [f"https://{number}.example.org" for number in range(4)]
    answers = at_once(
        [
            *(lambda url=url: Api(SERVICE_TOKEN).put(address(), probe(url)) for url in urls),
            lambda: Api(SERVICE_TOKEN).put("internal/gateways/gw-a/", {"token": "n" * 48, "capacity": 7}),
        ]
    )
    assert [answer.status_code for answer in answers] == [200] * 5
    gateway = Gateway.objects.get()
    assert (gateway.token(), gateway.capacity) == ("n" * 48, 7)
    # Each answer's former address is the one that another has put there: nobody's was lost on the way.
    told = [answer.json() for answer in answers[:4]]
    assert {row["former_url"] for row in told} == {"", *urls} - {gateway.url}
