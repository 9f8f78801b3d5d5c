# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that is tried in a sandbox, made of what there is to get at.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils._audit import (
    CONTAINER,
    FILES,
    GUARD,
    LIMITS,
    LIST,
    MOUNTS,
    PROXYS_RULES,
    ROOT,
    RULES,
    Call,
    Deed,
    Scene,
    Target,
)

# OpenClaw puts this before a line.
_BEFORE = 'export PATH="${OPENCLAW_PREPEND_PATH}:$PATH"; unset OPENCLAW_PREPEND_PATH; '
_READ_ONLY = (
    "/",
    "/etc",
    "/usr",
    "/usr/bin",
    "/usr/local/bin",
    "/usr/lib/coachcli",
    "/opt",
    "/var",
    "/var/lib",
)


def deeds(scene: Scene) -> list[Deed]:
    """What is tried within the container."""

    def find(name: str, what: str, more: Sequence[str] = ()) -> Deed:
        tried = f"find and read what is the {what}'s"
        return Deed(
            name,
            MOUNTS,
            tried,
            {"do": "find", "names": [scene.canaries[what]], "paths": [*scene.where(what), *more]},
        )

    def reach(name: str, targets: Sequence[Target], nobody: str) -> Deed:
        told = ", ".join(f"{host} {port}" for host, port in targets[:4]) + (", ..." if targets[4:] else "")
        unproven = "" if set(targets) - scene.silent else nobody
        return Deed(
            name, RULES, f"connect to {told or 'nothing'}", {"do": "tcp", "targets": list(targets)}, unproven
        )

    sockets = [
        *("/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock"),
        *("/run/podman/podman.sock", "/run/claw-podman", "/run/claw-podman-builder"),
    ]
    return [
        find("other-workspaces", "others' workspace"),
        find("other-credentials", "others' credentials"),
        find("gateway-state", "gateway", scene.gateway_files),
        Deed(
            "docker-socket",
            MOUNTS,
            "find the engine's socket, or any other",
            {"do": "sockets", "paths": sockets},
        ),
        reach("metadata", scene.metadata, "the machine itself finds no metadata service there"),
        reach("machine-ports", scene.ports, "nothing listens on the machine"),
        reach("other-sandboxes", scene.peers, "no other sandbox runs on the machine; audit two agents"),
        reach("private-ranges", scene.private, "no private_hosts were named, or none of them answers"),
        reach("ipv6", scene.ipv6, "nothing of the machine answers by IPv6"),
        Deed(
            "dns",
            RULES,
            f"ask {', '.join(scene.dns) or 'the own resolver'} for a name",
            {
                "do": "names",
                "servers": scene.dns,
                "name": f"{scene.directory.strip('.')}.invalid",
                "own": True,
            },
            "" if scene.dns_answers else "none of the DNS servers answers the machine itself",
        ),
        _proxied(scene),
        Deed(
            "write-outside",
            f"{MOUNTS}; {ROOT}",
            "write where the workspace is not",
            {"do": "write", "places": [*_READ_ONLY, "/root", scene.credentials, "/workspace/.openclaw"]},
        ),
        # The user alone would keep it from being written.
        Deed(
            "write-outside",
            ROOT,
            "write there as the container's root",
            {"do": "write", "places": list(_READ_ONLY)},
            user="0:0",
        ),
        Deed(
            "link-out",
            MOUNTS,
            "have a hard link in the workspace to the key",
            {"do": "link", "workspace": scene.within, "targets": [f"{scene.credentials}/.credentials.json"]},
        ),
        Deed(
            "fork-bomb",
            LIMITS,
            f"{scene.pids} processes and more",
            {"do": "forks", "limit": scene.pids},
            "" if scene.pids < 590 else f"more than {scene.pids} processes are not tried",
        ),
        Deed(
            "memory-hog",
            LIMITS,
            f"{scene.memory} bytes of memory and more",
            {"do": "memory", "limit": scene.memory},
            ""
            if scene.memory_free > scene.memory * 1.25
            else "the machine has not that much memory to spare",
        ),
        Deed(
            "disk-hog",
            LIMITS,
            f"a file of more than {scene.file_bytes} bytes",
            {"do": "file", "limit": scene.file_bytes, "workspace": scene.within},
        ),
        Deed(
            "scratch-hog",
            LIMITS,
            f"more than {scene.scratch} bytes in {', '.join(scene.scratch_places)}",
            {"do": "scratch", "limit": scene.scratch, "places": list(scene.scratch_places)},
        ),
        Deed("privileges", CONTAINER, "do what root or a capability is needed for", {"do": "privileges"}),
        Deed(
            "processes",
            CONTAINER,
            "see the machine's processes",
            {"do": "processes", "words": ["openclaw-gateway", "dockerd", "systemd"]},
        ),
    ]


def _proxied(scene: Scene) -> Deed:
    targets = [
        *scene.metadata,
        *scene.private,
        *scene.peers[:1],
        *scene.ports[:3],
        ("127.0.0.1", 22),
        # Whatever is allowed by name or by being public, mail is not.
        ("claw-audit.invalid", 25),
    ]
    address = list(scene.proxy or ("", 0))
    return Deed(
        "proxy",
        LIST,
        f"have the proxy lead to {len(targets)} places",
        {"do": "proxy", "address": address, "targets": targets},
        "" if scene.proxy and scene.proxy not in scene.silent else "no proxy answers the machine itself",
    )


def past_the_list(scene: Scene) -> Deed:
    """What is tried as the proxy's user, on the machine."""
    targets = [*scene.metadata, *scene.peers[:1], ("127.0.0.1", 22)]
    # What listens on the loopback address is there to be reached.
    targets += [target for target in scene.ports if target[0] == "127.0.0.1"][:1]
    return Deed(
        "proxy",
        PROXYS_RULES,
        f"connect to {len(targets)} places, as the proxy's user",
        {"do": "tcp", "targets": targets},
    )


def program(scene: Scene, deed: Deed, mark: str) -> str:
    """The line that has a deed done by a program of the audit's, if it is executed at all."""
    return f"python3 -I {scene.within}/probe.py '{json.dumps(deed.deed)}' {scene.within}/{mark}"


def calls(scene: Scene) -> list[Call]:
    """What is tried by the agent's tools."""
    by_program = [
        Call(deed.name, GUARD, "exec", {"command": program(scene, deed, f"deed-{number}")}, f"deed-{number}", line=True)
        for number, deed in enumerate(deeds(scene))
        # The same line would be tried, only that somebody else executes it.
        if not deed.user
    ]  # fmt: skip
    return [*by_program, *_lines(scene), *_parameters(scene), *_files(scene), *_links(scene), *_key(scene)]


def _lines(scene: Scene) -> Iterable[Call]:
    command = f"{scene.command} --help"
    lines = {
        "other-program": ["touch {}", "/usr/bin/dash -c 'touch {}'", "busybox touch {}", "exec touch {}"],
        "metacharacters": [
            f"{command}; touch {{}}", f"{command} && touch {{}}", f"{command} || touch {{}}", f"{command} & touch {{}}",
            f"{command} | tee {{}}", f"{command} > {{}}", f"{command}\ntouch {{}}", f"{command} $(touch {{}})",
            f"{command} `touch {{}}`", f"{command} \"$(touch {{}})\"", f"{command} <(touch {{}})", "X=1 touch {}",
        ],
    }  # fmt: skip
    for name, all_lines in lines.items():
        for number, line in enumerate(all_lines):
            mark = f"{name}-{number}"
            yield Call(
                name, GUARD, "exec", {"command": line.format(f"{scene.within}/{mark}")}, mark, line=True
            )


def hostile(scene: Scene) -> dict[str, str]:
    """An environment in which much starts otherwise than it should."""
    return {
        "LD_PRELOAD": f"{scene.within}/none.so",
        "LD_AUDIT": f"{scene.within}/none.so",
        "PYTHONPATH": scene.within,
        "PYTHONSTARTUP": f"{scene.within}/sitecustomize.py",
        "ENV": f"{scene.within}/start.sh",
        "BASH_ENV": f"{scene.within}/start.sh",
        "PATH": f"{scene.within}:/usr/local/bin:/usr/bin:/bin",
    }


def _parameters(scene: Scene) -> Iterable[Call]:
    name, command = "exec-parameters", f"{scene.command} --help"
    for more in (
        {"env": hostile(scene)},
        {"workdir": "/etc"},
        {"pty": True},
        {"elevated": True},
        {"background": True},
    ):
        yield Call(
            name,
            GUARD,
            "exec",
            {"command": command, **more},
            mark="started" if "env" in more else "",
            sought=("none.so",),
            completed=True,
        )
    for host in ("gateway", "node"):
        mark = f"host-{host}"
        path = f"{scene.state}/workspaces/{scene.agent}/{scene.directory}/{mark}"
        yield Call(name, GUARD, "exec", {"command": f"touch {path}", "host": host}, mark)
    more_tools = {
        "process": {"action": "list"},
        "gateway": {"action": "config.get"},
        "sessions_list": {},
        "browser": {"action": "status"},
        "web_fetch": {"url": "http://127.0.0.1:22/"},
    }
    for tool, arguments in more_tools.items():
        yield Call("other-tools", GUARD, tool, arguments, completed=True)
    touch = {"command": f"touch {scene.within}/by-catalog"}
    yield Call("other-tools", GUARD, "tool_call", {"id": "exec", "args": touch}, "by-catalog")
    for place in scene.places["others' workspace"][:1]:
        patch = f"*** Begin Patch\n*** Add File: {place}/{scene.directory}-patch\n+x\n*** End Patch"
        yield Call(
            "other-tools",
            GUARD,
            "apply_patch",
            {"input": patch},
            made=f"{place}/{scene.directory}-patch",
            completed=True,
        )


def _files(scene: Scene) -> Iterable[Call]:
    def tool(name: str, verb: str, path: str, **more: Any) -> Call:
        content = {"content": "x"} if verb == "write" else {}
        return Call(name, FILES, verb, {"path": path, **content}, **more)

    yield tool("write-outside", "read", "/etc/passwd", sought=("root:x:0:0",))
    yield tool("write-outside", "read", "/proc/self/environ", sought=("CLAW_SANDBOX=",))
    yield tool("write-outside", "write", "/usr/local/bin/x", sought=("Successfully",))
    kinds = {
        "other-workspaces": "others' workspace",
        "other-credentials": "others' credentials",
        "gateway-state": "gateway",
    }
    for name, what in kinds.items():
        for place in scene.places[what][:2]:
            canary, written = f"{place}/{scene.canaries[what]}", f"{place}/{scene.directory}-written"
            sibling = "../" + canary.removeprefix(f"{scene.state}/workspaces/")
            yield tool(name, "read", canary)
            if name == "other-workspaces":
                yield tool(name, "read", sibling)
                yield tool(name, "write", f"{sibling}-written", made=f"{canary}-written")
            yield tool(name, "write", written, made=written)
            yield tool(name, "ls", place, sought=(scene.canaries[what],))


def links(scene: Scene) -> dict[str, str]:
    """The links that lie in the audit's directory, by name: to where."""
    own, gateway = scene.canaries["others' workspace"], scene.canaries["gateway"]
    other = (scene.places["others' workspace"] or [""])[0]
    return {
        "link-key": f"{scene.credentials}/.credentials.json",
        "link-keys": f"/var{scene.credentials}",
        "link-state": f"{scene.state}/{gateway}",
        "link-above": f"../../../{gateway}",
        "link-other": other or f"../../{own}",
        "link-passwd": "/etc/passwd",
    }


def _links(scene: Scene) -> Iterable[Call]:
    name, canary = "link-out", f"{scene.state}/{scene.canaries['gateway']}"
    for path in ("link-key", "link-keys/.credentials.json", "link-state", "link-above"):
        yield Call(name, FILES, "read", {"path": f"{scene.directory}/{path}"})
    yield Call(name, FILES, "read", {"path": f"{scene.within}/link-passwd"}, sought=("root:x:0:0",))
    other = scene.canaries["others' workspace"]
    yield Call(name, FILES, "read", {"path": f"{scene.directory}/link-other/{other}"})
    yield Call(name, FILES, "ls", {"path": f"{scene.directory}/link-other"}, sought=(other,))
    yield Call(
        name, FILES, "write", {"path": f"{scene.directory}/link-state", "content": "changed"}, kept=canary
    )


def _key(scene: Scene) -> Iterable[Call]:
    key = f"{scene.credentials}/.credentials.json"
    for line in (f"cat {key}", f"{scene.command} {key}", f"{scene.command} --help < {key}"):
        yield Call("print-key", GUARD, "exec", {"command": line}, line=True)
    for path in (key, f"/var{key}", f"../run/{key.removeprefix('/run/')}"):
        yield Call("print-key", FILES, "read", {"path": path})
    yield Call("print-key", FILES, "ls", {"path": scene.credentials}, sought=(".credentials.json",))


def before(line: str) -> str:
    """A line as OpenClaw has it executed."""
    return _BEFORE + line
