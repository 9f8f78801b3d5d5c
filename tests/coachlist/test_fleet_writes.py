"""What the fleet writes: claims, statuses, keys, gateways; and that people and fleet never overwrite each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.fernet import Fernet

from claw_fleet.coachlist import crypto, fleet, people
from claw_fleet.coachlist.models import CompanionProfile, Gateway, Status, Wanted
from claw_fleet.coachlist.models.fleet import CompanionQuerySet

from .conftest import Api, MakeCoach, MakeGateway, sha256

pytestmark = pytest.mark.django_db

KEY: dict[str, Any] = {"key_id": "k1", "key_sha256": sha256("key one"), "key_generation": 1}


def claim(api: Api, coach: CompanionProfile, gateway: str = "gw-a") -> Any:
    """POST claim."""
    return api.post(f"internal/coaches/{coach.pk}/claim/", {"gateway": gateway})


def report(api: Api, coach: CompanionProfile, **body: Any) -> Any:
    """PATCH status."""
    return api.patch(f"internal/coaches/{coach.pk}/status/", body)


def register(api: Api, agent_id: str, **changes: Any) -> Any:
    """POST set-key."""
    return api.post(f"internal/set-key/{quote(agent_id, safe='')}/", {**KEY, **changes})


@pytest.mark.parametrize(
    ("wanted", "before", "after"),
    [
        (Wanted.RUNNING, Status.PENDING, Status.PROVISIONING),
        (Wanted.RUNNING, Status.ERROR, Status.PROVISIONING),
        (Wanted.RUNNING, Status.REMOVED, Status.PROVISIONING),
        (Wanted.RUNNING, Status.ACTIVE, Status.ACTIVE),
        (Wanted.RUNNING, Status.PAUSED, Status.PAUSED),
        (Wanted.REMOVED, Status.REMOVED, Status.REMOVED),
        (Wanted.PAUSED, Status.PENDING, Status.PROVISIONING),
    ],
)
def test_a_claim_begins_the_work(
    fleet_api: Api, make_coach: MakeCoach, make_gateway: MakeGateway, wanted: str, before: str, after: str
) -> None:
    make_gateway()
    coach = make_coach(wanted=wanted, status=before, reason="old" if before == Status.ERROR else "")
    answer = claim(fleet_api, coach)
    assert answer.status_code == 200
    assert (answer.json()["gateway"], answer.json()["status"], answer.json()["reason"]) == ("gw-a", after, "")
    row = fleet_api.get("internal/coaches/").json()["results"][0]
    assert row == answer.json()
    assert claim(fleet_api, coach).json() == row


def test_a_held_coach_is_nobody_elses(
    fleet_api: Api, make_coach: MakeCoach, make_gateway: MakeGateway
) -> None:
    make_gateway("gw-a"), make_gateway("gw-b")
    coach = make_coach()
    claim(fleet_api, coach)
    answer = claim(fleet_api, coach, "gw-b")
    assert answer.status_code == 409
    assert answer.json()["gateway"] == "gw-a" and "gw-a" in answer.json()["detail"]
    assert CompanionProfile.objects.get().gateway_id == "gw-a"


def test_a_full_gateway_takes_no_more_but_keeps_its_own(
    fleet_api: Api, make_coach: MakeCoach, make_gateway: MakeGateway
) -> None:
    make_gateway(capacity=1)
    first, second = make_coach("a"), make_coach("b")
    assert claim(fleet_api, first).status_code == 200
    answer = claim(fleet_api, second)
    assert (
        answer.status_code == 409 and answer.json()["gateway"] is None and "full" in answer.json()["detail"]
    )
    assert claim(fleet_api, first).status_code == 200
    second.refresh_from_db()
    assert (second.gateway_id, second.status) == (None, Status.PENDING)


def test_claims_that_cannot_be_right(
    fleet_api: Api, make_coach: MakeCoach, make_gateway: MakeGateway
) -> None:
    make_gateway()
    coach = make_coach()
    unknown = claim(fleet_api, coach, "gw-x")
    assert unknown.status_code == 400 and "internal/gateways/gw-x/" in unknown.json()["detail"]
    assert fleet_api.post(f"internal/coaches/{coach.pk}/claim/", {}).status_code == 400
    assert fleet_api.post(f"internal/coaches/{coach.pk}/claim/", {"gateway": "a\x00"}).status_code == 400
    assert fleet_api.post("internal/coaches/999/claim/", {"gateway": "gw-a"}).status_code == 404
    assert fleet_api.post(f"internal/coaches/{10**30}/claim/", {"gateway": "gw-a"}).status_code == 404
    assert CompanionProfile.objects.get().gateway_id is None


def test_a_status_is_reported(fleet_api: Api, make_coach: MakeCoach, make_gateway: MakeGateway) -> None:
    make_gateway()
    coach = make_coach(gateway_id="gw-a", generation=3, reason="old", key="key one")
    answer = report(fleet_api, coach, gateway="gw-a", status="active", observed_generation=3)
    assert answer.status_code == 200
    row = answer.json()
    assert (row["status"], row["observed_generation"], row["reason"]) == ("active", 3, "")
    coach.refresh_from_db()
    assert coach.status_changed_at is not None and not coach.due
    assert report(fleet_api, coach, gateway="gw-a", status="active", observed_generation=3).json() == row


def test_a_removed_coach_is_released_and_saying_so_twice_is_fine(
    fleet_api: Api, make_coach: MakeCoach, make_gateway: MakeGateway
) -> None:
    make_gateway()
    coach = make_coach(gateway_id="gw-a", wanted=Wanted.REMOVED, generation=2)
    for _ in range(2):
        answer = report(fleet_api, coach, gateway="gw-a", status="removed", observed_generation=2)
        assert answer.status_code == 200
        assert (answer.json()["gateway"], answer.json()["status"]) == (None, "removed")


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"gateway": "gw-b", "status": "active"}, 409, "gw-a"),
        ({"status": "active"}, 409, "gw-a"),
        ({"gateway": "gw-a", "status": "active", "observed_generation": 4}, 400, "ahead"),
        ({"gateway": "gw-a", "status": "active", "observed_generation": 1}, 409, "back"),
        ({"gateway": "gw-a", "status": "asleep"}, 400, "asleep"),
        ({"gateway": "gw-a", "status": "error"}, 400, "reason"),
        ({"gateway": "gw-a", "status": "active", "observed_generation": -1}, 400, "observed_generation"),
        ({"gateway": "gw-a", "status": "active", "observed_generation": 2**70}, 400, "observed_generation"),
        ({"gateway": "gw-a"}, 400, "status"),
        (["status"], 400, "dictionary"),
    ],
)
def test_statuses_that_cannot_be_right(
    fleet_api: Api, make_coach: MakeCoach, make_gateway: MakeGateway, body: Any, status: int, word: str
) -> None:
    make_gateway("gw-a"), make_gateway("gw-b")
    coach = make_coach(gateway_id="gw-a", generation=3, observed_generation=2, status=Status.PROVISIONING)
    before = CompanionProfile.objects.values().get()
    answer = fleet_api.patch(f"internal/coaches/{coach.pk}/status/", body)
    assert answer.status_code == status and word in answer.json()["detail"]
    assert CompanionProfile.objects.values().get() == before


@pytest.mark.parametrize("status", Status.values)
def test_what_can_be_said_of_a_coach_nobody_holds(fleet_api: Api, make_coach: MakeCoach, status: str) -> None:
    coach = make_coach()
    answer = report(fleet_api, coach, gateway=None, status=status, reason="full")
    expected = 409 if status in {"provisioning", "activating", "active"} else 200
    assert answer.status_code == expected
    coach.refresh_from_db()
    assert coach.status == (status if expected == 200 else Status.PENDING)


def test_a_long_reason_is_kept_as_far_as_it_goes(fleet_api: Api, make_coach: MakeCoach) -> None:
    answer = report(fleet_api, make_coach(), status="error", reason="x" * 100_000)
    assert answer.status_code == 200 and answer.json()["reason"] == "x" * fleet.REASON_MAX


def test_a_key_is_registered_replaced_and_revoked(fleet_api: Api, make_coach: MakeCoach) -> None:
    coach = make_coach(key_wanted_generation=2)
    assert register(fleet_api, "coach-anna").json() == {"changed": True}
    assert register(fleet_api, "coach-anna").json() == {"changed": False}
    coach.refresh_from_db()
    assert (coach.key_id, coach.key_sha256, coach.key_generation) == ("k1", KEY["key_sha256"], 1)
    created = coach.key_created_at
    assert created is not None and coach.key_rotated_at is None

    second = {"key_id": "k2", "key_sha256": sha256("key two"), "key_generation": 2}
    assert register(fleet_api, "coach-anna", **second).json() == {"changed": True}
    coach.refresh_from_db()
    assert coach.key_created_at == created and coach.key_rotated_at is not None
    assert register(fleet_api, "coach-anna").status_code == 409

    assert fleet_api.delete("internal/set-key/coach-anna/").json() == {"changed": True}
    assert fleet_api.delete("internal/set-key/coach-anna/").json() == {"changed": False}
    coach.refresh_from_db()
    assert (coach.key_id, coach.key_sha256, coach.key_generation) == ("", "", 2)
    assert coach.key_revoked_at is not None

    assert register(fleet_api, "coach-anna", **second).json() == {"changed": True}
    coach.refresh_from_db()
    assert coach.key_revoked_at is None


def test_a_lost_key_of_the_same_generation_is_replaced(fleet_api: Api, make_coach: MakeCoach) -> None:
    make_coach()
    register(fleet_api, "coach-anna")
    again = register(fleet_api, "coach-anna", key_sha256=sha256("made anew"))
    assert again.json() == {"changed": True}
    assert CompanionProfile.objects.get().key_sha256 == sha256("made anew")


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({"key_sha256": "key one"}, 400, "never the key"),
        ({"key_sha256": "A" * 64}, 400, "lower-case"),
        ({"key_sha256": "a" * 63}, 400, "64"),
        ({"key_id": ""}, 400, "key_id"),
        ({"key_generation": 2}, 400, "Rotate key"),
        ({"key_generation": -1}, 400, "key_generation"),
    ],
)
def test_keys_that_cannot_be_right(
    fleet_api: Api, make_coach: MakeCoach, changes: dict[str, Any], status: int, word: str
) -> None:
    make_coach()
    answer = register(fleet_api, "coach-anna", **changes)
    assert answer.status_code == status and word in answer.json()["detail"]
    assert CompanionProfile.objects.get().key_sha256 == ""


def test_a_key_belongs_to_one_coach(fleet_api: Api, make_coach: MakeCoach) -> None:
    make_coach("a"), make_coach("b")
    register(fleet_api, "a")
    answer = register(fleet_api, "b")
    assert answer.status_code == 409 and "another coach" in answer.json()["detail"]
    assert CompanionProfile.objects.get(agent_id="b").key_sha256 == ""


@pytest.mark.parametrize(
    "agent_id",
    [
        "Coach Anna",
        "a/b",
        "a/",
        "../x",
        "ü",
        "a%2Fb",
        "a?b#c",
        "line\nbreak",
        "claim",
        "-",
        "'\"<>",
        "+",
        "a\\b",
    ],
)
def test_odd_ids_have_keys_too(fleet_api: Api, make_coach: MakeCoach, agent_id: str) -> None:
    make_coach(agent_id)
    make_coach("other")
    assert register(fleet_api, agent_id).json() == {"changed": True}
    assert CompanionProfile.objects.get(agent_id=agent_id).key_sha256 == KEY["key_sha256"]
    assert fleet_api.delete(f"internal/set-key/{quote(agent_id, safe='')}/").json() == {"changed": True}


@pytest.mark.parametrize("path", ["nobody", "COACH-ANNA", "%00", "a%00b", "%FF%FE", "coach-anna%20"])
def test_keys_of_nobody(fleet_api: Api, make_coach: MakeCoach, path: str) -> None:
    make_coach()
    assert fleet_api.post(f"internal/set-key/{path}/", KEY).status_code == 404
    assert fleet_api.delete(f"internal/set-key/{path}/").status_code == 404
    assert CompanionProfile.objects.get().key_sha256 == ""


def test_a_gateway_is_registered_once_and_never_gives_its_token_out(fleet_api: Api) -> None:
    told = {"url": "https://gw.example.org/gw-a/", "token": "t0ken-of-the-gateway", "capacity": 7}
    known = {
        "name": "gw-a",
        "url": "https://gw.example.org/gw-a",
        "capacity": 7,
        "token_sha256": sha256("t0ken-of-the-gateway"),
        "next_token_sha256": "",
    }
    answer = fleet_api.put("internal/gateways/gw-a/", told)
    assert answer.status_code == 200 and answer.json() == {**known, "changed": True}
    gateway = Gateway.objects.get()
    assert gateway.token() == "t0ken-of-the-gateway"
    assert "t0ken" not in gateway.token_encrypted
    stored = Gateway.objects.values().get()

    assert fleet_api.put("internal/gateways/gw-a/", told).json() == {**known, "changed": False}
    assert fleet_api.put("internal/gateways/gw-a/", {}).json() == {**known, "changed": False}
    assert Gateway.objects.values().get() == stored
    assert fleet_api.get("internal/gateways/gw-a/").json() == {**known, "used": 0}
    assert fleet_api.get("internal/gateways/").json() == [{**known, "used": 0}]

    moved = fleet_api.put("internal/gateways/gw-a/", {"url": "http://10.0.0.1:8080/gw-a"}).json()
    assert moved == {**known, "url": "http://10.0.0.1:8080/gw-a", "changed": True}
    gateway.refresh_from_db()
    assert gateway.token() == "t0ken-of-the-gateway" and gateway.url_set_at != stored["url_set_at"]


@pytest.mark.parametrize(
    ("name", "body", "word"),
    [
        ("gw-a", {"url": "ftp://x"}, "https://"),
        ("gw-a", {"url": "gw.example.org"}, "https://"),
        ("gw-a", {"url": "https://"}, "https://"),
        ("gw-a", {"url": "https://u:p@x/"}, "password"),
        ("gw-a", {"url": "https://x/?a=b"}, "query"),
        ("gw-a", {"url": "https://x/#a"}, "fragment"),
        ("gw-a", {"url": "https://x y/"}, "https://"),
        ("gw-a", {"url": "https://x:99999"}, "https://"),
        ("gw-a", {"url": "https://[::1"}, "https://"),
        ("gw-a", {"url": "https://x\n"}, "https://"),
        ("gw-a", {"token": "short"}, "token"),
        ("gw-a", {"token": "with a space in the midst"}, "token"),
        ("gw-a", {"token": "with\r\nHeader: injected"}, "token"),
        ("gw-a", {"capacity": -1}, "capacity"),
        ("gw-a", {"capacity": "many"}, "capacity"),
        ("Gw-A", {}, "name"),
        ("none", {}, "none"),
        ("a" * 28, {}, "27"),
    ],
)
def test_gateways_that_cannot_be_right(fleet_api: Api, name: str, body: dict[str, Any], word: str) -> None:
    answer = fleet_api.put(f"internal/gateways/{name}/", body)
    if body.get("url") == "https://x\n":  # white space at the ends is forgiven
        assert answer.json()["url"] == "https://x"
        return
    assert answer.status_code == 400 and word in answer.json()["detail"]
    assert str(body.get("token", "no token")) not in answer.content.decode()
    assert not Gateway.objects.exists()


def test_an_unknown_gateway_is_not_found(fleet_api: Api) -> None:
    assert fleet_api.get("internal/gateways/gw-x/").status_code == 404
    assert fleet_api.get("internal/gateways/%00/").status_code == 404


def test_broken_json_is_a_400(fleet_api: Api, make_coach: MakeCoach) -> None:
    coach = make_coach()
    answer = fleet_api.client.post(
        f"/api/companion/v1/internal/coaches/{coach.pk}/claim/", b"{", content_type="application/json"
    )
    assert answer.status_code == 400 and "JSON" in answer.json()["detail"]


# Interleavings: somebody clicks exactly between what the fleet read and what it writes, and the other way round.

CLICKS: dict[str, Callable[[CompanionQuerySet], int]] = {
    "provision": people.provision,
    "pause": people.pause,
    "resume": people.resume,
    "remove": people.remove,
    "rotate_key": people.rotate_key,
    "edit": lambda coaches: people.edit(coaches.get().pk, name="New", vars={"a": 1}),
}
PEOPLES = ("name", "vars", "wanted", "generation", "key_wanted_generation")


def peoples_part() -> dict[str, Any]:
    """People's columns of the only coach."""
    return dict(CompanionProfile.objects.values(*PEOPLES).get())


def fleets_part() -> dict[str, Any]:
    """All other columns of the only coach."""
    row = CompanionProfile.objects.values().get()
    return {column: value for column, value in row.items() if column not in PEOPLES}


FLEETS_ACTS: dict[str, Callable[[CompanionProfile], object]] = {
    "claim": lambda coach: fleet.claim(coach.pk, "gw-a"),
    "report": lambda coach: fleet.report(coach.pk, gateway=None, status="paused", observed_generation=1),
    "set_key": lambda coach: fleet.set_key("coach-anna", **KEY),
    "revoke_key": lambda coach: fleet.revoke_key("coach-anna"),
}


@pytest.mark.parametrize("click", CLICKS)
@pytest.mark.parametrize("act", FLEETS_ACTS)
def test_a_click_in_the_midst_of_the_fleets_write_is_kept(
    make_coach: MakeCoach,
    make_gateway: MakeGateway,
    monkeypatch: pytest.MonkeyPatch,
    act: str,
    click: str,
) -> None:
    make_gateway()
    coach = make_coach(
        key="first" if act == "revoke_key" else "", wanted="paused" if click == "resume" else "running"
    )
    original, clicked = fleet._write, []

    def write(row: CompanionProfile, values: dict[str, Any]) -> bool:
        assert CLICKS[click](CompanionProfile.objects.all()) == 1
        clicked.append(peoples_part())
        return original(row, values)

    monkeypatch.setattr(fleet, "_write", write)
    before = fleets_part()
    FLEETS_ACTS[act](coach)
    assert clicked == [peoples_part()]
    assert peoples_part()["generation"] == 2
    assert fleets_part() != before


@pytest.mark.parametrize("click", CLICKS)
def test_clicks_write_people_s_columns_alone(make_coach: MakeCoach, click: str) -> None:
    coach = make_coach(wanted="paused" if click == "resume" else "running")
    stale = CompanionProfile.objects.filter(pk=coach.pk)
    FLEETS_ACTS["set_key"](coach)
    FLEETS_ACTS["report"](coach)
    before = fleets_part()
    assert CLICKS[click](stale) == 1
    assert fleets_part() == before
    coach.refresh_from_db()
    assert coach.generation == 2 and coach.due


def test_only_people_s_columns_can_be_edited(make_coach: MakeCoach) -> None:
    coach = make_coach()
    with pytest.raises(ValueError, match="status"):
        people.edit(coach.pk, name="New", status="active")
    assert people.edit(coach.pk) == 0
    coach.refresh_from_db()
    assert (coach.name, coach.generation) == ("Anna", 1)


@pytest.mark.parametrize(
    ("fields", "due"),
    [
        ({"status": "active", "observed_generation": 1, "key_generation": 1}, False),
        ({"status": "active", "observed_generation": 0, "key_generation": 1}, True),
        ({"status": "active", "observed_generation": 1, "key_generation": 0}, True),
        ({"status": "paused", "observed_generation": 1, "key_generation": 1}, True),
        ({"wanted": "paused", "status": "paused", "observed_generation": 1, "key_generation": 1}, False),
        ({"wanted": "removed", "status": "removed", "observed_generation": 1}, False),
        ({"wanted": "removed", "status": "error", "observed_generation": 1}, True),
        ({}, True),
        ({"wanted": "nonsense", "status": "active", "observed_generation": 1, "key_generation": 1}, True),
    ],
)
def test_due_is_the_same_for_a_row_and_for_a_query(
    make_coach: MakeCoach, fields: dict[str, Any], due: bool
) -> None:
    coach = make_coach(**fields)
    assert bool(coach.due) == due
    assert CompanionProfile.objects.due().exists() == due


def test_a_token_under_a_lost_key_is_said_to_be_so(make_gateway: MakeGateway, settings: Any) -> None:
    gateway = make_gateway()
    settings.COACHLIST_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    with pytest.raises(crypto.Undecryptable):
        gateway.token()
