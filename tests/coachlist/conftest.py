"""What the tests of the coach list share.

They run on SQLite in a file, and on PostgreSQL when TEST_DATABASE_URL names a server and a user who may create
databases. Threads, and a server in a process of its own, use the same database.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from django.conf import settings as django_settings
from django.core.cache import cache
from django.db import connections
from django.test import Client

from claw_fleet.coachlist import conversations
from claw_fleet.coachlist.models import CompanionProfile, Gateway
from claw_fleet.coachlist_project.settings import database

from .standin import StandIn

API = "/api/companion/v1/"
SERVICE_TOKEN = "service-" + "0123456789" * 4
OLD_SERVICE_TOKEN = "service-" + "9876543210" * 4
SECRET_KEY = "only for tests " * 5
ENCRYPTION_KEY = Fernet.generate_key().decode()
GATEWAY_TOKEN = "ab12" * 12
KEY = "the-key-of-anna"

# For the whole run: the project's settings have none of their own, and Django will not hand an empty one back.
django_settings.SECRET_KEY = SECRET_KEY


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    """The database of the whole run, before anything connects to it."""
    url = os.environ.get("TEST_DATABASE_URL")
    described = database(url or f"sqlite:///{tmp_path_factory.mktemp('database') / 'unused.sqlite3'}")
    if url:
        # pytest-django's own fixture of this name would have given each of pytest's workers a database.
        described["TEST"] = {"NAME": f"test_coachlist_{worker_id}"}
    else:
        # Tests that run threads need a file: the shared cache of a database in memory has locks of its own.
        described["TEST"] = {"NAME": str(tmp_path_factory.mktemp("database") / "test.sqlite3")}
    connections.settings["default"] = connections.configure_settings({"default": described})["default"]
    with contextlib.suppress(AttributeError):
        del connections["default"]


@pytest.fixture(autouse=True)
def configured(settings: Any) -> None:
    """Settings as a deployment has them, with secrets of our own."""
    settings.COACHLIST_ENCRYPTION_KEYS = [ENCRYPTION_KEY]
    settings.COACHLIST_SERVICE_TOKENS = [SERVICE_TOKEN, OLD_SERVICE_TOKEN]
    # People's passwords are Django's business, and a good hash of one takes its time.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # No address that the tests ask is behind the proxy of the machine they run on.
    os.environ["NO_PROXY"] = "127.0.0.1,localhost"
    cache.clear()
    conversations._last.clear()


class Api:
    """The API, as one bearer sees it; JSON in and out."""

    def __init__(self, token: str | None) -> None:
        self.client = Client(headers={"Authorization": f"Bearer {token}"} if token is not None else {})

    def get(self, path: str, query: dict[str, Any] | None = None, **headers: str) -> Any:
        """GET a path below the API's, or a whole address; headers with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(self._at(path), query, headers=named or None)

    def post(self, path: str, body: Any = None) -> Any:
        """POST JSON."""
        return self.client.post(self._at(path), body or {}, content_type="application/json")

    def put(self, path: str, body: Any) -> Any:
        """PUT JSON."""
        return self.client.put(self._at(path), body, content_type="application/json")

    def patch(self, path: str, body: Any) -> Any:
        """PATCH JSON."""
        return self.client.patch(self._at(path), body, content_type="application/json")

    def delete(self, path: str) -> Any:
        """DELETE."""
        return self.client.delete(self._at(path))

    @staticmethod
    def _at(path: str) -> str:
        return path if path.startswith(("/", "http")) else API + path


def sha256(text: str) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def fleet_api() -> Api:
    """The internal API, with the service token."""
    return Api(SERVICE_TOKEN)


MakeCoach = Callable[..., CompanionProfile]


@pytest.fixture
def make_coach() -> MakeCoach:
    """Makes coaches; with `key=` one whose key is registered."""

    def make(agent_id: str = "coach-anna", *, key: str = "", **fields: Any) -> CompanionProfile:
        values: dict[str, Any] = {"name": "Anna", **fields}
        if key:
            values |= {"key_id": f"id-{key[:4]}", "key_sha256": sha256(key), "key_generation": 1}
        return CompanionProfile.objects.create(agent_id=agent_id, **values)

    return make


MakeGateway = Callable[..., Gateway]


@pytest.fixture
def make_gateway() -> MakeGateway:
    """Makes gateways."""

    def make(name: str = "gw-a", url: str = "", token: str = GATEWAY_TOKEN, capacity: int = 100) -> Gateway:
        gateway = Gateway(name=name, capacity=capacity)
        gateway.set_url(url)
        gateway.set_token(token)
        gateway.save(force_insert=True)
        return gateway

    return make


@pytest.fixture
def standin() -> Iterator[StandIn]:
    """Something that stands where a gateway would, and says what the test tells it to."""
    with StandIn() as server:
        yield server


@pytest.fixture
def coach(db: None, make_coach: MakeCoach, make_gateway: MakeGateway, standin: StandIn) -> CompanionProfile:
    """A coach whose agent can be asked, with KEY."""
    make_gateway(url=f"{standin.url}/gw-a")
    return make_coach(key=KEY, gateway_id="gw-a", status="active", observed_generation=1)


@pytest.fixture
def server(transactional_db: None, tmp_path: Path) -> Iterator[str]:
    """The project under gunicorn, as it is deployed, on the tests' database; its address."""
    described = connections["default"].settings_dict
    if described["ENGINE"].endswith("sqlite3"):
        url = f"sqlite:///{described['NAME']}"
    else:
        url = str(httpx.URL(os.environ["TEST_DATABASE_URL"]).copy_with(path=f"/{described['NAME']}"))
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "claw_fleet.coachlist_project.settings",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUNBUFFERED": "1",
        "DATABASE_URL": url,
        "COACHLIST_SECRET_KEY": SECRET_KEY,
        "COACHLIST_ENCRYPTION_KEYS": ENCRYPTION_KEY,
        "COACHLIST_SERVICE_TOKENS": SERVICE_TOKEN,
        "COACHLIST_ASK_KEEPALIVE": "0.2",
        "COACHLIST_DEBUG": "",
    }
    command = [sys.executable, "-m", "gunicorn", "claw_fleet.coachlist_project.wsgi", "--bind=127.0.0.1:0"]
    command += ["--worker-class=gthread", "--threads=16", "--access-logfile=-"]
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = ""
        heard: list[str] = []
        for line in process.stdout:
            heard.append(line)
            if "Listening at: " in line:
                address = line.split("Listening at: ")[1].split()[0]
            if "Booting worker" in line:
                break
        assert address, "".join(heard)
        # Until the worker has loaded the application, the connection waits in the queue.
        httpx.get(f"{address}/healthz", timeout=60).raise_for_status()
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=60)
