"""The project around it: commands, OpenAPI documents, what it refuses to start without, and gunicorn."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import Client

from claw_fleet.coachlist import fleet, people
from claw_fleet.coachlist.models import CompanionProfile, Gateway

from .conftest import (
    API,
    ENCRYPTION_KEY,
    GATEWAY_TOKEN,
    SECRET_KEY,
    SERVICE_TOKEN,
    Api,
    MakeCoach,
    MakeGateway,
)


def run(*arguments: str) -> tuple[str, str]:
    """A management command; what it says, and what it warns of."""
    out, err = io.StringIO(), io.StringIO()
    call_command(*arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.mark.django_db
def test_add_coach_is_idempotent_and_says_what_it_did() -> None:
    command = ("add_coach", "coach-anna", "--name", "Anna", "--var", "tone=warm", "--var", "motto=a=b")
    assert "added" in run(*command)[0]
    coach = CompanionProfile.objects.get()
    assert coach.vars == {"tone": "warm", "motto": "a=b"} and coach.generation == 1
    assert "nothing changed" in run(*command)[0]
    assert "nothing changed" in run("add_coach", "coach-anna")[0]
    coach.refresh_from_db()
    assert coach.generation == 1
    assert "changed: name, vars" in run("add_coach", "coach-anna", "--name", "Ann", "--var", "tone=cold")[0]
    coach.refresh_from_db()
    assert (coach.name, coach.vars, coach.generation) == ("Ann", {"tone": "cold", "motto": "a=b"}, 2)


@pytest.mark.django_db
def test_add_coach_resumes_nobody(make_coach: MakeCoach) -> None:
    coach = make_coach()
    people.remove(CompanionProfile.objects.all())
    assert "wanted removed" in run("add_coach", "coach-anna", "--name", "Anna")[1]
    coach.refresh_from_db()
    assert (coach.wanted, coach.generation) == ("removed", 2)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["main", "--name", "x"], "reserved"),
        (["Coach", "--name", "x"], "lower-case"),
        (["coach"], "--name"),
        (["coach", "--name", "a\nb"], "control"),
        (["coach", "--name", "x", "--var", "tone"], "KEY=VALUE"),
        (["coach", "--name", "x", "--var", "a b=c"], "variable name"),
        (["there", "--name", ""], "name"),
        (["there", "--var", "1=c"], "variable name"),
    ],
)
def test_add_coach_refuses(make_coach: MakeCoach, arguments: list[str], word: str) -> None:
    make_coach("there")
    before = list(CompanionProfile.objects.values())
    with pytest.raises(CommandError, match=word):
        run("add_coach", *arguments)
    assert list(CompanionProfile.objects.values()) == before


@pytest.mark.django_db
def test_gateway_tokens_move_to_a_new_key(make_gateway: MakeGateway, settings: Any) -> None:
    gateway = make_gateway()
    fleet.put_gateway("gw-a", fleet.GatewayValues(next_token="n" * 48))
    old = gateway.token_encrypted
    settings.COACHLIST_ENCRYPTION_KEYS = [Fernet.generate_key().decode(), ENCRYPTION_KEY]
    assert "Encrypted anew: 2" in run("rotate_gateway_tokens")[0]
    settings.COACHLIST_ENCRYPTION_KEYS = settings.COACHLIST_ENCRYPTION_KEYS[:1]
    gateway.refresh_from_db()
    assert gateway.tokens() == [GATEWAY_TOKEN, "n" * 48] and gateway.token_encrypted != old


@pytest.mark.django_db
def test_a_token_that_nothing_decrypts_is_named_and_the_others_move(
    make_gateway: MakeGateway, settings: Any
) -> None:
    lost = make_gateway("gw-lost")
    settings.COACHLIST_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    make_gateway("gw-kept", token="k" * 48)
    with pytest.raises(CommandError, match="gw-lost"):
        run("rotate_gateway_tokens")
    assert Gateway.objects.get(name="gw-lost").token_encrypted == lost.token_encrypted
    assert Gateway.objects.get(name="gw-kept").token() == "k" * 48


@pytest.mark.django_db
def test_a_token_that_comes_in_during_the_move_stays(
    make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    from claw_fleet.coachlist import crypto

    make_gateway()
    rotate = crypto.rotate

    def rotate_late(stored: str) -> str:
        fleet.put_gateway("gw-a", fleet.GatewayValues(token="n" * 48))
        return rotate(stored)

    monkeypatch.setattr(crypto, "rotate", rotate_late)
    assert "newer token: 1" in run("rotate_gateway_tokens")[0]
    assert Gateway.objects.get().token() == "n" * 48


@pytest.mark.django_db
def test_the_migrations_are_all_there() -> None:
    run("makemigrations", "--check", "--dry-run")


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The operations of an OpenAPI document by their ids."""
    return {
        operation["operationId"]: {**operation, "path": path}
        for path, methods in document["paths"].items()
        for operation in methods.values()
    }


def document(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """An OpenAPI document, as the command writes it and finds nothing to warn of."""
    file = tmp_path / "schema.yml"
    run("spectacular", "--validate", "--fail-on-warn", "--file", str(file), *arguments)
    written: dict[str, Any] = yaml.safe_load(file.read_text())
    return written


def test_the_coaches_document_is_all_a_key_opens(tmp_path: Path) -> None:
    schema = document(tmp_path)
    found = operations(schema)
    assert set(found) == {
        "ask_send",
        "clients_list",
        "clients_search",
        "clients_show",
        "goals_create",
        "goals_delete",
        "goals_list",
        "goals_update",
        "profile_show",
        "profile_update",
        "sessions_list",
        "sessions_recent",
        "sessions_show",
        "sessions_transcript",
        "sessions_upcoming",
    }
    for name, operation in found.items():
        # A command line is made of these: group and verb.
        assert operation["tags"] == [name.split("_")[0]] and operation["summary"]
        assert operation["security"] == [{"companionKey": []}]
        assert "internal" not in operation["path"]
    assert set(schema["components"]["securitySchemes"]) == {"companionKey"}


def test_the_fleets_document_is_internal(tmp_path: Path) -> None:
    schema = document(tmp_path, "--custom-settings", "claw_fleet.coachlist.schema.INTERNAL")
    found = operations(schema)
    assert len(found) == 13
    for operation in found.values():
        assert operation["tags"] == ["internal"] and "/internal/" in operation["path"]
        assert operation["security"] == [{"serviceToken": []}]
    row = schema["components"]["schemas"]["CoachRow"]
    assert (
        list(row["properties"])[:4] == ["pk", "agent_id", "name", "vars"] and "token" not in row["properties"]
    )
    for name, component in schema["components"]["schemas"].items():
        assert name == "GatewayChangeRequest" or "token" not in component.get("properties", {})


@pytest.mark.django_db
def test_documents_are_served(fleet_api: Api) -> None:
    assert Api(None).get("schema/").status_code == 200
    assert Api(None).get("internal/schema/").status_code == 401
    internal = fleet_api.get("internal/schema/")
    assert internal.status_code == 200 and b"internal_coach_claim" in internal.content
    assert b"internal_coach_claim" not in Api(None).get("schema/").content


@pytest.mark.django_db
def test_healthz(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}

    def away() -> None:
        raise OperationalError("away")

    monkeypatch.setattr(connection, "cursor", away)
    answer = client.get("/healthz")
    assert answer.status_code == 503 and answer.json()["detail"]


@pytest.mark.django_db
def test_a_database_that_is_away_is_a_503(fleet_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*args: object) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(fleet, "claim", locked)
    answer = fleet_api.post("internal/coaches/1/claim/", {"gateway": "gw-a"})
    assert answer.status_code == 503 and answer["Retry-After"] and "try again" in answer.json()["detail"]


CONFIGURED = {
    "COACHLIST_SECRET_KEY": SECRET_KEY,
    "COACHLIST_ENCRYPTION_KEYS": ENCRYPTION_KEY,
    "COACHLIST_SERVICE_TOKENS": SERVICE_TOKEN,
}


def start(code: list[str], tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python, with these variables of the project and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COACHLIST_")}
    environment = {
        **inherited,
        "DJANGO_SETTINGS_MODULE": "claw_fleet.coachlist_project.settings",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'd.sqlite3'}",
        **variables,
    }
    return subprocess.run(
        [sys.executable, *code], env=environment, cwd=tmp_path, text=True, capture_output=True
    )


WSGI = ["-c", "import claw_fleet.coachlist_project.wsgi"]
MANAGE = ["-m", "claw_fleet.coachlist_project.manage", "check"]


@pytest.mark.slow
@pytest.mark.parametrize("code", [WSGI, MANAGE], ids=["wsgi", "manage"])
@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"COACHLIST_SECRET_KEY": ""}, "COACHLIST_SECRET_KEY"),
        ({"COACHLIST_SECRET_KEY": "short"}, "COACHLIST_SECRET_KEY"),
        ({"COACHLIST_ENCRYPTION_KEYS": ""}, "COACHLIST_ENCRYPTION_KEYS"),
        ({"COACHLIST_ENCRYPTION_KEYS": f"{ENCRYPTION_KEY},nonsense"}, "key number 2"),
        ({"COACHLIST_ADDRESS_HOSTS": ".example.org,https://example.org"}, "“https://example.org”"),
        ({"COACHLIST_GATEWAY_HEADERS": "nonsense"}, "JSON object"),
        ({"COACHLIST_GATEWAY_HEADERS": '{"x-a": "y", "nonsense ": "z"}'}, "Name number 2"),
        ({"COACHLIST_GATEWAY_HEADERS": '{"x-a": "nonsense\\r\\nx-b: c"}'}, "The value of “x-a”"),
    ],
)
def test_it_refuses_to_start_unconfigured(
    tmp_path: Path, code: list[str], changes: dict[str, str], word: str
) -> None:
    done = start(code, tmp_path, **{**CONFIGURED, **changes})
    assert done.returncode != 0 and word in done.stderr and "COACHLIST_DEBUG=1" in done.stderr
    assert "nonsense" not in done.stderr and ENCRYPTION_KEY not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("code", [WSGI, MANAGE], ids=["wsgi", "manage"])
@pytest.mark.parametrize("variables", [CONFIGURED, {"COACHLIST_DEBUG": "1"}], ids=["configured", "debug"])
def test_it_starts_configured_or_for_development(
    tmp_path: Path, code: list[str], variables: dict[str, str]
) -> None:
    done = start(code, tmp_path, **variables)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_djangos_own_deployment_check_has_nothing_to_say(tmp_path: Path) -> None:
    behind_tls = {"COACHLIST_HTTPS_REDIRECT": "1", "COACHLIST_HSTS_SECONDS": "31536000"}
    behind_a_tunnel = {
        "COACHLIST_ADDRESS_HOSTS": ".trycloudflare.com, gw.example.org",
        "COACHLIST_GATEWAY_HEADERS": '{"CF-Access-Client-Id": "a.access", "CF-Access-Client-Secret": "b"}',
    }
    command = [*MANAGE, "--deploy", "--fail-level", "WARNING"]
    done = start(command, tmp_path, **CONFIGURED, **behind_tls, **behind_a_tunnel)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_new_sqlite_database_is_in_wal_mode(tmp_path: Path) -> None:
    migrate = [*MANAGE[:-1], "migrate", "--verbosity=0"]
    assert start(migrate, tmp_path, **CONFIGURED).returncode == 0
    code = "import django; django.setup(); from django.db import connection as c; cursor = c.cursor(); "
    code += "cursor.execute('PRAGMA journal_mode'); print(cursor.fetchone()[0], c.transaction_mode)"
    done = start(["-c", code], tmp_path, **CONFIGURED)
    assert done.stdout.split() == ["wal", "IMMEDIATE"], done.stderr


@pytest.mark.django_db(transaction=True)
def test_gunicorn_serves_the_admin_with_its_style(server: str) -> None:
    with httpx.Client(base_url=server, timeout=60) as http:
        page = http.get("/admin/login/")
        assert page.status_code == 200 and "csrftoken" in page.cookies
        assert "Secure" in page.headers["Set-Cookie"] and page.headers["X-Frame-Options"] == "DENY"
        for path in ("admin/css/base.css", "coachlist/admin.css"):
            style = http.get(f"/static/{path}")
            assert style.status_code == 200 and style.headers["Content-Type"].startswith("text/css")
        assert http.get(f"{API}internal/coaches/").status_code == 401
        assert http.get(f"{API}schema/", headers={"Host": "evil.example.org"}).status_code == 400
