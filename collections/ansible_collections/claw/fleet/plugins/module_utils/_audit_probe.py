# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is tried from within a sandbox: a program that needs nothing but Python, and says what it found.

PRIVATE to claw.fleet: may change at any time.

`python3 -I probe.py DEED [MARKER]`: a deed in JSON, {"do": name, ...}; what came of it on standard output, in JSON: {"through":
[what it got at], "held": [what it did not get at, and why]}. Where a marker is named, a file of that name appears: it
tells that this program was executed at all. Every deed is bounded by itself and takes back what it did.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

_SECONDS = 2.0
_MOST = 600
"""Processes that a fork bomb has at most."""
_STEP = 8 * 1024 * 1024
_NOWHERE = ("/proc", "/sys", "/usr/lib", "/usr/share")
_CLONE_NEWUSER = 0x10000000


def _found(through: Iterable[str] = (), held: Iterable[str] = ()) -> dict[str, list[str]]:
    return {"through": list(through), "held": list(held)}


def _each(things: Iterable[Any], attempt: Callable[[Any], tuple[bool, str]]) -> dict[str, list[str]]:
    """What came of an attempt at each, several at a time."""
    found = _found()
    with ThreadPoolExecutor(16) as pool:
        for through, words in pool.map(attempt, things):
            found["through" if through else "held"].append(words)
    return found


# Files


def find(names: list[str], paths: list[str]) -> dict[str, list[str]]:
    """Look for files of these names everywhere, and open what is at these paths."""
    found = _found(held=[f"{', '.join(names)}: nowhere"] if names else [])
    wanted = set(names)
    for place, directories, files in os.walk("/") if wanted else ():
        directories[:] = [name for name in directories if os.path.join(place, name) not in _NOWHERE]  # noqa: PTH118
        found["through"] += [f"{place}/{name}" for name in wanted.intersection([*directories, *files])]
    for path in paths:
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - as the plainest program does
                file.read(1)
            found["through"].append(path)
        except IsADirectoryError:
            found["through"].append(path)
        except OSError as error:
            found["held"].append(f"{path}: {_why(error)}")
    if found["through"]:
        found["held"] = []
    return found


def write(places: list[str]) -> dict[str, list[str]]:
    """Make a file in each of these directories."""

    def attempt(place: str) -> tuple[bool, str]:
        path = Path(place) / f".claw-audit-{os.getpid()}"
        try:
            path.write_text("x")
        except OSError as error:
            return False, f"{place}: {_why(error)}"
        path.unlink()
        return True, place

    return _each(places, attempt)


def link(workspace: str, targets: list[str]) -> dict[str, list[str]]:
    """Have a hard link in the workspace to what is outside of it."""

    def attempt(target: str) -> tuple[bool, str]:
        path = Path(workspace) / f".claw-audit-{os.getpid()}-{abs(hash(target))}"
        try:
            os.link(target, path)
        except OSError as error:
            return False, f"{target}: {_why(error)}"
        path.unlink()
        return True, target

    return _each(targets, attempt)


# Network


def tcp(targets: list[tuple[str, int]]) -> dict[str, list[str]]:
    """Connect to each."""

    def attempt(target: tuple[str, int]) -> tuple[bool, str]:
        host, port = target
        try:
            family, kind, protocol, _name, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )[0]
            with socket.socket(family, kind, protocol) as connection:
                connection.settimeout(_SECONDS)
                connection.connect(address)
        except OSError as error:
            return False, f"{at(host, port)}: {_why(error)}"
        return True, at(host, port)

    return _each([tuple(target) for target in targets], attempt)


def names(servers: list[str], name: str, own: bool) -> dict[str, list[str]]:
    """Ask each DNS server for a name, and the one that programs ask by themselves."""

    def attempt(server: str) -> tuple[bool, str]:
        if not server:
            return _resolve(name)
        question = struct.pack(">6H", 4711, 0x0100, 1, 0, 0, 0)
        for label in name.split("."):
            question += bytes([len(label)]) + label.encode()
        question += struct.pack(">BHH", 0, 1, 1)
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as connection:
                connection.settimeout(_SECONDS)
                connection.sendto(question, (server, 53))
                answer = connection.recv(512)
        except OSError as error:
            return False, f"{server}: {_why(error)}"
        # The engine's own resolver of a network says SERVFAIL (2) where nobody answers it.
        failed = len(answer) > 3 and answer[3] & 15 == 2
        return not failed, f"{server}: {'it cannot tell' if failed else 'it answers'}"

    return _each(["", *servers] if own else servers, attempt)


def _resolve(name: str) -> tuple[bool, str]:
    try:
        socket.getaddrinfo(name, 80)
    except OSError as error:
        # That there is no such name only somebody who answers can say.
        return error.errno == socket.EAI_NONAME, f"{name}: {_why(error)}"
    return True, f"{name}: it was resolved"


def proxy(address: tuple[str, int], targets: list[tuple[str, int]]) -> dict[str, list[str]]:
    """Have the proxy fetch a page of each, and make a tunnel to it.

    What it refuses by its own list it says so. Where it tries and fails, something behind it held, and its list did not.
    """

    def attempt(request: tuple[str, str]) -> tuple[bool, str]:
        method, target = request
        try:
            with socket.create_connection((address[0], address[1]), _SECONDS) as connection:
                connection.settimeout(4 * _SECONDS)
                host = target.partition("//")[2].strip("/") or target
                connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                head = b""
                while b"\r\n\r\n" not in head and (more := connection.recv(4096)):
                    head += more
        except OSError as error:
            return False, f"{method} {target}: {_why(error)}"
        said = head.decode("latin-1")
        status = said.split("\r\n")[0]
        refused = re.search(r"^X-Squid-Error: *ERR_(ACCESS_DENIED|UNSUP_REQ|INVALID_URL)", said, re.M)
        return not (refused or not said), f"{method} {target}: {status or 'no answer'}"

    requests = []
    for host, port in targets:
        place = at(host.partition("%")[0], port)
        requests += [("GET", f"http://{place}/"), ("CONNECT", place)]
    return _each(requests, attempt)


def at(host: str, port: int) -> str:
    """A place, as URLs have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# The machine


def sockets(paths: list[str]) -> dict[str, list[str]]:
    """Look for sockets that others have made, and speak to them."""
    found = set(paths)
    for top in ("/run", "/var", "/tmp", "/workspace", "/mnt", "/home", "/srv", "/opt"):  # noqa: S108
        for place, _directories, files in os.walk(top):
            for name in files:
                path = os.path.join(place, name)  # noqa: PTH118
                if stat.S_ISSOCK(_mode(path)):
                    found.add(path)

    def attempt(path: str) -> tuple[bool, str]:
        if not stat.S_ISSOCK(_mode(path)):
            return False, f"{path}: it is not there"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_SECONDS)
            try:
                connection.connect(path)
            except OSError as error:
                return True, f"{path}: it is there ({_why(error)})"
        return True, f"{path}: it answers"

    return _each(sorted(found), attempt)


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def processes(words: list[str]) -> dict[str, list[str]]:
    """Look for processes of the machine."""
    found, seen = _found(), 0
    for name in (name for name in os.listdir("/proc") if name.isdigit()):  # noqa: PTH208
        try:
            line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        seen += 1
        # Not what the audit itself executes, which has these words in it.
        if any(word in line for word in words) and ".claw-audit-" not in line:
            found["through"].append(line[:60])
    found["held"] = [] if found["through"] else [f"{seen} processes are to be seen, all of the sandbox"]
    return found


def privileges() -> dict[str, list[str]]:
    """Do what root or a capability is needed for, and look at what the kernel says of this process."""
    libc = ctypes.CDLL(None, use_errno=True)

    def raw() -> None:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()

    def called(name: str, *arguments: Any) -> Callable[[], None]:
        def call() -> None:
            if getattr(libc, name)(*arguments) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

        return call

    deeds = {
        "become root": lambda: os.setuid(0),
        "leave the root directory": lambda: os.chroot("/tmp"),  # noqa: S108
        "mount": called("mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "send raw packets": raw,
        "be root of a user namespace": called("unshare", _CLONE_NEWUSER),
        "set the machine's name": called("sethostname", b"x", 1),
    }
    found = _found()
    for name, deed in deeds.items():
        # Each in a process of its own, which takes what it got with it.
        child = os.fork()
        if child == 0:
            try:
                deed()
            except BaseException:
                os._exit(1)
            os._exit(0)
        _pid, status = os.waitpid(child, 0)
        found["held" if status else "through"].append(name)
    told = dict(re.findall(r"^(\w+):\s*(\S+)", Path("/proc/self/status").read_text(), re.M))
    for name, right in (("CapBnd", "0" * 16), ("CapEff", "0" * 16), ("NoNewPrivs", "1"), ("Seccomp", "2")):
        place = "held" if told.get(name) == right else "through"
        found[place].append(f"{name} is {told.get(name)}")
    found["through" if os.geteuid() == 0 else "held"].append(f"uid is {os.geteuid()}")
    return found


# Hogs


def forks(limit: int) -> dict[str, list[str]]:
    """Have more processes than may be, and at most `_MOST`."""
    children: list[int] = []
    words = "all of them were made"
    try:
        for _number in range(min(limit + 8, _MOST)):
            try:
                child = os.fork()
            except OSError as error:
                words = _why(error)
                break
            if child == 0:
                signal.alarm(20)
                signal.pause()
                os._exit(0)
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
    said = f"{len(children)} processes more, where {limit} may be: {words}"
    return _found([said]) if len(children) >= limit else _found(held=[said])


def memory(limit: int) -> dict[str, list[str]]:
    """Use somewhat more memory than may be. A child does it, so that somebody is left to tell."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        Path("/proc/self/oom_score_adj").write_text("1000")
        signal.alarm(60)
        kept = []
        try:
            for _number in range(limit // _STEP + 4):
                kept.append(b"x" * _STEP)
            os.write(writer, b"x")
        except MemoryError:
            pass
        os._exit(0)
    os.close(writer)
    told = os.read(reader, 1)
    _pid, status = os.waitpid(child, 0)
    said = f"{limit} bytes and some more: {'they were used' if told else f'it was ended (status {status})'}"
    return _found([said]) if told else _found(held=[said])


def file(limit: int, workspace: str) -> dict[str, list[str]]:
    """Have a file that is larger than may be; of holes, so that no disk is filled."""
    path = Path(workspace) / f".claw-audit-{os.getpid()}-large"
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with path.open("wb") as stream:
            stream.truncate(limit + 1)
    except OSError as error:
        return _found(held=[f"a file of {limit + 1} bytes: {_why(error)}"])
    finally:
        path.unlink(missing_ok=True)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    return _found([f"a file of {limit + 1} bytes (the limit is {'none' if hard < 0 else hard})"])


def scratch(limit: int, places: list[str]) -> dict[str, list[str]]:
    """Fill each place in memory beyond its size."""
    found = _found()
    for place in places:
        path = Path(place) / f".claw-audit-{os.getpid()}-large"
        try:
            with path.open("wb", buffering=0) as stream:
                for _number in range(limit // _STEP + 2):
                    stream.write(b"\0" * _STEP)
                    if stream.tell() > limit:
                        break
                full = stream.tell() > limit
        except OSError as error:
            found["held"].append(f"{place}: {_why(error)}")
            continue
        finally:
            # Also where nothing could be made.
            with suppress(OSError):
                path.unlink()
        said = f"{place}: {limit} bytes and more" if full else f"{place}: it is full"
        found["through" if full else "held"].append(said)
    return found


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


_ALL = (find, write, link, tcp, names, proxy, sockets, processes, privileges, forks, memory, file, scratch)
DEEDS: dict[str, Callable[..., dict[str, list[str]]]] = {deed.__name__: deed for deed in _ALL}


def do(deed: dict[str, Any]) -> dict[str, list[str]]:
    """Do one."""
    given = {name: value for name, value in deed.items() if name != "do"}
    return DEEDS[deed["do"]](**given)


def main() -> None:
    """Do what is given, and tell."""
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text("executed")
    sys.stdout.write(json.dumps(do(json.loads(sys.argv[1]))) + "\n")


if __name__ == "__main__":
    main()
