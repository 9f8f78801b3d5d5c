"""The collection and the coach list keep the same contract: the real client and plugins, the real Django."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils._coach import FIELDS, check_rows
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import ApiError, ApiOptions, Client
from ansible_collections.claw.fleet.tests.unit.plugins.cli import Ansible
from cryptography.fernet import Fernet
from django.db import connections

from claw_fleet.coachlist import people
from claw_fleet.coachlist.models import CompanionProfile, Gateway
from claw_fleet.coachlist_project.settings import database

SERVICE_TOKEN = "service-" + "0123456789" * 4
GATEWAY_TOKEN = "ab12" * 12
HOSTILE = '{{ 7*7 }} ענת "O\'Neil" $(reboot)'
PLAY = """
- hosts: gateways
  gather_facts: false
  module_defaults:
    group/claw.fleet.django: {retries: 0}
  tasks:
    - name: Django knows the gateway
      claw.fleet.gateway_registration:
        name: "{{ inventory_hostname }}"
        url: "http://m:8080/{{ inventory_hostname }}/"
        token: "{{ gateway_token }}"
        capacity: 2
    - name: Claim
      claw.fleet.coach_status:
        coaches: "{{ coaches_list }}"
        claim: "{{ inventory_hostname }}"
      register: claimed
    - name: Mark
      claw.fleet.coach_status:
        coaches: "{{ claimed.results }}"
        activating: true
      register: marked
    - name: Write back
      claw.fleet.coach_status:
        coaches: "{{ marked.results }}"
        fail_on_error: true
"""


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """SQLite in a file: gateways write at the same time, and a shared cache in memory has locks of its own."""
    described = database(f"sqlite:///{tmp_path_factory.mktemp('database') / 'unused.sqlite3'}")
    described["TEST"] = {"NAME": str(tmp_path_factory.mktemp("database") / "test.sqlite3")}
    connections.settings["default"] = connections.configure_settings({"default": described})["default"]
    with contextlib.suppress(AttributeError):
        del connections["default"]


@pytest.fixture(autouse=True)
def configured(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment's secrets, and no proxy between."""
    # Past the lazy settings, which cannot put an empty key back.
    monkeypatch.setattr("django.conf.settings._wrapped.SECRET_KEY", "only for tests " * 5)
    settings.COACHLIST_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    settings.COACHLIST_SERVICE_TOKENS = [SERVICE_TOKEN]
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")


@pytest.fixture
def url(live_server: Any) -> str:
    """The API of a Django that is being served."""
    return f"{live_server.url}/api/companion/v1/"


@pytest.fixture
def client(url: str) -> Client:
    """The collection's client, without patience."""
    return Client(url, SERVICE_TOKEN, retries=0)


@pytest.fixture
def ansible(tmp_path: Path, url: str) -> Ansible:
    """Two gateways and the coach list, for Ansible's own commands."""
    found = Ansible(tmp_path)
    found.environment |= {"CLAW_FLEET_API_URL": url, "CLAW_FLEET_API_TOKEN": SERVICE_TOKEN}
    found.write("1-hosts.yml", {"gateways": {"hosts": {"gw-a": {}, "gw-b": {}}}})
    found.write("2.coaches.yml", {"plugin": "claw.fleet.coaches", "capacity": 2, "retries": 0})
    return found


SOURCES = ("-i", "1-hosts.yml", "-i", "2.coaches.yml")


def add(agent_id: str, **values: Any) -> CompanionProfile:
    """A coach, by whatever way she came into the table."""
    return CompanionProfile.objects.create(agent_id=agent_id, **{"name": agent_id.title(), **values})


def refusal(code: int, request: Any, *args: Any, **kwargs: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        request(*args, **kwargs)
    assert caught.value.status == code
    return caught.value


def test_a_list_of_many_pages(client: Client) -> None:
    CompanionProfile.objects.bulk_create(
        CompanionProfile(agent_id=f"coach-{number}", name=HOSTILE, vars={"n": number})
        for number in range(1205)
    )
    pages = client.coaches()
    assert pages is not None
    assert [row["pk"] for row in pages.rows] == list(
        CompanionProfile.objects.order_by("pk").values_list("pk", flat=True)
    )
    assert set(pages.rows[0]) == set(FIELDS)
    assert check_rows(pages.rows) == pages.rows
    assert client.coaches(etag=pages.etag) is None
    people.edit(pages.rows[-1]["pk"], name="Anna")
    changed = client.coaches(etag=pages.etag)
    assert changed is not None
    assert changed.rows[-1]["name"] == "Anna"
    # The filters are the app's own; a coach nobody holds is one of gateway "none".
    assert len((client.coaches({"gateway": "none"}) or pages).rows) == 1205
    largest = Client(client._http.url, SERVICE_TOKEN, options=ApiOptions.of({"page_size": 1000}))
    assert (largest.coaches() or pages).rows == changed.rows


def test_claims(client: Client) -> None:
    anna, berta = add("anna"), add("berta")
    assert "gw-a" in str(refusal(400, client.claim, anna.pk, "gw-a"))
    for name in ("gw-a", "gw-b"):
        client.put_gateway(name, url="http://m/x", token=GATEWAY_TOKEN, capacity=1)
    row = client.claim(anna.pk, "gw-a")
    assert (row["gateway"], row["status"]) == ("gw-a", "provisioning")
    assert client.claim(anna.pk, "gw-a") == row
    held = refusal(409, client.claim, anna.pk, "gw-b")
    assert held.of_row
    assert held.detail["gateway"] == "gw-a"
    full = refusal(409, client.claim, berta.pk, "gw-a")
    assert full.of_row
    assert full.detail["gateway"] is None
    assert refusal(404, client.claim, 99999, "gw-a").of_row


def test_status(client: Client) -> None:
    anna = add("anna", generation=3)
    client.put_gateway("gw-a", url="", token=GATEWAY_TOKEN, capacity=1)
    client.claim(anna.pk, "gw-a")
    done: dict[str, Any] = {"gateway": "gw-a", "status": "active", "reason": ""}
    assert refusal(400, client.write_status, anna.pk, **done, observed_generation=4).of_row
    assert client.write_status(anna.pk, **done, observed_generation=3)["observed_generation"] == 3
    assert refusal(409, client.write_status, anna.pk, **done, observed_generation=2).of_row
    assert refusal(
        409, client.write_status, anna.pk, **{**done, "gateway": "gw-z"}, observed_generation=3
    ).of_row
    row = client.write_status(
        anna.pk, **{**done, "status": "error", "reason": "key: x"}, observed_generation=None
    )
    assert (row["status"], row["reason"], row["observed_generation"]) == ("error", "key: x", 3)
    row = client.write_status(anna.pk, **{**done, "status": "removed"}, observed_generation=3)
    assert (row["status"], row["gateway"]) == ("removed", None)


def test_keys(client: Client) -> None:
    add("anna")
    key: dict[str, Any] = {
        "key_id": "k1",
        "key_sha256": hashlib.sha256(b"key").hexdigest(),
        "key_generation": 1,
    }
    assert client.set_key("anna", **key) is True
    assert client.set_key("anna", **key) is False
    assert client.revoke_key("anna") is True
    assert client.revoke_key("anna") is False
    assert refusal(404, client.set_key, "nobody", **key).of_row


def test_gateways(client: Client) -> None:
    assert client.gateway("gw-a") is None
    told = client.put_gateway("gw-a", url="http://m:8080/gw-a/", token=GATEWAY_TOKEN, capacity=7)
    assert told["changed"] is True
    known = client.gateway("gw-a")
    assert known is not None
    assert {name: known[name] for name in ("url", "capacity", "token_sha256")} == {
        "url": "http://m:8080/gw-a",
        "capacity": 7,
        "token_sha256": hashlib.sha256(GATEWAY_TOKEN.encode()).hexdigest(),
    }
    assert Gateway.objects.get().token() == GATEWAY_TOKEN


def test_wrong_tokens_and_paths(url: str) -> None:
    wrong = refusal(401, Client(url, "not-the-token", retries=0).coaches)
    assert "Check api_token" in str(wrong)
    assert "not-the-token" not in str(wrong)
    astray = refusal(404, Client(f"{url}v9/", SERVICE_TOKEN, retries=0).coaches)
    assert "Check api_url" in str(astray)


def test_the_story_of_some_coaches(ansible: Ansible) -> None:
    """Inventory, registration, claim and outcome by Ansible: once with effect, then without any."""
    add("anna", name=HOSTILE, vars={"tone": "{{ 7*7 }}"})
    add("berta", wanted="paused")
    add("cleo", wanted="removed")
    add("Doris Day")
    add("emil", name="two\nlines")
    add("fritz")
    before = list(CompanionProfile.objects.order_by("pk").values())
    play = ansible.write("play.yml", PLAY)
    words = (*SOURCES, play, "-e", f"gateway_token={GATEWAY_TOKEN}")

    inventory, said = ansible.inventory(*SOURCES)
    hostvars = inventory["_meta"]["hostvars"]
    assert "Rows that cannot be used: 2 coaches (Doris Day, emil)" in said
    assert [row["agent_id"] for row in hostvars["gw-b"]["coaches_list"]] == ["berta"]
    [anna] = [row for row in hostvars["gw-a"]["coaches_list"] if row["agent_id"] == "anna"]
    assert (anna["name"], anna["vars"]) == (HOSTILE, {"tone": "{{ 7*7 }}"})

    checked = ansible.run("playbook", *words, "--check")
    assert "2 of 5 coaches could not be served" in checked.stdout
    assert list(CompanionProfile.objects.order_by("pk").values()) == before
    assert not Gateway.objects.exists()

    applied = ansible.run("playbook", *words)
    assert applied.returncode == 2, applied.stdout
    assert "Doris Day (pk" in applied.stdout
    assert GATEWAY_TOKEN not in applied.stdout + applied.stderr
    told = {coach.agent_id: coach for coach in CompanionProfile.objects.all()}
    outcome = {
        name: (coach.status, coach.gateway_id, coach.observed_generation) for name, coach in told.items()
    }
    assert outcome == {
        "anna": ("active", "gw-a", 1),
        "berta": ("paused", "gw-b", 1),
        "cleo": ("removed", None, 1),
        "Doris Day": ("error", None, 0),
        "emil": ("error", None, 0),
        "fritz": ("active", "gw-a", 1),
    }
    assert told["Doris Day"].reason.startswith("row: agent_id is 'Doris Day'; it must be 1 to 64")
    assert told["emil"].reason.startswith(r"row: name is 'two\nlines'; it must be one line")
    assert told["anna"].name == HOSTILE

    after = list(CompanionProfile.objects.order_by("pk").values())
    for mode in ((), ("--check",)):
        again = ansible.run("playbook", *words, *mode)
        assert "changed=0" in again.stdout
        assert "changed=1" not in again.stdout
        assert list(CompanionProfile.objects.order_by("pk").values()) == after


def test_a_full_fleet_and_a_place_that_is_being_left(ansible: Ansible) -> None:
    for name in ("gw-a", "gw-b"):
        Gateway.objects.create(name=name, capacity=2)
    coaches = [add(f"coach-{number}") for number in range(5)]
    for number, coach in enumerate(coaches[:4]):
        CompanionProfile.objects.filter(pk=coach.pk).update(gateway="gw-b" if number % 2 else "gw-a")
    _, said = ansible.inventory(*SOURCES)
    assert "1 coaches have no place on its 2 gateways. Add 1 gateway of 2" in said
    people.remove(CompanionProfile.objects.filter(pk=coaches[0].pk))
    inventory, said = ansible.inventory(*SOURCES)
    assert "Run again for 1 coaches (coach-4)" in said
    listed = {name: len(found["coaches_list"]) for name, found in inventory["_meta"]["hostvars"].items()}
    assert listed == {"gw-a": 2, "gw-b": 2}
