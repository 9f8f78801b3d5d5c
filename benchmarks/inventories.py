"""The inventory of many coaches: cold, with a cache and a changed list, and revalidated by its ETag.

From pages that were made beforehand, which leaves the reader's work alone, and from the reference coach list.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clawbench.coachlist import CoachList

from benchmarks import measure
from benchmarks.ground import ROOT, Settings
from benchmarks.list_server import TOKEN, ListServer
from benchmarks.measure import Rounds, Row

FAMILY = "inventory"
EACH = 100
GRAPH = Path(sys.executable).with_name("ansible-inventory")
DOWNLOAD = Path(__file__).with_name("download.py")
# The rows of `list_server.py`, as an import would bring them.
IMPORT = """
from benchmarks.list_server import coach
from claw_fleet.coachlist.models import CompanionProfile, Gateway
names = [f"gw-{{number:04}}" for number in range({gateways})]
rows = [coach(number + 1, names[number % {gateways}]) for number in range({coaches})]
for row in rows:
    row["gateway_id"] = row.pop("gateway")
Gateway.objects.bulk_create([Gateway(name=name) for name in names])
CompanionProfile.objects.bulk_create([CompanionProfile(**row) for row in rows], batch_size=1000)
"""


class Inventory:
    """A directory with the gateways and the source of coaches, and `ansible-inventory` in it."""

    def __init__(self, directory: Path, url: str, token: str, gateways: list[str]) -> None:
        self.directory = directory
        self.gateways = gateways
        self.url = url
        self.token = token
        directory.mkdir()
        (directory / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {ROOT / 'collections'}\n")
        hosts: dict[str, object] = {name: {} for name in gateways}
        (directory / "1-hosts.json").write_text(json.dumps({"gateways": {"hosts": hosts}}))
        self._source("2-cold.coaches.yml", {})
        cache = {
            "cache": True,
            "cache_plugin": "ansible.builtin.jsonfile",
            "cache_connection": str(directory / "cache"),
        }
        self._source("2-cached.coaches.yml", cache)

    def cold(self) -> float:
        """The seconds without a cache."""
        return self._graph("2-cold.coaches.yml")

    def cached(self) -> float:
        """The seconds with a cache: whether that saves anything, the list says."""
        return self._graph("2-cached.coaches.yml")

    def download(self) -> float:
        """The seconds of a bare program that reads the same pages."""
        return measure.command([sys.executable, DOWNLOAD, self.url, self.token]).seconds

    def sources(self, source: str) -> list[str | Path]:
        """What Ansible's commands are told."""
        return ["-i", self.directory / "1-hosts.json", "-i", self.directory / source]

    def _graph(self, source: str) -> float:
        """The whole inventory is read; what is printed of it is short."""
        words = [sys.executable, GRAPH, "--graph", *self.sources(source)]
        environment = {"ANSIBLE_CONFIG": str(self.directory / "ansible.cfg")}
        return measure.command(words, env=environment, cwd=self.directory).seconds

    def _source(self, name: str, more: dict[str, object]) -> None:
        options = {"plugin": "claw.fleet.coaches", "api_url": self.url, "api_token": self.token, **more}
        (self.directory / name).write_text(json.dumps(options))


@contextmanager
def canned(directory: Path, coaches: int, gateways: int) -> Iterator[tuple[Inventory, ListServer]]:
    """An inventory of so many gateways and coaches, and its list, whose pages were made beforehand."""
    with ListServer(coaches, gateways).serving() as server:
        yield Inventory(directory, server.url, TOKEN, server.gateways), server


@contextmanager
def from_django(directory: Path, coaches: int, gateways: int) -> Iterator[Inventory]:
    """An inventory of so many gateways and coaches, from the reference coach list."""
    coach_list = CoachList(directory.with_name(f"{directory.name}-list"))
    coach_list.up()
    try:
        path = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        coach_list.manage("shell", "-c", IMPORT.format(coaches=coaches, gateways=gateways), more=path)
        names = [f"gw-{number:04}" for number in range(gateways)]
        url = f"{coach_list.url}/api/companion/v1/"
        yield Inventory(directory, url, coach_list.service_token, names)
    finally:
        coach_list.down()


def run(settings: Settings) -> list[Row]:
    """Every row of this family."""
    taken = Rounds(FAMILY, settings.say)
    rows: list[Row] = []
    sizes = (1_000,) if settings.quick else (1_000, 10_000, 50_000)
    for coaches in sizes:
        rows += _canned(settings, taken, coaches, promised=coaches == 50_000)
    coaches = sizes[-1]
    with from_django(settings.place / "django", coaches, coaches // EACH) as real:
        cold = f"{coaches:,} coaches, cold, from the reference coach list"
        download = "download and parse of the same pages, from the reference coach list"
        # It takes Django half a minute each time.
        taken.run({download: real.download, cold: real.cold}, min(settings.rounds, 2))
    return [*rows, taken.row(cold, download, at_most=3)]


def _canned(settings: Settings, taken: Rounds, coaches: int, *, promised: bool) -> list[Row]:
    gateways = coaches // EACH
    many = f"{coaches:,} coaches"
    cold, changed, same = (
        f"{many}, {how}" for how in ("cold", "cached, but the list has changed", "revalidated")
    )
    download, none = f"download and parse of {many}", f"the same {gateways} gateways with no coach"
    with (
        canned(settings.place / f"inventory-{coaches}", coaches, gateways) as (full, server),
        canned(settings.place / f"empty-{coaches}", 0, gateways) as (empty, _server),
    ):
        full.cached()

        def after_a_change() -> float:
            server.change()
            return full.cached()

        works: dict[str, Callable[[], float]] = {
            download: full.download,
            cold: full.cold,
            changed: after_a_change,
            same: full.cached,
            none: empty.cold,
        }
        taken.run(works, settings.rounds)
    return [
        taken.row(cold, download, at_most=3 if promised else None),
        taken.row(changed, download),
        taken.row(same, none, at_most=1.5 if promised else None),
    ]
