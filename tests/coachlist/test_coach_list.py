"""The coach list as the fleet reads it: who may, pages, filters, entity tags."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claw_fleet.coachlist import people
from claw_fleet.coachlist.models import CompanionProfile, Gateway, Status, Wanted

from .conftest import OLD_SERVICE_TOKEN, SERVICE_TOKEN, Api, MakeCoach, MakeGateway

pytestmark = pytest.mark.django_db
LIST = "internal/coaches/"


def read_all(api: Api, **query: Any) -> tuple[list[dict[str, Any]], set[str]]:
    """Every row, page by page, and the entity tags of the pages."""
    rows, etags, answer = [], set(), api.get(LIST, query)
    while True:
        assert answer.status_code == 200
        rows += answer.json()["results"]
        etags.add(answer["ETag"])
        if answer.json()["next"] is None:
            return rows, etags
        answer = api.get(answer.json()["next"])


@pytest.mark.parametrize("token", [None, "", "wrong", SERVICE_TOKEN[:-1], f"{SERVICE_TOKEN}x", "ünicode"])
def test_nobody_else_may_read(token: str | None) -> None:
    answer = Api(token).get(LIST)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer ")
    assert answer.json()["detail"]


def test_a_coachs_key_opens_nothing_internal(make_coach: MakeCoach) -> None:
    make_coach(key="coach-key-1")
    assert Api("coach-key-1").get(LIST).status_code == 401


@pytest.mark.parametrize("token", [SERVICE_TOKEN, OLD_SERVICE_TOKEN])
def test_every_configured_token_is_accepted(token: str) -> None:
    assert Api(token).get(LIST).status_code == 200


def test_without_tokens_nobody_may(settings: Any) -> None:
    settings.COACHLIST_SERVICE_TOKENS = []
    assert Api("").get(LIST).status_code == 401
    assert Api(SERVICE_TOKEN).get(LIST).status_code == 401


def test_a_row_is_what_the_contract_says(fleet_api: Api, make_coach: MakeCoach) -> None:
    coach = make_coach(vars={"tone": "warm"})
    assert fleet_api.get(LIST).json() == {
        "next": None,
        "previous": None,
        "results": [
            {
                "pk": coach.pk,
                "agent_id": "coach-anna",
                "name": "Anna",
                "vars": {"tone": "warm"},
                "wanted": "running",
                "generation": 1,
                "status": "pending",
                "observed_generation": 0,
                "reason": "",
                "gateway": None,
                "key_id": "",
                "key_sha256": "",
                "key_generation": 0,
                "key_wanted_generation": 1,
            }
        ],
    }


@pytest.mark.parametrize("variables", [[1, [2]], "text", {"a": {"b": [1]}}, 3])
def test_rows_that_no_form_would_take_are_served(
    fleet_api: Api, make_coach: MakeCoach, variables: object
) -> None:
    make_coach("Ann A/../ü\n?#%", name="line\nbreak", vars=variables)
    row = fleet_api.get(LIST).json()["results"][0]
    assert (row["agent_id"], row["name"], row["vars"]) == ("Ann A/../ü\n?#%", "line\nbreak", variables)


def test_ten_thousand_coaches_come_in_pages_of_two_queries(fleet_api: Api) -> None:
    Gateway.objects.create(name="gw-a")
    CompanionProfile.objects.bulk_create(
        CompanionProfile(agent_id=f"coach-{n}", name="N", gateway_id="gw-a") for n in range(10_000)
    )
    rows: list[dict[str, Any]] = []
    etags, url, pages = set(), f"{LIST}?page_size=1000", 0
    while url:
        with CaptureQueriesContext(connection) as queries:
            answer = fleet_api.get(url)
        assert len(queries) == 2, [query["sql"] for query in queries]
        rows += answer.json()["results"]
        etags.add(answer["ETag"])
        url, pages = answer.json()["next"], pages + 1
    assert pages == 10 and len(etags) == 1
    assert [row["pk"] for row in rows] == sorted({row["pk"] for row in rows}) and len(rows) == 10_000
    with CaptureQueriesContext(connection) as queries:
        answer = fleet_api.get(f"{LIST}?page_size=1000", if_none_match=etags.pop())
    assert answer.status_code == 304 and answer.content == b"" and len(queries) == 1


def test_next_is_an_absolute_address_that_keeps_the_filter(
    fleet_api: Api, make_coach: MakeCoach, make_gateway: MakeGateway
) -> None:
    make_gateway()
    for number in range(5):
        make_coach(f"a-{number}", gateway_id="gw-a")
        make_coach(f"b-{number}")
    answer = fleet_api.get(LIST, {"gateway": "gw-a", "page_size": 2})
    assert answer.json()["next"].startswith("http://testserver/api/companion/v1/internal/coaches/?")
    rows, _ = read_all(fleet_api, gateway="gw-a", page_size=2)
    assert [row["agent_id"] for row in rows] == [f"a-{number}" for number in range(5)]


def test_rows_that_come_and_go_between_pages_shift_no_other(fleet_api: Api, make_coach: MakeCoach) -> None:
    coaches = [make_coach(f"c-{number}") for number in range(6)]
    first = fleet_api.get(LIST, {"page_size": 3}).json()
    coaches[0].delete()
    make_coach("c-6")
    second = fleet_api.get(first["next"]).json()
    assert [row["agent_id"] for row in second["results"]] == ["c-3", "c-4", "c-5"]


def test_page_size_is_bounded(fleet_api: Api) -> None:
    CompanionProfile.objects.bulk_create(CompanionProfile(agent_id=f"c-{n}", name="N") for n in range(1100))
    assert len(fleet_api.get(LIST).json()["results"]) == 500
    assert len(fleet_api.get(LIST, {"page_size": 9999}).json()["results"]) == 1000


def test_filters(fleet_api: Api, make_coach: MakeCoach, make_gateway: MakeGateway) -> None:
    make_gateway("gw-a")
    make_coach("held", gateway_id="gw-a", status=Status.ACTIVE)
    make_coach("free", status=Status.ERROR)

    def ids(**query: str) -> list[str]:
        return [row["agent_id"] for row in read_all(fleet_api, **query)[0]]

    assert ids() == ids(gateway="", status="") == ["held", "free"]
    assert ids(gateway="gw-a") == ["held"]
    assert ids(gateway="none") == ["free"]
    assert ids(gateway="gw-unheard-of") == []
    assert ids(status="error") == ["free"]
    assert ids(gateway="gw-a", status="error") == []


@pytest.mark.parametrize("query", [{"status": "activ"}, {"gateway": "a\x00b"}])
def test_a_filter_that_cannot_be_meant_is_refused(fleet_api: Api, query: dict[str, str]) -> None:
    answer = fleet_api.get(LIST, query)
    assert answer.status_code == 400
    assert next(iter(query)) in answer.json()["detail"]


@pytest.mark.parametrize("inside", ["", "p=abc", "p=-1", "p=%00", "r=1", "o=3", "o=x", f"p={10**30}", "\xff"])
def test_a_damaged_cursor_does_not_begin_anew(fleet_api: Api, inside: str) -> None:
    cursor = b64encode(inside.encode("latin-1")).decode() or "%%%"
    answer = fleet_api.get(LIST, {"cursor": cursor})
    assert answer.status_code == 404 and "cursor" in answer.json()["detail"]


def test_if_none_match_counts_on_the_first_page_alone(fleet_api: Api, make_coach: MakeCoach) -> None:
    for number in range(3):
        make_coach(f"c-{number}")
    first = fleet_api.get(LIST, {"page_size": 2})
    etag = first["ETag"]
    for header in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        assert fleet_api.get(LIST, {"page_size": 2}, if_none_match=header).status_code == 304
    assert fleet_api.get(LIST, if_none_match='"other"').status_code == 200
    second = fleet_api.get(first.json()["next"], if_none_match=etag)
    assert second.status_code == 200 and len(second.json()["results"]) == 1


def test_the_tag_is_of_the_filtered_list(
    fleet_api: Api, make_coach: MakeCoach, make_gateway: MakeGateway
) -> None:
    make_gateway("gw-a")
    make_coach("held", gateway_id="gw-a")
    free = make_coach("free")
    held = fleet_api.get(LIST, {"gateway": "gw-a"})["ETag"]
    everything = fleet_api.get(LIST)["ETag"]
    CompanionProfile.objects.filter(pk=free.pk).update(name="Other")
    assert fleet_api.get(LIST, {"gateway": "gw-a"})["ETag"] == held
    assert fleet_api.get(LIST)["ETag"] != everything


VISIBLE: dict[str, Any] = {
    "agent_id": "coach-b",
    "name": "Anna ",
    "vars": {"tone": "cold"},
    "wanted": Wanted.PAUSED,
    "generation": 2,
    "status": Status.ACTIVE,
    "observed_generation": 1,
    "reason": "because",
    "gateway_id": "gw-a",
    "key_id": "k1",
    "key_sha256": "a" * 64,
    "key_generation": 1,
    "key_wanted_generation": 2,
}
INVISIBLE = (
    "status_changed_at",
    "key_created_at",
    "key_rotated_at",
    "key_revoked_at",
    "key_last_used_at",
    "former_key_until",
)
SECRET = ("former_key_sha256",)
NOT_THE_FLEETS = ("user_id",)


def test_every_column_is_known_here() -> None:
    columns = {field.attname for field in CompanionProfile._meta.concrete_fields}
    assert columns == {"id", *VISIBLE, *INVISIBLE, *SECRET, *NOT_THE_FLEETS}


def test_who_signs_in_as_a_coach_is_not_the_fleets_to_know(
    make_coach: MakeCoach, django_user_model: Any, fleet_api: Api
) -> None:
    coach = make_coach()
    before = fleet_api.get(LIST)
    people.let_in(coach.pk, django_user_model.objects.create_user("anna").pk)
    after = fleet_api.get(LIST)
    assert (after["ETag"], after.json()) == (before["ETag"], before.json())


@pytest.mark.parametrize("column", VISIBLE)
def test_a_visible_change_changes_the_tag_even_in_bulk(
    column: str, make_coach: MakeCoach, make_gateway: MakeGateway
) -> None:
    make_gateway()
    make_coach("another")
    coach = make_coach()
    coaches = CompanionProfile.objects.all()
    before, old = coaches.etag(), getattr(coach, column)
    coaches.filter(pk=coach.pk).update(**{column: VISIBLE[column]})
    assert coaches.etag() != before
    coaches.filter(pk=coach.pk).update(**{column: old})
    assert coaches.etag() == before


@pytest.mark.parametrize("column", INVISIBLE)
def test_an_invisible_change_does_not(column: str, make_coach: MakeCoach) -> None:
    coach = make_coach()
    before = CompanionProfile.objects.all().etag()
    CompanionProfile.objects.filter(pk=coach.pk).update(**{column: timezone.now()})
    assert CompanionProfile.objects.all().etag() == before


def test_rows_that_come_and_go_change_the_tag(make_coach: MakeCoach) -> None:
    coaches = CompanionProfile.objects.all()
    empty = coaches.etag()
    coach = make_coach()
    one = coaches.etag()
    assert one != empty
    coach.delete()
    assert coaches.etag() == empty


text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
row = st.fixed_dictionaries(
    {
        "name": text | st.sampled_from([",", '","', "a,b"]),
        "reason": text,
        "key_id": text,
        "vars": st.dictionaries(text, text | st.integers(-5, 5) | st.booleans() | st.none(), max_size=2),
    }
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(a=st.lists(row, max_size=3), b=st.lists(row, max_size=3))
def test_lists_have_one_tag_exactly_when_they_look_the_same(
    a: list[dict[str, Any]], b: list[dict[str, Any]]
) -> None:
    def etag_of(rows: list[dict[str, Any]]) -> str:
        with transaction.atomic():
            CompanionProfile.objects.bulk_create(
                CompanionProfile(pk=number + 1, agent_id=f"c-{number}", **values)
                for number, values in enumerate(rows)
            )
            etag = CompanionProfile.objects.all().etag()
            transaction.set_rollback(True)
        return etag

    def plain(rows: list[dict[str, Any]]) -> list[str]:
        # True and 1 are the same to Python and not in JSON.
        return [repr({**values, "vars": sorted(values["vars"].items())}) for values in rows]

    assert (etag_of(a) == etag_of(b)) == (plain(a) == plain(b))
