# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of sandboxes, in an engine that only remembers."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _engine, _sandbox_network
from ansible_collections.claw.fleet.plugins.module_utils._sandbox_network import (
    NetworkError,
    Networks,
    Wanted,
    routes,
    settings_of,
)
from ansible_collections.claw.fleet.plugins.modules.sandbox_network import reconcile

NUMBERS = itertools.count(1)
ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
clw0\t00F01DAC\t00000000\t0001\t0\t0\t0\t00FCFFFF\t0\t0\t0
"""


class Engine:
    """What the SDK gives, as far as it is used here."""

    def __init__(self) -> None:
        self.there: list[Any] = []
        self.attached: dict[str, list[str]] = {}
        self.networks = SimpleNamespace(list=self._list, get=self._get)
        self.api = SimpleNamespace(create_network=self._create, containers=self._containers)

    def _list(self, names: list[str] | None = None) -> list[Any]:
        return [it for it in self.there if names is None or any(name in it.name for name in names)]

    def _get(self, identifier: str) -> Any:
        return next(it for it in self.there if it.id == identifier)

    def _containers(self, *, all: bool, filters: dict[str, str]) -> list[dict[str, Any]]:
        assert all
        return [{"Names": [f"/{name}"]} for name in self.attached.get(filters["network"], [])]

    def _create(self, name: str, **given: Any) -> dict[str, str]:
        identifier = f"id-{next(NUMBERS)}"
        attrs = {
            "Driver": given["driver"],
            "Internal": given["internal"],
            "EnableIPv6": given["enable_ipv6"],
            "IPAM": given["ipam"],
            "Options": given["options"],
        }
        made = SimpleNamespace(id=identifier, short_id=identifier, name=name, attrs=attrs)
        made.remove = lambda: self.there.remove(made)
        self.there.append(made)
        return {"Id": identifier}

    def other(self, name: str, subnet: str, bridge: str = "br-1") -> str:
        """Have a network of somebody else."""
        return self._create(
            name,
            driver="bridge",
            internal=False,
            enable_ipv6=False,
            ipam={"Config": [{"Subnet": subnet, "Gateway": subnet}]},
            options={"com.docker.network.bridge.name": bridge},
        )["Id"]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    engine = Engine()
    table = tmp_path / "route"
    table.write_text(ROUTES)
    monkeypatch.setattr(_engine, "connect", lambda _where: engine)
    monkeypatch.setattr(_sandbox_network, "ROUTES", table)
    return engine


def have(subnet: str = "172.29.240.0/22", *, check: bool = False) -> dict[str, Any]:
    """Run the module's own part."""
    return reconcile(Networks("unix:///x"), Wanted.of("claw-sandbox", "clw0", subnet), check)


def test_four_verbs(engine: Engine) -> None:
    # A part of its name is in another's.
    engine.other("claw-sandbox-old", "10.1.0.0/24")
    predicted = have(check=True)
    assert (predicted["changed"], predicted["id"], len(engine.there)) == (True, "", 1)
    made = have()
    assert (made["changed"], made["recreated"], made["diff"]) == (True, False, predicted["diff"])
    assert (made["gateway"], made["id"]) == ("172.29.240.1", engine.there[-1].id)
    for check in (False, True):
        again = have(check=check)
        assert (again["changed"], again["id"]) == (False, made["id"])
        assert again["diff"]["before"] == again["diff"]["after"] == made["diff"]["after"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Internal", False),
        ("EnableIPv6", True),
        ("Driver", "macvlan"),
        ("Options", None),
        ("Options", {"com.docker.network.bridge.name": "clw0"}),
        ("IPAM", {"Config": [{"Subnet": "172.29.240.0/22", "Gateway": "172.29.240.9"}]}),
    ],
)
def test_other_settings_are_made_right_unless_somebody_is_there(engine: Engine, key: str, value: Any) -> None:
    former = have()["id"]
    engine.there[0].attrs[key] = value
    engine.attached[former] = ["two", "one"]
    for check in (False, True):
        with pytest.raises(NetworkError, match=r"has containers attached \(one, two\): remove them"):
            have(check=check)
    engine.attached.clear()
    predicted = have(check=True)
    assert [it.id for it in engine.there] == [former]
    made = have()
    assert (made["recreated"], made["diff"]) == (True, predicted["diff"])
    assert [settings_of(it.attrs) for it in engine.there] == [
        Wanted.of("claw-sandbox", "clw0", "172.29.240.0/22").settings
    ]


def test_conflicts_are_named_before_anything_is_removed(engine: Engine) -> None:
    have()
    engine.other("theirs", "192.168.4.0/23")
    before = list(engine.there)
    for check in (False, True):
        with pytest.raises(
            NetworkError, match=r"192\.168\.5\.0/24 overlaps with 192\.168\.4\.0/23 of the network theirs"
        ):
            have("192.168.5.0/24", check=check)
        with pytest.raises(
            NetworkError, match=r"overlaps with 10\.0\.2\.0/24, which the machine reaches by eth0"
        ):
            have("10.0.0.0/22", check=check)
    assert engine.there == before
    # What only it itself has is no conflict.
    assert have("172.29.240.0/23")["recreated"] is True


def test_an_interface_of_another_network_is_not_taken(engine: Engine) -> None:
    engine.other("theirs", "10.9.0.0/24", bridge="clw0")
    with pytest.raises(NetworkError, match="the interface clw0 is of the network theirs"):
        have()


def test_two_of_one_name_are_refused(engine: Engine) -> None:
    for number in (1, 2):
        engine.other("claw-sandbox", f"10.{number}.0.0/24")
    with pytest.raises(NetworkError, match="there are 2 networks of this name"):
        have()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("-a", "clw0", "10.0.0.0/24"), "name is '-a'"),
        (("a", "clw0123456789012", "10.0.0.0/24"), "bridge is 'clw0123456789012'"),
        (("a", "clw0", "10.0.0.1/24"), "has host bits set"),
        (("a", "clw0", "fd00::/64"), "give an IPv4 network"),
        (("a", "clw0", "9.9.9.0/24"), "it must be private"),
        (("a", "clw0", "10.0.0.0/30"), "/29 or larger"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: tuple[str, str, str], words: str) -> None:
    with pytest.raises(NetworkError, match=words):
        Wanted.of(*given)


def test_the_kernels_table_is_read() -> None:
    assert [(interface, str(network)) for interface, network in routes(ROUTES)] == [
        ("eth0", "10.0.2.0/24"),
        ("clw0", "172.29.240.0/22"),
    ]
    assert list(routes("")) == []
