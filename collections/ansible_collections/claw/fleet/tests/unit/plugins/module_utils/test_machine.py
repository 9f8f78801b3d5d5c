# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine says of itself, where it can be asked without being another one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from ansible_collections.claw.fleet.plugins.module_utils import _machine as machine

HOLD = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print('held', flush=True); input()"


def test_who_holds_a_lock_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    assert machine.package_lock(0, [str(lock), str(tmp_path / "none")]) == machine.NOBODY
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == "held\n"
        told = machine.package_lock(0, [str(lock)])
        assert (told["path"], told["pid"]) == (str(lock), process.pid)
        assert str(lock) in told["command"]
        began = time.monotonic()
        assert machine.package_lock(1.5, [str(lock)])["pid"] == process.pid
        assert time.monotonic() - began >= 1.5
        process.stdin.close()
    assert machine.package_lock(5, [str(lock)]) == machine.NOBODY


def test_a_name_that_nobody_answers_for_takes_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: time.sleep(3) or [])
    began = time.monotonic()
    told = machine.resolve("app.example.com", 0.3)
    assert time.monotonic() - began < 3
    assert (told["addresses"], told["error"]) == ([], "no answer within 0.3 s")


def test_names_are_told_in_the_resolvers_order() -> None:
    assert machine.resolve("192.0.2.7", 5)["addresses"] == ["192.0.2.7"]
    told = machine.resolve("no-such-name.invalid", 30)
    assert told["addresses"] == [] and told["error"]


def test_what_is_written_of_localhost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "# 127.0.0.2 localhost\n127.0.1.1 box\n::1 localhost ip6-localhost # yes\n\n127.0.0.1\tlocalhost\n"
    )
    monkeypatch.setattr(machine, "_HOSTS", hosts)
    assert machine.localhost(5)["written"] == ["::1", "127.0.0.1"]


def test_room_is_told_for_what_is_not_there_yet(tmp_path: Path) -> None:
    path = str(tmp_path / "not" / "yet")
    told = machine.room(path)
    assert told["path"] == path and told["free_mb"] > 0


def test_packages_that_are_not_there() -> None:
    if not Path("/usr/bin/dpkg-query").exists():
        pytest.skip("this is no Debian")
    assert machine.missing(["bash", "claw-no-such-package"]) == ["claw-no-such-package"]
    assert machine.missing([]) == []


def test_packages_that_were_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_UPDATES", tmp_path / "updates")
    assert not machine.interrupted()
    (tmp_path / "updates").mkdir()
    (tmp_path / "updates" / "tmp.i").touch()
    assert not machine.interrupted()
    (tmp_path / "updates" / "0001").touch()
    assert machine.interrupted()


@pytest.mark.parametrize(
    ("address", "family", "seen"), [("127.0.0.1", 4, False), ("0.0.0.0", 4, True), ("::1", 6, False)]
)
def test_only_what_others_reach_listens(address: str, family: int, seen: bool) -> None:
    with socket.create_server(
        (address, 0), family=socket.AF_INET if family == 4 else socket.AF_INET6
    ) as server:
        assert (server.getsockname()[1] in machine.listening()) is seen


def test_the_port_is_that_of_the_connection_it_came_by() -> None:
    ask = "from ansible_collections.claw.fleet.plugins.module_utils import _machine; print(_machine.ssh_connection())"
    root = str(Path(__file__).parents[7])
    came = {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 2222"}
    # A shell that came by SSH, and something below it that forgot.
    command = ["sh", "-c", 'env -i PYTHONPATH="$1" "$2" -c "$3"; true', "sh", root, sys.executable, ask]
    assert subprocess.run(command, env=came, capture_output=True, text=True, check=True).stdout == (
        "('192.0.2.1', '192.0.2.2', 2222)\n"
    )


# Port, address, state, inode.
UDP = (
    (123, "00000000", "07", 1),
    (68, "00000000", "07", 2),
    (323, "0100007F", "07", 3),
    (5000, "00000000", "01", 4),
    (40000, "00000000", "07", 5),
    (40001, "00000000", "07", 6),
    (51820, "00000000", "07", 7),
)
UDP6 = ((546, "000080FE000000000000000000000000", "07", 8), (1194, "0" * 32, "07", 9))


def write_sockets(place: Path, name: str, sockets: Iterable[tuple[int, str, str, int]]) -> None:
    """As the kernel does."""
    lines = [
        f" 1: {address}:{port:04X} {'0' * len(address)}:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 {inode} 2 0 0"
        for port, address, state, inode in sockets
    ]
    (place / "net" / name).write_text("\n".join(["  sl  local_address ...", *lines, ""]))


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a kernel would say, of sockets of which one process has all but those that end in 1 or in 7."""
    (tmp_path / "net").mkdir()
    for name, sockets in (("udp", UDP), ("udp6", UDP6)):
        write_sockets(tmp_path, name, sockets)
    (tmp_path / "sys" / "net" / "ipv4").mkdir(parents=True)
    (tmp_path / "sys" / "net" / "ipv4" / "ip_local_port_range").write_text("32768\t60999\n")
    (tmp_path / "4711" / "fd").mkdir(parents=True)
    for inode in (2, 3, 4, 5, 8, 9):
        (tmp_path / "4711" / "fd" / str(inode)).symlink_to(f"socket:[{inode}]")
    (tmp_path / "4712").mkdir()
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    return tmp_path


def test_who_waits_for_packets_of_udp_is_told_from_who_asks(proc: Path) -> None:
    # In the range of clients: the kernel has 40001 and 51820 itself, a process has 40000.
    assert machine.listening_udp() == [123, 1194, 40001, 51820]
    (proc / "4711" / "fd" / "7").symlink_to("socket:[7]")
    assert machine.listening_udp() == [123, 1194, 40001, 51820]
    (proc / "4711" / "fd" / "6").symlink_to("socket:[6]")
    assert machine.listening_udp() == [123, 1194, 51820]


def test_who_asks_by_udp_does_not_wait_for_others() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind(("0.0.0.0", 0))
        assert asking.getsockname()[1] not in machine.listening_udp()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waiting:
        waiting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        waiting.bind(("0.0.0.0", 20321))
        assert 20321 in machine.listening_udp()


@pytest.mark.parametrize(
    ("device", "tool", "told"),
    [
        ("wg0", "51821\n", {"interface": "wg0", "ports": [51821]}),
        ("wg0", "", {"interface": "wg0", "ports": [123, 40001, 51820]}),
        ("eth0", "", None),
        ("gone0", "", None),
        (None, "", None),
    ],
)
def test_a_connection_that_comes_through_wireguard(
    proc: Path, monkeypatch: pytest.MonkeyPatch, device: str | None, tool: str, told: dict[str, object] | None
) -> None:
    for name, kind in (("wg0", "DEVTYPE=wireguard\n"), ("eth0", "")):
        (proc / "interfaces" / name).mkdir(parents=True)
        (proc / "interfaces" / name / "uevent").write_text(f"{kind}INTERFACE={name}\n")
    monkeypatch.setattr(machine, "_INTERFACES", proc / "interfaces")

    def said(*command: str) -> str:
        if command[0] == "wg":
            assert command == ("wg", "show", device, "listen-port")
            return tool
        assert command == ("ip", "-json", "route", "get", "10.8.0.2", "from", "10.8.0.1")
        return json.dumps([{"dst": "10.8.0.2", "dev": device}]) if device else ""

    monkeypatch.setattr(machine, "_said", said)
    assert machine.wireguard("10.8.0.2", "10.8.0.1") == told


def test_nobody_comes_through_wireguard_where_there_is_none() -> None:
    assert machine.wireguard("127.0.0.1", "127.0.0.1") is None
    assert machine.wireguard("fe80::1%lo", "fe80::2%lo") is None


# Port, address, state, inode.
TCP = (
    (2222, "00000000", "0A", 11),
    (8022, "00000000", "0A", 12),
    (6010, "0100007F", "0A", 13),
    (22, "00000000", "01", 11),
    (80, "00000000", "0A", 14),
)
SETTINGS = "port 22\naddressfamily any\nlistenaddress [::]:2200\nlistenaddress 0.0.0.0:2200\nloglevel INFO\n"


@pytest.mark.parametrize(
    ("running", "socket_unit", "settings", "ports"),
    [
        # What somebody forwards is no port of SSH itself.
        (
            ("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", "sshd: anna@pts/0"),
            "",
            SETTINGS,
            [2222],
        ),
        ((), "Listen=[::]:8022 (Stream)\n", SETTINGS, [8022]),
        ((), "Listen=[::]:9022 (Stream)\n", SETTINGS, [22, 2200]),
        ((), "", "", None),
        ((), "", None, []),
    ],
)
def test_the_ports_of_ssh_where_nobody_came_by_one(
    proc: Path,
    monkeypatch: pytest.MonkeyPatch,
    running: tuple[str, ...],
    socket_unit: str,
    settings: str | None,
    ports: list[int] | None,
) -> None:
    write_sockets(proc, "tcp", TCP)
    for number, command in enumerate(running):
        (proc / f"{number + 20}" / "fd").mkdir(parents=True)
        (proc / f"{number + 20}" / "fd" / "3").symlink_to(f"socket:[{number + 11}]")
        (proc / f"{number + 20}" / "cmdline").write_bytes(command.encode() + b"\0" * 40)
    monkeypatch.setattr(machine, "_SSHD", str(proc / "sshd"))
    if settings is not None:
        (proc / "sshd").touch()
    for knows in ("-G", "-T"):
        said = {"show": socket_unit, knows: settings or ""}
        monkeypatch.setattr(machine, "_said", lambda *command, said=said: said.get(command[1], ""))
        assert machine.ssh_ports() == ports
