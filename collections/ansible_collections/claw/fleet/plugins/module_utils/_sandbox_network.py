# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network that sandboxes are in: nothing of it leads out, and its members do not reach each other.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils import _engine

_BRIDGE = "com.docker.network.bridge."
_INTERFACE = re.compile(r"[a-z][a-z0-9-]{0,14}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
# A bridge has no more than 1023 ports, and one sandbox needs an address beside the machine's own.
_LONGEST_PREFIX = 29
ROUTES = Path("/proc/net/route")


class NetworkError(Exception):
    """What cannot be done with the network; str() says what happened and what to do."""


@dataclass(frozen=True)
class Wanted:
    """The network as it should be."""

    name: str
    bridge: str
    subnet: ipaddress.IPv4Network

    @classmethod
    def of(cls, name: str, bridge: str, subnet: str) -> Wanted:
        """Raises NetworkError for what cannot be meant."""
        if not _NAME.fullmatch(name):
            raise NetworkError(
                f"name is {name!r}; it must hold only letters, digits, '.', '-' and '_', and begin with one of the first two"
            )
        if not _INTERFACE.fullmatch(bridge):
            raise NetworkError(
                f"bridge is {bridge!r}; an interface's name has at most 15 lower-case letters, digits and dashes"
            )
        try:
            network = ipaddress.IPv4Network(subnet)
        except ValueError as error:
            raise NetworkError(
                f"subnet is {subnet!r}: {error}; give an IPv4 network such as 172.29.240.0/22"
            ) from None
        if not network.is_private or network.prefixlen > _LONGEST_PREFIX:
            raise NetworkError(
                f"subnet is {subnet}; it must be private, so that it hides nothing else, and /{_LONGEST_PREFIX} or larger"
            )
        return cls(name, bridge, network)

    @property
    def gateway(self) -> str:
        """The machine's own address in it."""
        return str(self.subnet[1])

    @property
    def options(self) -> dict[str, str]:
        """What the engine's bridge driver is told."""
        return {f"{_BRIDGE}name": self.bridge, f"{_BRIDGE}enable_icc": "false"}

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that is ours to decide, to compare with what there is."""
        return {
            "driver": "bridge",
            "internal": True,
            "ipv6": False,
            "subnets": [f"{self.subnet} by {self.gateway}"],
            **self.options,
        }


class Networks:
    """The networks of one engine."""

    def __init__(self, docker_host: str) -> None:
        """Raises NetworkError where no engine answers."""
        self._engine = _engine.Engine(docker_host, NetworkError)
        self._client = self._engine.client

    def find(self, name: str) -> Any | None:
        """The network of this name, if it is there."""
        with self._engine.asked_to("look for the network"):
            # The engine's own filter takes parts of names too.
            found = [network for network in self._client.networks.list(names=[name]) if network.name == name]
        if len(found) > 1:
            ids = ", ".join(network.short_id for network in found)
            raise NetworkError(
                f"there are {len(found)} networks of this name ({ids}): remove them all but one (docker network rm ID)"
            )
        return found[0] if found else None

    def members(self, network: Any) -> list[str]:
        """The names of the containers that are attached to it, also of those that do not run."""
        with self._engine.asked_to("look for the network's containers"):
            found = self._client.api.containers(all=True, filters={"network": network.id})
        return sorted(container["Names"][0].lstrip("/") for container in found)

    def refuse_conflicts(self, wanted: Wanted, former: Any | None) -> None:
        """Raise NetworkError if another network, or the machine itself, has the subnet or the interface."""
        with self._engine.asked_to("look at the other networks"):
            others = [
                other for other in self._client.networks.list() if former is None or other.id != former.id
            ]
        for other in others:
            if (other.attrs.get("Options") or {}).get(f"{_BRIDGE}name") == wanted.bridge:
                raise NetworkError(
                    f"the interface {wanted.bridge} is of the network {other.name}: remove that network, or name another bridge"
                )
            for subnet in _subnets(other.attrs):
                if _overlap(wanted.subnet, subnet):
                    raise NetworkError(
                        f"{wanted.subnet} overlaps with {subnet} of the network {other.name}: choose another subnet"
                    )
        mine = {wanted.bridge, *([settings_of(former.attrs)[f"{_BRIDGE}name"]] if former else [])}
        for interface, route in routes(ROUTES.read_text() if ROUTES.exists() else ""):
            if interface not in mine and route.overlaps(wanted.subnet):
                raise NetworkError(
                    f"{wanted.subnet} overlaps with {route}, which the machine reaches by {interface}: choose another subnet"
                )

    def create(self, wanted: Wanted) -> Any:
        """Have it made."""
        with self._engine.asked_to("create the network"):
            made = self._client.api.create_network(
                wanted.name,
                driver="bridge",
                options=wanted.options,
                ipam={
                    "Driver": "default",
                    "Config": [{"Subnet": str(wanted.subnet), "Gateway": wanted.gateway}],
                },
                check_duplicate=True,
                internal=True,
                enable_ipv6=False,
            )
            return self._client.networks.get(made["Id"])

    def remove(self, network: Any) -> None:
        """Have it removed."""
        with self._engine.asked_to("remove the former network"):
            network.remove()


def settings_of(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a network that there is, named as those that are wanted."""
    options = attrs.get("Options") or {}
    config = (attrs.get("IPAM") or {}).get("Config") or []
    return {
        "driver": attrs.get("Driver"),
        "internal": bool(attrs.get("Internal")),
        "ipv6": bool(attrs.get("EnableIPv6")),
        "subnets": [f"{entry.get('Subnet')} by {entry.get('Gateway')}" for entry in config],
        f"{_BRIDGE}name": options.get(f"{_BRIDGE}name"),
        f"{_BRIDGE}enable_icc": options.get(f"{_BRIDGE}enable_icc"),
    }


def routes(table: str) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """What a machine reaches by which interface, of the kernel's table; without the way to everything else."""
    for line in table.splitlines()[1:]:
        words = line.split()
        # The kernel shows the bytes of an address as this machine's number.
        address, mask = (int.from_bytes(bytes.fromhex(words[place])[::-1], "big") for place in (1, 7))
        if mask:
            yield words[0], ipaddress.IPv4Network((address, str(ipaddress.IPv4Address(mask))))


def _subnets(attrs: Mapping[str, Any]) -> Iterable[str]:
    config = (attrs.get("IPAM") or {}).get("Config") or []
    return [str(entry["Subnet"]) for entry in config if entry.get("Subnet")]


def _overlap(ours: ipaddress.IPv4Network, other: str) -> bool:
    network = ipaddress.ip_network(other, strict=False)
    return isinstance(network, ipaddress.IPv4Network) and network.overlaps(ours)
