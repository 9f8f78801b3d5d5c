# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine says of itself before anybody changes it.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_INTERFACES = Path("/sys/class/net")
_HOSTS = Path("/etc/hosts")
_UNIT_PATHS = (Path("/etc/systemd/system"), Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")
_UPDATES = Path("/var/lib/dpkg/updates")
_TIMEKEEPERS = (
    "chrony.service",
    "ntpsec.service",
    "ntp.service",
    "openntpd.service",
    "systemd-timesyncd.service",
)
_CAP_SYS_TIME = 25
NOBODY: dict[str, Any] = {"path": "", "pid": 0, "command": ""}
"""Who holds a lock that is free."""
_SSHD = "/usr/sbin/sshd"
_SSH_LISTENS = re.compile(r"sshd: .*\[listener\]")
_LISTENS = "0A"
_UNCONNECTED = "07"
# Answers to a client of DHCP, which come in whatever is named.
_DHCP_CLIENTS = (68, 546)
# By custom; it lies amid the ports that clients are given, and in a container its engine has it.
_WIREGUARD = 51820
# Addresses for documentation, which nobody has: what counts is whether the kernel knows a way there. Nothing is sent.
_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def has_way_out() -> bool:
    """Whether the kernel knows a way to addresses that are nobody's neighbours, by whatever table."""
    for family, address in _ELSEWHERE.items():
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect((address, 9))
            return True
    return False


def resolve(name: str, seconds: float, family: int = socket.AF_UNSPEC) -> dict[str, Any]:
    """What the machine's resolver says of a name: addresses in its order, how long it took, or why there are none."""
    found: dict[str, Any] = {"addresses": [], "error": f"no answer within {seconds:g} s"}

    def ask() -> None:
        try:
            told = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
            found.update(addresses=[str(entry[4][0]) for entry in told], error="")
        except (OSError, UnicodeError) as error:
            found["error"] = str(error)

    began = time.monotonic()
    # The resolver takes no time limit; who waits for it does.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return {**found, "seconds": round(time.monotonic() - began, 2)}


def localhost(seconds: float) -> dict[str, Any]:
    """What `localhost` is: its addresses in the order that programs get them, and those of /etc/hosts."""
    written = []
    with suppress(OSError):
        for line in _HOSTS.read_text(encoding="utf-8", errors="replace").splitlines():
            address, *names = line.partition("#")[0].split() or [""]
            if "localhost" in names:
                written.append(address)
    return {"addresses": resolve("localhost", seconds)["addresses"], "written": written}


def room(path: str) -> dict[str, Any]:
    """What is free where a path is, or will be; inodes are none where the file system does not count them."""
    place = Path(path)
    while not place.exists():
        place = place.parent
    told = os.statvfs(place)
    return {
        "path": path,
        "free_mb": told.f_bavail * told.f_frsize // 1_000_000,
        "free_inodes": told.f_favail if told.f_files else None,
    }


def missing(packages: Iterable[str]) -> list[str]:
    """Those of the packages that are not installed."""
    wanted = list(packages)
    if not wanted:
        return []
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *wanted]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    there = {name for name, _space, status in (line.partition(" ") for line in told) if status == "installed"}
    return [name for name in wanted if name not in there]


def interrupted() -> bool:
    """Whether dpkg is in the middle of something, or was when it was killed: then apt begins nothing else."""
    with suppress(FileNotFoundError):
        return any(entry.name.isdecimal() for entry in _UPDATES.iterdir())
    return False


def package_lock(seconds: float, locks: Iterable[str] = _LOCKS) -> dict[str, Any]:
    """Who holds a lock of the package managers', after that many seconds of waiting."""
    deadline = time.monotonic() + seconds
    while (holder := _holder(locks)) != NOBODY and time.monotonic() < deadline:
        time.sleep(1)
    return holder


def _holder(locks: Iterable[str]) -> dict[str, Any]:
    for path in locks:
        with suppress(FileNotFoundError), Path(path).open("rb") as lock:
            # struct flock: type, whence, start, length, process.
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_place, pid = struct.unpack("hhqqi4x", fcntl.fcntl(lock, fcntl.F_GETLK, asked))
            if kind != fcntl.F_UNLCK:
                return {"path": path, "pid": pid, "command": _command(pid)}
    return NOBODY


def _command(pid: int) -> str:
    with suppress(OSError):
        told = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ")
        return told.decode(errors="replace").strip()
    return ""


def may_set_clock() -> bool:
    """Whether anybody on this machine may; in a container the clock is the host's."""
    for line in (_PROC / "1" / "status").read_text(encoding="utf-8").splitlines():
        if line.startswith("CapBnd:"):
            return bool(int(line.split()[1], 16) & 1 << _CAP_SYS_TIME)
    return True


def timekeeper() -> str:
    """The unit of what is installed to keep the time; empty if nothing is."""
    return next((unit for unit in _TIMEKEEPERS if any((path / unit).is_file() for path in _UNIT_PATHS)), "")


def ssh_connection() -> tuple[str, str, int] | None:
    """The SSH connection that this process came by, or None: the client's address, the machine's own, and its port."""
    # Whoever becomes root on the way forgets it, so those who began it are asked.
    pid = os.getpid()
    while pid > 1:
        with suppress(OSError, ValueError):
            for variable in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                if variable.startswith(b"SSH_CONNECTION="):
                    client, _port, server, port = variable.decode().partition("=")[2].split()
                    return client, server, int(port)
        try:
            pid = int((_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None
    return None


def ssh_ports() -> list[int] | None:
    """TCP ports by which others come to the machine's SSH; none where there is no SSH, None where it does not say."""
    # One that serves somebody has what they forward too, and does not call itself a listener.
    servers = [place for place in _processes() if _SSH_LISTENS.match(_command(int(place.name)))]
    held = {inode for place in servers for inode in _held_by(place)}
    of_systemd = set(
        re.findall(r":(\d+) \(Stream\)", _said("systemctl", "show", "--property=Listen", "ssh.socket"))
    )
    found = {
        port
        for port, inode in _sockets(("tcp", "tcp6"), _LISTENS)
        if inode in held or str(port) in of_systemd
    }
    if not found and Path(_SSHD).exists():
        # It is stopped, or others do not reach it: then it is by its settings. Without -G, which Debian 12 has not, it says
        # them only where it could start.
        told = _said(_SSHD, "-G") or _said(_SSHD, "-T")
        found = {
            int(port) for port in re.findall(r"^(?:port |listenaddress \S+:)(\d+)\b", told, re.MULTILINE)
        }
        return sorted(found) or None
    return sorted(found)


def wireguard(client: str, server: str) -> dict[str, Any] | None:
    """The WireGuard interface by which a client is answered, or None, and the UDP ports of which one is its own."""
    told = _said("ip", "-json", "route", "get", client, "from", server)
    with suppress(OSError, ValueError, LookupError, TypeError):
        name = str(json.loads(told)[0]["dev"])
        if "DEVTYPE=wireguard" in (_INTERFACES / name / "uevent").read_text().split():
            # Without its tool the kernel does not say which of the sockets that no process has is WireGuard's.
            own = _said("wg", "show", name, "listen-port").strip()
            return {"interface": name, "ports": [int(own)] if own.isdecimal() else _of_the_kernel()}
    return None


def _said(*command: str) -> str:
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return ""


def listening() -> list[int]:
    """TCP ports that something listens on for others than the machine itself."""
    return sorted({port for port, _inode in _sockets(("tcp", "tcp6"), _LISTENS)})


def listening_udp() -> list[int]:
    """UDP ports that something waits at for others than the machine itself, and that were not given to a client."""
    first, last = map(int, (_PROC / "sys" / "net" / "ipv4" / "ip_local_port_range").read_text().split())
    held = _held()
    return sorted(
        {
            port
            for port, inode in _sockets(("udp", "udp6"), _UNCONNECTED)
            if port not in _DHCP_CLIENTS
            # Who asks others has a socket of the same kind, at whatever port was free.
            and (not first <= port <= last or port == _WIREGUARD or inode not in held)
        }
    )


def _of_the_kernel() -> list[int]:
    """UDP ports that no process has but the kernel itself, such as WireGuard's."""
    held = _held()
    return sorted({port for port, inode in _sockets(("udp", "udp6"), _UNCONNECTED) if inode not in held})


def _sockets(names: Iterable[str], wanted: str) -> Iterator[tuple[int, str]]:
    """Ports of the sockets that are in a state, for others than the machine itself, and their inodes."""
    for name in names:
        with suppress(OSError):
            for line in (_PROC / "net" / name).read_text().splitlines()[1:]:
                _number, local, _remote, state, _queues, _timer, _tries, _user, _timeout, inode, *_rest = (
                    line.split()
                )
                address, _colon, port = local.partition(":")
                if state == wanted and not _is_loopback(address):
                    yield int(port, 16), inode


def _held() -> set[str]:
    """Inodes of the sockets that processes have."""
    return {inode for place in _processes() for inode in _held_by(place)}


def _processes() -> list[Path]:
    return [place for place in _PROC.iterdir() if place.name.isdecimal()]


def _held_by(process: Path) -> Iterator[str]:
    with suppress(OSError):
        for file in (process / "fd").iterdir():
            with suppress(OSError):
                kind, _colon, inode = str(file.readlink()).partition(":")
                if kind == "socket":
                    yield inode.strip("[]")


def _is_loopback(address: str) -> bool:
    # Words of four bytes, each in the processor's order.
    words = [struct.pack("=I", int(address[start : start + 8], 16)) for start in range(0, len(address), 8)]
    raw = b"".join(words)
    mapped = b"\0" * 10 + b"\xff\xff"
    return raw[:1] == b"\x7f" if len(raw) == 4 else raw == b"\0" * 15 + b"\1" or raw[:13] == mapped + b"\x7f"
