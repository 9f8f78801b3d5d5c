# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor's look at what leads in and out: the proxy, the tunnel, sandboxes and their way out.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import grp
import hashlib
import http.client
import pwd
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.claw.fleet.plugins.module_utils import _processes
from ansible_collections.claw.fleet.plugins.module_utils._containers import Containers, ContainersError
from ansible_collections.claw.fleet.plugins.module_utils._doctor import (
    Finding,
    Patient,
    plain,
    run,
    stopped,
    unit,
)
from ansible_collections.claw.fleet.plugins.module_utils._findings_ways import PROVE
from ansible_collections.claw.fleet.plugins.module_utils._sandbox import MARK, Sandbox
from ansible_collections.claw.fleet.plugins.module_utils._supervisor import SupervisorError
from ansible_collections.claw.fleet.plugins.module_utils._tunnel import (
    CONFIG_DIR,
    GATEWAYS,
    SETTINGS,
    Cloudflared,
    Settings,
)
from ansible_collections.claw.fleet.plugins.module_utils._tunnel_client import TunnelError

_PROXY = "claw-proxy.service"
_PROXY_STAMP = "run/claw-proxy/loaded"
_FIREWALL = "claw-firewall.service"
_FIREWALL_TRIAL = "claw-firewall-trial.service"
_FIREWALL_PROGRAM = "opt/claw/machine/firewall"
_FIREWALL_WANTED = "etc/claw-machine/firewall.wanted.nft"
_NOT_AS_PROVEN, _NOT_PROVEN = 1, 2
_CUT_OFF = 1
_EGRESS = ("claw-egress.service", "claw-egress-rules.service", "claw-egress-watch.service")
_RULES = "opt/claw/egress/rules"
_WAY_OUT = "opt/claw/egress/way_out.py"
_PATIENCE_SECONDS = 15
"""Within which the watcher tells the app of another address."""
_ALL_TOLD = "The app reaches "
"""How the watcher begins when it has no trouble with any gateway; then follow their names, and their addresses."""
_TUNNEL = ("claw-tunnel.service", "claw-tunnel-watch.service")


def firewall(patient: Patient) -> Iterator[Finding]:
    """Whether the kernel has what was proven, where the machine's firewall is the fleet's."""
    found = list(stopped(_FIREWALL, "firewall-missing", "The machine's firewall"))
    yield from found
    program = patient.root / _FIREWALL_PROGRAM
    down = any(finding.code == "firewall-missing" for finding in found)
    # What is on trial is in force instead, and what was proven is loaded after that.
    if down or not program.exists() or unit(_FIREWALL_TRIAL)["ActiveState"] not in ("inactive", "failed"):
        return
    done = run([str(program), "holds"])
    told = done.stderr or f"{program} holds says so"
    if done.returncode == _NOT_AS_PROVEN:
        sentence = "The kernel does not have the machine's firewall."
        yield Finding("firewall-missing", sentence, told, unit=_FIREWALL)
    elif done.returncode == _NOT_PROVEN:
        sentence = "No firewall of the machine's was ever proven, so there is none."
        yield Finding("firewall-missing", sentence, told, unit=_FIREWALL, fix=PROVE)
    elif done.returncode != 0:
        raise SupervisorError(done.stderr.strip() or f"{program} ended with status {done.returncode}")
    elif (patient.root / _FIREWALL_WANTED).exists() and _is_unproven(str(program)):
        sentence = "What is wanted of the machine's firewall was never proven; the one before is in force."
        yield Finding("firewall-unproven", sentence, f"{program} check says so", unit=_FIREWALL)


def _is_unproven(program: str) -> bool:
    return run([program, "check"]).returncode == _NOT_PROVEN


def proxy(patient: Patient) -> Iterator[Finding]:
    """Whether the machine's proxy runs, and nobody else has its port."""
    port = patient.given.proxy_port
    if not port:
        return
    found = list(stopped(_PROXY, "proxy-down", "The proxy"))
    yield from found
    user = _processes.listener(port) if any(finding.code == "proxy-down" for finding in found) else ""
    if user:
        yield Finding(
            "port-taken",
            f"Somebody else has port {port} of the proxy.",
            f"user {user} listens on it",
            unit=_PROXY,
        )


def proxy_files(patient: Patient) -> Iterator[Finding]:
    """Whether the proxy's files are as the role would write them, and the proxy has read them."""
    if not patient.given.proxy_port:
        return
    sentence, faults = "The proxy's files are not as the fleet writes them.", []
    stamp = patient.root / _PROXY_STAMP
    read = stamp.stat().st_mtime if stamp.exists() else None
    for path, digest in patient.given.files.items():
        place = patient.root / path.lstrip("/")
        if not place.exists():
            faults.append(f"{path} is absent")
        elif hashlib.sha256(place.read_bytes()).hexdigest() != digest:
            faults.append(f"{path} has another content")
        elif read is not None and place.stat().st_mtime > read:
            faults.append(f"{path} is newer than what the proxy has read")
    if faults:
        yield Finding("proxy-drifted", sentence, "; ".join(faults), unit=_PROXY)


def proxy_leads(patient: Patient) -> Iterator[Finding]:
    """Whether the proxy leads to this gateway."""
    port = patient.given.proxy_port
    if not port or not patient.ready or unit(_PROXY)["ActiveState"] != "active":
        return
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", f"/{patient.name}/healthz")
        told = f"it answers {connection.getresponse().status}"
    except (OSError, http.client.HTTPException) as error:
        told = str(error) or type(error).__name__
    finally:
        connection.close()
    if told != "it answers 200":
        yield Finding(
            "proxy-leads-nowhere", f"The proxy does not lead to gateway {patient.name}.", told, unit=_PROXY
        )


def tunnel(patient: Patient) -> Iterator[Finding]:
    """Whether the machine's tunnel and its watcher run, where there is one."""
    for name, what in zip(_TUNNEL, ("The tunnel", "The tunnel's watcher"), strict=True):
        yield from stopped(name, "tunnel-down", what)


def tunnel_leads(patient: Patient) -> Iterator[Finding]:
    """Whether the tunnel leads somewhere, and the app knows where."""
    place = patient.root / CONFIG_DIR.lstrip("/")
    if not (place / SETTINGS).exists() or not (place / GATEWAYS / f"{patient.name}.json").exists():
        return
    # That is told of the machine, once.
    if any(finding.code == "tunnel-down" for finding in tunnel(patient)):
        return
    try:
        settings = Settings.load(place)
        host = Cloudflared(settings.metrics).hostname(settings.hostnames[patient.name])
    except TunnelError as error:
        yield Finding("tunnel-unregistered", "The tunnel leads nowhere.", str(error), unit=_TUNNEL[0])
        return
    known, url = patient.given.app, f"https://{host}"
    has = str((known or {}).get("url") or "").rstrip("/")
    stale = bool(known) and not patient.given.url and has != f"{url}/{patient.name}"
    trouble = _watchers_word(patient.name, url if stale else "")
    if trouble:
        sentence = f"The tunnel's watcher cannot tell the app where gateway {patient.name} is."
        yield Finding("url-untold", sentence, trouble, unit=_TUNNEL[1])
    if stale:
        told = f"the app has {plain(has)}, and the tunnel leads from {url}/{patient.name}"
        yield Finding("url-stale", f"The app has another address of gateway {patient.name}.", told)


def _watchers_word(gateway: str, url: str) -> str:
    """What the watcher says of a gateway that it cannot bring home; what passes by itself is waited for.

    With ``url`` it is waited for, too, that it says to have told the app of that one: it may have just started, or be busy with the
    one before. While another gateway is in trouble it speaks of that alone.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        said = unit(_TUNNEL[1], "StatusText").get("StatusText", "")
        trouble = said if f"; {gateway}: " in f"; {said}" else ""
        told = not url or (said.startswith(_ALL_TOLD) and url in said.replace(",", " ").split())
        if (told and not trouble) or time.monotonic() >= deadline:
            return trouble
        time.sleep(1)


def egress(patient: Patient) -> Iterator[Finding]:
    """Whether what sandboxes may reach is as it should be, and reached."""
    down = [
        finding
        for name in _EGRESS
        for finding in stopped(name, "egress-down", f"What sandboxes may reach is not looked after: {name}")
    ]
    yield from down
    way_out = patient.root / _WAY_OUT
    if way_out.exists() and not any(finding.code == "egress-down" for finding in down):
        done = run([sys.executable, "-I", str(way_out)])
        if done.returncode not in (0, _CUT_OFF):
            raise SupervisorError(done.stderr.strip() or f"{way_out} ended with status {done.returncode}")
        if done.returncode == _CUT_OFF:
            yield Finding(
                "egress-cut-off", "Sandboxes do not reach their proxy.", done.stderr, unit=_EGRESS[0]
            )
    program = patient.root / _RULES
    if program.exists() and unit(_EGRESS[1])["ActiveState"] == "active":
        done = run([str(program), "check"])
        if done.returncode != 0:
            sentence = "The kernel does not have the rules on what sandboxes may reach."
            yield Finding(
                "egress-rules-missing", sentence, done.stderr or f"{program} check says so", unit=_EGRESS[1]
            )


def sandboxes(patient: Patient) -> Iterator[Finding]:
    """Whether agents' sandboxes have an engine that the gateway itself can ask, their image, and are made of what they should be."""
    gateway = patient.gateway
    sandbox = Sandbox.load(gateway) if gateway else None
    if gateway is None or sandbox is None:
        return
    if sandbox.engine == "podman":
        down = list(
            stopped(f"claw-podman@{patient.name}.service", "sandbox-without-engine", "The container engine")
        )
        yield from down
        if any(finding.code == "sandbox-without-engine" for finding in down):
            return
    sentence = "Agents have sandboxes, and no engine answers."
    path = gateway.environment()["PATH"]
    if shutil.which(sandbox.engine, path=path) is None:
        told = f"there is no {sandbox.engine} on the gateway's PATH ({path})"
        yield Finding("sandbox-without-engine", sentence, told)
    if not _may_use(gateway.user, sandbox.docker_host.removeprefix("unix://")):
        yield Finding(
            "sandbox-without-engine", sentence, f"user {gateway.user} may not reach {sandbox.docker_host}"
        )
        return
    try:
        containers = Containers(gateway, sandbox.docker_host)
        image = containers.image_id(sandbox.image)
        found = containers.all()
    except ContainersError as error:
        yield Finding("sandbox-without-engine", sentence, str(error))
        return
    if not image:
        yield Finding(
            "sandbox-image-missing",
            "The image of sandboxes is not there.",
            f"{sandbox.docker_host} has no {sandbox.image}",
        )
    for container in found:
        if container.agent_id not in (patient.roster or {}):
            continue
        if container.image_id != image or container.environment.get(MARK) != sandbox.mark:
            told = f"it is of image {container.image_id[:19]}, and {sandbox.image} is {image[:19]}"
            sentence = f"The sandbox of {container.agent_id} is of a former image."
            yield Finding("sandbox-stale", sentence, told, container.agent_id)
        elif container.lost:
            told = "it has a directory that is there no more, or has another place"
            sentence = f"The sandbox of {container.agent_id} is of a former workspace."
            yield Finding("sandbox-stale", sentence, told, container.agent_id)
    for agent_id, entry in (patient.roster or {}).items():
        if entry.get("sandbox") != sandbox.entry(gateway, agent_id)["sandbox"]:
            yield Finding("sandbox-stale", f"The roster gives {agent_id} a former sandbox.", "", agent_id)
    watch = (
        "claw-sandbox-workspaces.service"
        if sandbox.engine == "docker"
        else f"claw-sandbox-workspaces@{patient.name}.service"
    )
    yield from stopped(watch, "sandbox-watch-down", "What looks at full workspaces")


def _may_use(user: str, path: str) -> bool:
    """Whether the gateway's user, with the groups that its unit gives it, may speak with a socket that is there."""
    try:
        found = Path(path).stat()
        owner = pwd.getpwnam(user)
        docker = grp.getgrgid(found.st_gid).gr_name == "docker"
    except (OSError, KeyError):
        return False
    if found.st_uid == owner.pw_uid:
        return bool(found.st_mode & stat.S_IWUSR)
    # The unit has the group docker beside the user's own.
    return bool(found.st_mode & (stat.S_IWGRP if docker or found.st_gid == owner.pw_gid else stat.S_IWOTH))
