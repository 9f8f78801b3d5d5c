# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor's look at a machine: its disks, its clock, its names, and the units that are no gateway's.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import secrets
import shlex
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ansible_collections.claw.fleet.plugins.module_utils import _seal
from ansible_collections.claw.fleet.plugins.module_utils._doctor import Finding, Patient, run, stopped, unit
from ansible_collections.claw.fleet.plugins.module_utils._machine import resolve

_FULL_PERCENT = 90
_CLOCK_SECONDS = 30
_SLOW_SECONDS = 2.0
_PATIENCE_SECONDS = 15
_ANSWER_SECONDS = 2.0
_PLACES = (
    "/", "/etc/claw", "/opt/claw", "/var/lib/claw", "/var/lib/docker", "/var/lib/claw-podman", "/var/log",
    "/tmp", "/run",  # noqa: S108 - to look how full it is
)  # fmt: skip
_A, _AAAA = 1, 28
_RECONCILER = "claw-reconciler.service"
# Told by codes of their own.
_KNOWN_UNITS = (
    "claw-reconciler.", "claw-proxy.", "claw-egress.", "claw-egress-rules.", "claw-egress-watch.", "claw-tunnel.",
    "claw-tunnel-watch.", "claw-sandbox-workspaces", "claw-podman@", "claw-firewall.",
)  # fmt: skip
_UNITS = "etc/systemd/system"
_ADDED = (_UNITS, "etc/systemd/system.control", "run/systemd/system", "run/systemd/system.control")
# The proxy's has a code of its own, and what others call so is theirs.
_SEALED = re.compile(
    r"claw-(?:reconciler|egress(?:-rules|-watch|-bridge|-link)?|tunnel(?:-watch)?|sandbox-workspaces|podman(?:-builder)?"
    r"|firewall(?:-trial)?)(?:@[^.]*)?\.(?:service|timer|path)"
)
_SITE_OF_ALL = "`ansible-playbook -i inventory/ claw.fleet.site`"
_SITE_OF_RECONCILER = "`ansible-playbook -i inventory/ claw.fleet.reconciler`"


def disks(patient: Patient) -> Iterator[Finding]:
    """Space and inodes of every file system that the fleet writes to."""
    places = [str(patient.root / place.lstrip("/")) for place in _PLACES]
    if patient.gateway:
        places += [patient.gateway.config_dir, patient.gateway.state_dir]
        places += [f"{patient.gateway.state_dir}/{name}" for name in ("workspaces", "agents", "credentials")]
    seen: set[int] = set()
    for place in places:
        with suppress(FileNotFoundError):
            device = Path(place).stat().st_dev
            if device in seen:
                continue
            seen.add(device)
            yield from _fullness(place, os.statvfs(place))


def _fullness(place: str, found: os.statvfs_result) -> Iterator[Finding]:
    used = found.f_blocks - found.f_bfree
    share = _percent(used, used + found.f_bavail)
    if share >= _FULL_PERCENT:
        free = found.f_bavail * found.f_frsize // 2**20
        yield Finding(
            "disk-full", f"The disk under {place} is nearly full.", f"{share} % used, {free} MB free"
        )
    used = found.f_files - found.f_ffree
    share = _percent(used, used + found.f_favail)
    if share >= _FULL_PERCENT:
        told = f"{share} % used, {found.f_favail} free"
        yield Finding("inodes-full", f"The file system under {place} has hardly any inodes left.", told)


def _percent(part: int, whole: int) -> int:
    # Some file systems do not count inodes.
    return -(-100 * part // whole) if whole > 0 else 0


def clock(machine: float, before: float, after: float) -> Iterator[Finding]:
    """The machine's clock beside the controller's, when it was asked and when it had answered."""
    off = min(machine - before, 0) or max(machine - after, 0)
    if abs(off) > _CLOCK_SECONDS:
        way = "ahead of" if off > 0 else "behind"
        yield Finding(
            "clock-wrong", "The machine's clock is wrong.", f"{abs(off):.0f} s {way} the controller's"
        )


def names(patient: Patient) -> Iterator[Finding]:
    """The hosts that the gateway and its agents ask, looked up on the machine."""
    hosts = {
        *patient.given.dns_hosts,
        *(parts.hostname or "" for parts in _split(patient.given.coach_api_url)),
    }
    proxies = _proxies(patient)
    hosts |= {_connected_to(parts, proxies) for parts in _providers(patient)}
    for host in sorted(hosts):
        if host in ("", "localhost") or _is_address(host):
            continue
        yield from _looked_up(host)
        for server in _servers(patient):
            if _answers(server, host, _A) and not _answers(server, host, _AAAA):
                told = f"{server} answers a question for A of {host}, and none for AAAA with EDNS0"
                yield Finding(
                    "dns-drops-ipv6", f"The DNS server {server} drops questions for IPv6 addresses.", told
                )


def _looked_up(host: str) -> Iterator[Finding]:
    told = resolve(host, _PATIENCE_SECONDS)
    if told["error"]:
        yield Finding("dns-fails", f"The name {host} is not found.", told["error"])
    elif told["seconds"] > _SLOW_SECONDS:
        yield Finding("dns-slow", f"To look up {host} takes long.", f"{told['seconds']:.1f} s")


def _providers(patient: Patient) -> list[SplitResult]:
    """What the gateway asks, by its own file."""
    if patient.gateway:
        with suppress(OSError, ValueError, KeyError, AttributeError):
            config = json.loads(Path(patient.gateway.config).read_text())
            return _split(
                *(str(provider.get("baseUrl") or "") for provider in config["models"]["providers"].values())
            )
    return []


def _split(*urls: str) -> list[SplitResult]:
    return [urlsplit(url) for url in urls if url]


def _proxies(patient: Patient) -> dict[str, str]:
    """By which proxies the gateway leaves: by scheme, and with "no" the hosts for which it does not."""
    has: Mapping[str, str] = patient.environment
    if not has and patient.gateway:
        # While it does not run, what it would be started with.
        words = shlex.split(unit(patient.gateway.unit, "Environment").get("Environment", ""))
        has = dict(word.split("=", 1) for word in words if "=" in word)
    found = {
        name: has.get(f"{name}_proxy") or has.get(f"{name.upper()}_PROXY", "")
        for name in ("http", "https", "no")
    }
    # As Node takes them.
    return {
        "http": found["http"],
        "https": found["https"] or found["http"],
        "no": ",".join(found["no"].replace(",", " ").split()).replace("*.", "."),
    }


def _connected_to(parts: SplitResult, proxies: dict[str, str]) -> str:
    """Whose name is looked up on the machine for a URL: its host's, or that of the proxy, who looks up the host's."""
    host, proxy = parts.hostname or "", proxies.get(parts.scheme, "")
    # typeshed does not know it.
    past = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    if not proxy or past(f"{host}:{_port(parts)}", proxies):
        return host
    return urlsplit(proxy if "://" in proxy else f"//{proxy}").hostname or ""


def _port(parts: SplitResult) -> int:
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def _servers(patient: Patient) -> list[str]:
    with suppress(FileNotFoundError):
        lines = (patient.root / "etc/resolv.conf").read_text().splitlines()
        return [words[1] for words in map(str.split, lines) if len(words) > 1 and words[0] == "nameserver"]
    return []


def _answers(server: str, host: str, kind: int, port: int = 53) -> bool:
    """Whether a DNS server says anything to a question; for IPv6 addresses with EDNS0, as programs in Go ask."""
    edns = kind == _AAAA
    head = (
        secrets.token_bytes(2) + b"\x01\x00\x00\x01\x00\x00\x00\x00" + (b"\x00\x01" if edns else b"\x00\x00")
    )
    labels = b"".join(bytes([len(label)]) + label for label in host.encode("idna").split(b"."))
    question = head + labels + b"\x00" + bytes([0, kind, 0, 1])
    question += b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00" if edns else b""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.settimeout(_ANSWER_SECONDS)
        # Once more, as a packet may be lost.
        for _attempt in range(2):
            with suppress(OSError):
                asked.sendto(question, (server, port))
                if asked.recv(4096)[:2] == head[:2]:
                    return True
    return False


def localhost(patient: Patient) -> Iterator[Finding]:
    """Whether who is told to ask localhost comes to 127.0.0.1."""
    addresses = [str(found[4][0]) for found in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)]
    sentence = "localhost leads to ::1 on the machine."
    if "127.0.0.1" not in addresses:
        yield Finding("localhost-is-ipv6", sentence, f"its addresses are {', '.join(addresses)}")
        return
    for parts in [*_split(patient.given.coach_api_url), *_providers(patient)]:
        port = _port(parts)
        if parts.hostname != "localhost" or addresses[0] != "::1":
            continue
        if _listens("127.0.0.1", port) and not _listens("::1", port):
            told = f"{parts.scheme}://localhost:{port} is asked, and only 127.0.0.1 answers there"
            yield Finding("localhost-is-ipv6", sentence, told)


def _listens(address: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((address, port), timeout=2):
        return True
    return False


def reconciler(patient: Patient) -> Iterator[Finding]:
    """The reconciler's timer, the path by which a run is asked for, and its last pass, if the machine has it."""
    for name in ("claw-reconciler.timer", "claw-reconciler.path"):
        yield from stopped(name, "timer-failed", f"The reconciler's {name.rpartition('.')[2]} unit")
    found = unit(_RECONCILER)
    if found["LoadState"] == "loaded" and found["ActiveState"] == "failed":
        words = run(
            ["journalctl", f"--unit={_RECONCILER}", "--lines=3", "--output=cat", "--no-pager", "--quiet"]
        )
        told = f"result {found['Result']}: {words.stdout}"
        yield Finding("reconciler-failed", "The reconciler's last pass failed.", told, unit=_RECONCILER)


def failed_units(patient: Patient) -> Iterator[Finding]:
    """Units of the fleet that have failed and that no other check is about."""
    done = run(["systemctl", "list-units", "--failed", "--plain", "--no-legend", "--full", "claw-*"])
    for line in done.stdout.splitlines():
        name = line.split()[0]
        if not name.startswith(_KNOWN_UNITS):
            yield Finding("unit-failed", f"The unit {name} has failed.", line, unit=name)


def edited_units(patient: Patient) -> Iterator[Finding]:
    """Whether the files of the fleet's units are as they were written."""
    for path in sorted((patient.root / _UNITS).glob("claw-*")):
        if not (_SEALED.fullmatch(path.name) and path.is_file()):
            continue
        if not _seal.is_whole(path.read_text("utf-8", "replace")) and not _switched_off(path.name):
            yield _edited(path.name, path)
    for path in sorted(path for place in _ADDED for path in (patient.root / place).glob("claw-*.d/*.conf")):
        name = path.parent.name.removesuffix(".d")
        if _SEALED.fullmatch(name):
            yield Finding("unit-overridden", f"Somebody added to {name}.", str(path), unit=name)


def _switched_off(name: str) -> bool:
    """Whether it is one of what is not wanted any more, which nobody writes. What others are made of is never off."""
    if "@." in name:
        return False
    found = unit(name)
    return found["UnitFileState"] == "disabled" and found["ActiveState"] == "inactive"


def _edited(name: str, path: Path) -> Finding:
    sentence = f"Somebody changed a file of {name}."
    told = f"{path} is not as the fleet wrote it"
    # Whoever plays for one gateway of a machine leaves the others' files as they are.
    site = _SITE_OF_RECONCILER if name.startswith("claw-reconciler.") else _SITE_OF_ALL
    fix = f"{site} with --check --diff shows what is otherwise. Without them it is put right, and what runs of it is started anew."
    return Finding("unit-edited", sentence, told, unit=name, fix=fix)
