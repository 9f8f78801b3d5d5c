# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an audit of sandboxes is surrounded by: canaries in what is others', listeners, and what listens anyway.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import inspect
import ipaddress
import json
import os
import pwd
import re
import secrets
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ansible_collections.claw.fleet.plugins.module_utils import (
    _audit,
    _audit_attempts,
    _audit_probe,
    _durable,
)
from ansible_collections.claw.fleet.plugins.module_utils._audit import Scene, Target
from ansible_collections.claw.fleet.plugins.module_utils._containers import Container, Containers
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway
from ansible_collections.claw.fleet.plugins.module_utils._sandbox import Sandbox

PROBE = inspect.getsource(_audit_probe)
"""The program that is executed in sandboxes."""
PREFIX = ".claw-audit-"
"""What all names of an audit's files begin with."""
PROXY_USER = "claw-egress"
_PEERS = 2
_LOOPBACK = "127.0.0.1"
_OF_ROOTLESS = (_LOOPBACK, "10.0.2.100", "10.0.2.2", "10.0.2.3")
"""What a container of a rootless engine has near it: itself twice, the engine's side of its network, who answers for names."""
_PEER_SECONDS = 900
_MOST_PORTS = 96
_LISTEN = (
    "import socket, sys\n"
    "server = socket.create_server(('0.0.0.0', int(sys.argv[1])))\n"
    "while True: server.accept()[0].close()"
)


class Given(NamedTuple):
    """What the operator names: HOST:PORT for targets, and addresses of DNS servers; none of them for those of the machine."""

    command: str
    metadata: list[Target]
    private: list[Target]
    dns: list[str]
    proxy_port: int


def target(text: str) -> Target:
    """Of HOST:PORT; ValueError if it is not that."""
    found = re.fullmatch(r"\[?([0-9A-Za-z_.:%-]+?)\]?:([0-9]{1,5})", text)
    if not found or not 0 < int(found.group(2)) < 65536:
        raise ValueError(f"{text!r} is not HOST:PORT, such as 10.0.0.5:443 or [fd00::5]:443")
    return found.group(1), int(found.group(2))


@contextmanager
def staged(
    gateway: Gateway,
    config_root: str,
    sandbox: Sandbox,
    containers: Containers,
    container: Container,
    given: Given,
) -> Iterator[Scene]:
    """The scene for one agent, whose parts are taken away afterwards."""
    agent, state = container.agent_id, Path(gateway.state_dir)
    nonce = secrets.token_hex(6)
    directory = f"{PREFIX}{nonce}"
    places = _places(gateway, config_root, agent)
    canaries = {what: f"{directory}-{number}" for number, what in enumerate(places)}
    words = {f"a canary of {what}": f"canary{secrets.token_hex(12)}" for what in places}
    own = state / "workspaces" / agent / directory
    listeners: list[str] = []
    clear(gateway, config_root)
    try:
        for what, directories in places.items():
            for place in directories:
                with _as_owner(place):
                    _write(Path(place) / canaries[what], words[f"a canary of {what}"])
        peers = _listen(sandbox, containers, containers.others(container)[:_PEERS], listeners)
        scene = _scene(
            gateway,
            sandbox,
            agent,
            directory,
            canaries,
            places,
            {**words, **_secrets(gateway, agent)},
            peers,
            given,
        )
        with _as_owner(str(own.parent)):
            _furnish(own, scene)
        yield scene
    finally:
        for listener in listeners:
            containers.stop(listener)
        clear(gateway, config_root)


def clear(gateway: Gateway, config_root: str) -> None:
    """Take away what an audit has left, whichever."""
    for place in _all_places(gateway, config_root):
        with _as_owner(place):
            for found in Path(place).glob(f"{PREFIX}*"):
                if found.is_dir() and not found.is_symlink():
                    shutil.rmtree(found, ignore_errors=True)
                else:
                    found.unlink(missing_ok=True)


def _places(gateway: Gateway, config_root: str, agent: str) -> dict[str, list[str]]:
    """The directories with something that is not hers, by whose it is."""
    state = Path(gateway.state_dir)

    def others(kind: str) -> list[str]:
        # The directory above stands for those who will be there.
        siblings = sorted(path for path in (state / kind).glob("*") if path.name != agent and _is_place(path))
        return [str(path) for path in (*siblings, state / kind)]

    return {
        "others' workspace": others("workspaces"),
        "others' credentials": others("credentials"),
        "gateway": _gateways(gateway, config_root),
    }


def _is_place(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(PREFIX)


def _gateways(gateway: Gateway, config_root: str) -> list[str]:
    """Its own state and config first, then those of the machine's other gateways."""
    found = [gateway.state_dir, gateway.config_dir]
    for path in sorted(Path(config_root).glob("*/gateway.json")):
        other = json.loads(path.read_bytes())
        found += [place for place in (other["state_dir"], other["config_dir"]) if place not in found]
    return [place for place in found if Path(place).is_dir()]


def _all_places(gateway: Gateway, config_root: str) -> list[str]:
    return [place for places in _places(gateway, config_root, "").values() for place in places]


@contextmanager
def _as_owner(place: str) -> Iterator[None]:
    """Do what follows as the owner of a directory: whatever that one has planted there."""
    found = Path(place).stat()
    with _durable.as_user(found.st_uid, found.st_gid):
        yield


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)


def _furnish(own: Path, scene: Scene) -> None:
    """The audit's directory in the workspace: a program, what would start in a hostile environment, and links."""
    own.mkdir(0o700)
    _write(own / "probe.py", PROBE)
    _write(own / "sitecustomize.py", f"open('{scene.within}/started', 'w').close()\n")
    _write(own / "start.sh", f": > {scene.within}/started\n")
    _write(own / scene.command, f"#!/usr/bin/dash\n: > {scene.within}/started\n")
    (own / scene.command).chmod(0o700)
    for name, where in _audit_attempts.links(scene).items():
        (own / name).symlink_to(where)


def _secrets(gateway: Gateway, agent: str) -> dict[str, str]:
    """What must never come back, by what it is."""
    state = Path(gateway.state_dir)
    found = {"the gateway's token": gateway.token()}
    with _durable.as_user(*gateway.owner):
        for path in sorted((state / "credentials").glob("*/.credentials.json")):
            key = json.loads(path.read_bytes()).get("api_key")
            found["her own key" if path.parent.name == agent else f"the key of {path.parent.name}"] = key
        for path in sorted(state.glob("provider-*.key")):
            found[f"the key in {path.name}"] = path.read_text().strip()
    return {what: text for what, text in found.items() if text and len(text) > 7}


def _scene(
    gateway: Gateway,
    sandbox: Sandbox,
    agent: str,
    directory: str,
    canaries: dict[str, str],
    places: dict[str, list[str]],
    words: dict[str, str],
    peers: list[Target],
    given: Given,
) -> Scene:
    proxy = (sandbox.dns[0], given.proxy_port) if sandbox.dns else None
    addresses = _addresses()
    ports = [port for port in ports_of(_listening(), addresses, sandbox.dns) if port != proxy][:_MOST_PORTS]
    by_ipv6 = _ipv6(addresses)
    asked = [*given.metadata, *given.private, *by_ipv6.values(), *([proxy] if proxy else [])]
    answered = _audit_probe.tcp(asked)["through"]
    silent = {one for one in asked if _audit_probe.at(*one) not in answered}
    silent |= {one for one, here in by_ipv6.items() if here in silent}
    dns = given.dns or _resolvers()
    return Scene(
        agent=agent,
        directory=directory,
        command=given.command,
        credentials=sandbox.credentials_dir,
        state=gateway.state_dir,
        canaries=canaries,
        places=places,
        secrets=words,
        gateway_files=[
            gateway.token_file,
            gateway.config,
            gateway.roster,
            gateway.state_dir,
            gateway.config_dir,
        ],
        memory=_audit.bytes_of(sandbox.memory),
        pids=sandbox.pids,
        file_bytes=sandbox.file_bytes,
        scratch=_audit.bytes_of(sandbox.scratch),
        scratch_places=sandbox.scratch_places,
        memory_free=_memory_free(),
        ports=ports,
        peers=peers,
        metadata=given.metadata,
        private=given.private,
        ipv6=list(by_ipv6),
        dns=dns,
        dns_answers=bool(_audit_probe.names(dns, f"{directory.strip('.')}.invalid", own=False)["through"]),
        proxy=proxy,
        silent=frozenset(silent),
    )


def _listen(
    sandbox: Sandbox, containers: Containers, peers: Sequence[tuple[str, str]], listeners: list[str]
) -> list[Target]:
    """Have a listener in each of these sandboxes; where those that answer within their own might be reached."""
    found = []
    for peer, address in peers:
        port = 20000 + secrets.randbelow(10000)
        command = ["/usr/bin/python3", "-I", "-c", _LISTEN, str(port)]
        listeners.append(containers.start(peer, command, seconds=_PEER_SECONDS))
        look = json.dumps({"do": "tcp", "targets": [[address or _LOOPBACK, port]]})
        for _try in range(5):
            done = containers.execute(peer, ["/usr/bin/python3", "-I", "-c", PROBE, look])
            if '"through": [],' not in done.output:
                # Of a rootless engine none has an address that means it alone.
                everywhere = [*_OF_ROOTLESS, *sandbox.dns]
                found += [(place, port) for place in ([address] if address else everywhere)]
                break
    return found


def ports_of(listening: Sequence[Target], addresses: Sequence[str], near: Sequence[str]) -> list[Target]:
    """Where the machine listens, as a sandbox would try it: everywhere it may be meant, the nearest address first."""
    usual = [*near, *(address for address in addresses if ":" not in address and address not in near)]
    found: list[Target] = []
    for host, port in listening:
        everywhere = host in ("0.0.0.0", "::")  # noqa: S104 - nothing is bound
        found += [(address, port) for address in usual] if everywhere else [(host, port)]
    return sorted({one for one in found if ":" not in one[0]}, key=lambda one: (one[0] not in near, one))


def _addresses() -> list[str]:
    """Those of the machine, but for its own loopback; IPv6 ones of a link with their interface."""
    done = subprocess.run(["ip", "-json", "address"], capture_output=True, check=False)
    found = []
    for interface in json.loads(done.stdout or b"[]"):
        for entry in interface.get("addr_info", []):
            host = entry.get("local", "")
            if host and not ipaddress.ip_address(host).is_loopback:
                found.append(
                    f"{host}%{interface['ifname']}" if entry.get("scope") == "link" and ":" in host else host
                )
    return found


def _ipv6(addresses: Sequence[str]) -> dict[Target, Target]:
    """Where the machine listens by IPv6, as a sandbox has it: as the machine has it."""
    ports = sorted({port for host, port in _listening() if host == "::"})[:2]
    return {
        (re.sub("%.*", "%eth0", host), port): (host, port)
        for host in addresses
        for port in ports
        if ":" in host and not re.search("%veth", host)
    }


def _listening() -> list[Target]:
    """All TCP sockets that listen, by the kernel."""
    found = []
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                place, state = line.split()[1], line.split()[3]
                if state == "0A":
                    found.append(_place(place))
    return sorted(set(found))


def _place(text: str) -> Target:
    """Of an address and a port as the kernel has them: words of the machine's byte order, in hexadecimal."""
    host, _colon, port = text.partition(":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)


def _resolvers() -> list[str]:
    with suppress(OSError):
        return re.findall(r"^nameserver\s+(\S+)", Path("/etc/resolv.conf").read_text(), re.M)
    return []


def _memory_free() -> int:
    found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    return int(found.group(1)) * 1024 if found else 0


def proxy_user() -> _durable.Owner | None:
    """Who the way out runs as; None if there is none."""
    with suppress(KeyError):
        entry = pwd.getpwnam(PROXY_USER)
        return _durable.Owner(entry.pw_uid, entry.pw_gid)
    return None
