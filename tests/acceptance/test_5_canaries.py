"""Each secret has one home: what is looked at while and after plays run with everything turned up shows none."""

from __future__ import annotations

import base64
import json
import re
import secrets
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .fleet import INVENTORY, ROOT, Fleet

SCAN = """
import json, os, sys

wanted = {name: value.encode() for name, value in json.load(sys.stdin).items()}
found = {name: [] for name in wanted}
for root in sys.argv[1:]:
    for place, directories, files in os.walk(root):
        directories[:] = [
            name for name in directories
            if not os.path.islink(os.path.join(place, name))
            and os.path.join(place, name) not in ("/proc", "/sys", "/dev", "/usr", "/opt")
        ]
        for name in files:
            path = os.path.join(place, name)
            try:
                if os.path.islink(path) or not os.path.isfile(path):
                    continue
                with open(path, "rb") as file:
                    content = file.read()
            except OSError:
                continue
            for secret, value in wanted.items():
                if value in content:
                    found[secret].append(path)
print(json.dumps(found))
"""
"""Which files below the given directories hold which of the secrets, {name: value} on standard input."""
PAUSE = 0.05


class Watch:
    """Command lines and environments of every process of the controller and, as they share a kernel, the machine."""

    def __init__(self, ours: str) -> None:
        """`ours`: a word in the command lines of Django's own processes, whose environment is their configuration."""
        self.ours = ours.encode()
        self.seen: dict[bytes, str] = {}
        self._ended = threading.Event()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look until the block is left."""
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _look(self) -> None:
        while not self._ended.wait(PAUSE):
            for process in Path("/proc").iterdir():
                if process.name.isdigit():
                    # It may end while it is looked at.
                    with suppress(OSError):
                        command = (process / "cmdline").read_bytes()
                        if command and self.ours not in command:
                            self.seen.setdefault(command, "a command line")
                            self.seen.setdefault(
                                (process / "environ").read_bytes(), f"environment of {command!r}"
                            )

    def showed(self, canaries: dict[str, str]) -> list[str]:
        """Which secrets were seen, and where."""
        return [
            f"{name} in {where}"
            for content, where in self.seen.items()
            for name, value in canaries.items()
            if value.encode() in content
        ]


class Run:
    """The plays that were watched, and what is to be found of them."""

    def __init__(self, fleet: Fleet, place: Path) -> None:
        self.facts, self.inventory, self.variables = (
            place / name for name in ("facts", "inventory", "more.json")
        )
        providers = json.loads((fleet.state / "providers.json").read_text())["gateway_providers"]
        for provider in providers.values():
            # The stand-in takes any key.
            provider["api_key"] = f"canary-{secrets.token_hex(16)}"
        self.variables.write_text(json.dumps({"gateway_providers": providers}))
        environment = {
            **fleet.environment,
            "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self.facts),
            "ANSIBLE_INVENTORY_CACHE": "1",
            "ANSIBLE_INVENTORY_CACHE_PLUGIN": "ansible.builtin.jsonfile",
            "ANSIBLE_INVENTORY_CACHE_CONNECTION": str(self.inventory),
        }
        self._environment = environment
        with fleet.admin() as admin:
            admin.add("coach-kanari", "Kanari")
        self.told: list[str] = []
        self.watch = Watch("gunicorn")
        with self.watch.looking():
            self.play("site")
            self.play("provision-coach")
        self.secrets = fleet.secrets()

    def play(self, playbook: str, *words: str) -> None:
        """Run a playbook that tells everything, and keep that."""
        command = ["ansible-playbook", "-i", str(INVENTORY), f"playbooks/{playbook}.yml"]
        command += ["-vvv", "--diff", "-e", f"@{self.variables}", *words]
        done = subprocess.run(
            command, cwd=ROOT, env=self._environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout[-5000:]
        self.told.append(done.stdout + done.stderr)


def unpacked(cache: Path) -> str:
    """The rows that the inventory plugin keeps, which it packs."""
    kept = "".join(path.read_text() for path in cache.iterdir())
    packed = re.findall(r'"rows\\": \\"([A-Za-z0-9+/=]+)', kept)
    return "".join(zlib.decompress(base64.b64decode(rows)).decode() for rows in packed)


@pytest.fixture(scope="module")
def run(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Both plays with a coach to be made, and with everything that can be told being told."""
    yield Run(fleet, tmp_path_factory.mktemp("canaries"))
    with fleet.admin() as admin:
        admin.act("remove", fleet.row("coach-kanari")["pk"])
    for playbook in ("playbooks/provision-coach.yml", "playbooks/site.yml"):
        assert fleet.play(playbook).rc == 0


def test_every_kind_of_secret_is_among_them_and_no_two_are_alike(run: Run) -> None:
    found = run.secrets
    for kind in ("SERVICE_TOKENS", "coach-kanari", "gw-a/token", "gw-b/token", "gw-a/provider-"):
        assert [name for name in found if kind in name], kind
    # Both gateways of the demo ask the same provider with the same key.
    values = [value for name, value in found.items() if "gw-b/provider-" not in name]
    assert len(set(values)) == len(values)


def test_no_play_tells_one(run: Run) -> None:
    for told in run.told:
        assert "task path:" in told, "everything was told"
        assert [name for name, value in run.secrets.items() if value in told] == []


def test_no_process_is_given_one(run: Run) -> None:
    watch = run.watch
    commands = b"\n".join(content for content, where in watch.seen.items() if where == "a command line")
    for one in (b"ansible-playbook", b"sshd", b"openclaw"):
        assert one in commands, "these were looked at"
    assert watch.showed(run.secrets) == []


def test_on_the_machine_each_is_in_its_home_alone(fleet: Fleet, run: Run) -> None:
    container = fleet.bench.container("machine1")
    found = json.loads(
        subprocess.run(
            ["docker", "exec", "-i", container, "python3", "-c", SCAN, "/"],
            input=json.dumps(run.secrets),
            text=True,
            capture_output=True,
            check=True,
        ).stdout
    )
    for name, places in found.items():
        home = [] if name.startswith("COACHLIST") else [f"/var/lib/claw/{name}"]
        if "provider-" in name:
            home = [f"/var/lib/claw/{other}" for other in found if "provider-" in other]
        assert sorted(places) == sorted(home), name
    journal = fleet.sh("journalctl --no-pager --output=verbose")
    assert "openclaw-gw-a" in journal
    assert [name for name, value in run.secrets.items() if value in journal] == []


def test_on_the_controller_each_is_in_its_home_alone(fleet: Fleet, run: Run) -> None:
    assert any(run.facts.iterdir()), "the cache was used"
    kept = unpacked(run.inventory)
    assert "coach-kanari" in kept
    assert [name for name, value in run.secrets.items() if value in kept] == []
    places = [tempfile.gettempdir(), str(Path.home() / ".ansible"), str(fleet.state)]
    found = json.loads(
        subprocess.run(
            ["python3", "-c", SCAN, *places],
            input=json.dumps(run.secrets),
            text=True,
            capture_output=True,
            check=True,
        ).stdout
    )
    settings = {str(fleet.state / "coachlist.env")}
    for name, files in found.items():
        home = settings if name.startswith("COACHLIST") else set()
        if name == "COACHLIST_SERVICE_TOKENS":
            home = home | {str(fleet.state / "service-token")}
        if "provider-" in name:
            home = {str(run.variables)}
        assert set(files) == home, name


def test_django_holds_none_that_can_be_read(fleet: Fleet, run: Run) -> None:
    dump = fleet.coach_list.manage("dumpdata")
    assert "coach-kanari" in dump
    assert [name for name, value in run.secrets.items() if value in dump] == []
    database = (fleet.state / "coachlist.sqlite3").read_bytes()
    assert b"coach-kanari" in database
    assert [name for name, value in run.secrets.items() if value.encode() in database] == []


@pytest.mark.fire
def test_nor_does_one_show_that_is_replaced_or_looked_over(fleet: Fleet, run: Run) -> None:
    told, watch, former = len(run.told), Watch("gunicorn"), run.secrets
    providers = json.loads(run.variables.read_text())
    for provider in providers["gateway_providers"].values():
        provider["api_key"] = f"canary-{secrets.token_hex(16)}"
    run.variables.write_text(json.dumps(providers))
    with watch.looking():
        run.play("rotate-gateway-token")
        run.play("rotate-provider-key")
        run.play("provision-coach", "-e", "rotate=coach-kanari")
        run.play("fleet-doctor")
    now = fleet.secrets()
    rotated = {name for name in now if now[name] != former[name]}
    assert {"gw-a/token", "gw-b/token"} < rotated and len(rotated) >= 5, rotated
    every = {**now, **{f"{name} of before": former[name] for name in rotated}}
    for text in run.told[told:]:
        assert [name for name, value in every.items() if value in text] == []
    assert watch.showed(every) == []
    container = fleet.bench.container("machine1")
    gone = {name: value for name, value in every.items() if name not in now}
    found = json.loads(
        subprocess.run(
            ["docker", "exec", "-i", container, "python3", "-c", SCAN, "/"],
            input=json.dumps(gone), text=True, capture_output=True, check=True,
        ).stdout
    )  # fmt: skip
    assert {name: places for name, places in found.items() if places} == {}
