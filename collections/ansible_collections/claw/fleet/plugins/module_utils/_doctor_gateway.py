# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor's look at one gateway: its process, its unit, its config, its secrets, and what the app knows of it.

PRIVATE to claw.fleet: may change at any time.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.claw.fleet.plugins.module_utils import _doctor_words, _durable, _processes
from ansible_collections.claw.fleet.plugins.module_utils._doctor import Finding, Patient, plain, unit
from ansible_collections.claw.fleet.plugins.module_utils._gateway import Gateway, GatewayError, other_gateway
from ansible_collections.claw.fleet.plugins.module_utils._gateway_config import ConfigFile
from ansible_collections.claw.fleet.plugins.module_utils._sandbox import GUARD, Sandbox

_REFUSED = 78
_LOOP, _LOOP_SECONDS = 3, 600
_ENDPOINTS = ("/v1/responses", "/v1/chat/completions")
_OFF = (403, 404, 405)
_UNITS = Path("/etc/systemd/system")
_LOCK_SECONDS = 20
_SHOWN_SETTINGS = 5


def descriptor(patient: Patient) -> Iterator[Finding]:
    """Whether there is such a gateway at all, and its OpenClaw."""
    try:
        gateway = Gateway.load(patient.name, patient.config_root)
        _owner = gateway.owner
    except (GatewayError, _durable.DurableError) as error:
        yield Finding("gateway-missing", f"Gateway {patient.name} was never set up here.", str(error))
        return
    for path in (gateway.node, gateway.entry):
        if not Path(path).is_file():
            yield Finding(
                "openclaw-missing",
                "OpenClaw's files are not where the gateway has them.",
                f"{path} is absent",
            )


def state(patient: Patient) -> Iterator[Finding]:
    """Whether what it knows is there. While it is not, nothing that would be made anew in its place is."""
    gateway = patient.gateway
    if gateway is not None and gateway.state_is_gone:
        there = Path(gateway.state_dir).exists()
        told = f"{gateway.state_dir} {'holds neither config, token nor workspaces' if there else 'is absent'}"
        yield Finding("state-missing", f"What gateway {gateway.name} knows is not there.", told)


def process(patient: Patient) -> Iterator[Finding]:
    """Whether it runs, and if not, why."""
    gateway = patient.gateway
    if gateway is None:
        return
    ready, state, name = patient.ready, patient.state, gateway.name
    told = gateway.describe_end(state)
    if state.active == "failed" and state.exit_status == _REFUSED:
        issues = _issues(gateway)
        if issues:
            yield Finding(
                "gateway-refused-config",
                f"Gateway {name} is down: it refuses its config.",
                "; ".join(issues[:3]),
            )
        else:
            yield Finding(
                "gateway-start-timed-out",
                f"Gateway {name} is down by 78, and its config is good.",
                "exit status 78, and OpenClaw finds its files valid",
                unit=gateway.unit,
            )
    elif state.active == "deactivating":
        sentence = f"Gateway {name} lets its turns end before it stops or starts anew."
        yield Finding("gateway-ending", sentence, f"it is {state.active}/{state.sub}")
    elif not state.running:
        yield Finding("gateway-down", f"Gateway {name} does not run.", told, unit=gateway.unit)
    elif not ready:
        found = unit(gateway.unit, "NRestarts")
        if found["SubState"] == "auto-restart" or int(found["NRestarts"] or 0) >= _LOOP:
            yield Finding("gateway-crash-loop", f"Gateway {name} ends again and again.", _ended(gateway))
        else:
            told = f"it is {found['ActiveState']}/{found['SubState']}, and /readyz does not say 200"
            yield Finding("gateway-not-ready", f"Gateway {name} runs and does not get ready.", told)
    else:
        found = unit(gateway.unit, "NRestarts")
        since = time.time() - _doctor_words.started(gateway)
        if int(found["NRestarts"] or 0) >= _LOOP and since < _LOOP_SECONDS:
            told = f"{found['NRestarts']} restarts, the last one {since:.0f} s ago"
            yield Finding("gateway-crash-loop", f"Gateway {name} ends again and again.", told)


def _issues(gateway: Gateway) -> list[str]:
    """What OpenClaw has against its files; also that it cannot make anything of them."""
    with _durable.lock(gateway.lock_path, _LOCK_SECONDS):
        try:
            return gateway.validate()
        except GatewayError as error:
            return [str(error)]


def _ended(gateway: Gateway) -> str:
    state = gateway.unit_state()
    words = gateway.words(time.time() - 60).splitlines()
    return f"result {state.result}, status {state.exit_status}: {' | '.join(words[-3:])}"


def port(patient: Patient) -> Iterator[Finding]:
    """Whether the port is its own."""
    gateway = patient.gateway
    if gateway is None:
        return
    sentence = f"Somebody else has port {gateway.port} of gateway {gateway.name}."
    user = _processes.listener(gateway.port)
    if user not in ("", gateway.user):
        yield Finding("port-taken", sentence, f"user {user} listens on it")
    other = other_gateway(gateway.name, gateway.port, patient.config_root)
    if other:
        yield Finding("port-taken", sentence, f"gateway {other} is set up with it too")


def units(patient: Patient) -> Iterator[Finding]:
    """Whether its unit, and what the process was started with, is the fleet's."""
    gateway = patient.gateway
    if gateway is None:
        return
    template = f"{gateway.unit.partition('@')[0]}@.service"
    ours = [str(_UNITS / template), str(_UNITS / f"{gateway.unit}.d" / "gateway.conf")]
    found = unit(gateway.unit, "FragmentPath", "DropInPaths", "NeedDaemonReload")
    faults = []
    if found["FragmentPath"] != ours[0]:
        faults.append(f"systemd reads {found['FragmentPath'] or 'no file'} instead of {ours[0]}")
    if ConfigFile(gateway, {}, ours, 0).started_otherwise():
        faults.append(f"{' or '.join(ours)} is not what the fleet started it with")
    if found["NeedDaemonReload"] == "yes":
        faults.append("systemd has not read its files as they are")
    if faults:
        sentence = f"The unit of gateway {gateway.name} is not what it was started with."
        yield Finding("unit-drifted", sentence, "; ".join(faults), unit=gateway.unit)
    places = {f"{name}.d" for name in (gateway.unit, template)}
    extra = [
        path for path in found["DropInPaths"].split() if path not in ours and Path(path).parent.name in places
    ]
    if extra:
        yield Finding(
            "unit-overridden",
            f"Somebody added to the unit of gateway {gateway.name}.",
            ", ".join(extra),
            unit=gateway.unit,
        )
    if found["ActiveState"] == "active" and found["UnitFileState"] == "disabled":
        sentence = f"Gateway {gateway.name} does not come up with the machine."
        yield Finding("unit-disabled", sentence, f"{gateway.unit} is disabled", unit=gateway.unit)


def environment(patient: Patient) -> Iterator[Finding]:
    """Whether the running process has the fleet's places."""
    gateway = patient.gateway
    has = patient.environment
    if gateway is None or not has:
        return
    wanted = gateway.environment()
    names = ("OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH", "OPENCLAW_INCLUDE_ROOTS")
    wrong = [
        f"{name} is {has.get(name) or 'not set'} instead of {wanted[name]}"
        for name in names
        if has.get(name) != wanted[name]
    ]
    if wrong:
        sentence = f"Gateway {gateway.name} runs with another config than the fleet's."
        yield Finding("wrong-config-path", sentence, "; ".join(wrong), unit=gateway.unit)


def config(patient: Patient) -> Iterator[Finding]:
    """Whether its config is as the fleet left it, and would be taken at the next start."""
    gateway = patient.gateway
    if gateway is None:
        return
    try:
        drift = ConfigFile(gateway, {}, [], 0).drift()
    except GatewayError as error:
        yield Finding("config-broken", f"The config of gateway {gateway.name} is no JSON.", str(error))
        return
    changed = differing(drift.before, drift.after)
    if changed:
        shown = ", ".join(changed[:_SHOWN_SETTINGS]) + (", ..." if len(changed) > _SHOWN_SETTINGS else "")
        yield Finding(
            "config-drifted", f"The config of gateway {gateway.name} is not as the fleet left it.", shown
        )
    if patient.served and not patient.served.valid:
        yield Finding(
            "files-refused",
            f"Gateway {gateway.name} would not start again.",
            "; ".join(patient.served.issues[:3]),
        )


def differing(before: Any, after: Any, path: str = "") -> list[str]:
    """The settings that are not the same, as dotted paths; never their values."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            name
            for key in sorted({*before, *after})
            for name in differing(before.get(key), after.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if before == after else [path]


def secret_files(patient: Patient) -> Iterator[Finding]:
    """Whether every file of a secret is there, and the running process takes its token."""
    gateway = patient.gateway
    if gateway is None:
        return
    sentence = f"A file of gateway {gateway.name}'s secrets is missing."
    if not _durable.read(gateway.token_file, root=gateway.state_dir):
        fix = (
            f"The token that is lost cannot be had back. `systemctl stop {gateway.unit}` at a quiet time, then claw.fleet.site, which "
            "makes another, and claw.fleet.provision_coach, which tells the app."
        )
        yield Finding("secret-missing", sentence, f"{gateway.token_file} is absent or empty", fix=fix)
    elif patient.ready and not patient.token_taken:
        yield Finding(
            "token-not-taken",
            f"Gateway {gateway.name} does not take the token that is in its file.",
            "it answers 401",
        )
    for path in _paths_of_secrets(gateway):
        if path != gateway.token_file and not _durable.read(path):
            yield Finding("secret-missing", sentence, f"{path} is absent or empty")


def _paths_of_secrets(gateway: Gateway) -> list[str]:
    with suppress(ValueError, AttributeError):
        found = json.loads(_durable.read(gateway.config, root=gateway.state_dir) or b"{}")
        providers = (found.get("secrets") or {}).get("providers") or {}
        return sorted(
            str(one["path"]) for one in providers.values() if one.get("source") == "file" and one.get("path")
        )
    return []


def endpoints(patient: Patient) -> Iterator[Finding]:
    """Whether what the app asks is there, and not for everybody."""
    gateway = patient.gateway
    if gateway is None or not patient.token_taken:
        return
    bearer = {"authorization": f"Bearer {gateway.token()}"}
    for path in _ENDPOINTS:
        status = _status(gateway.port, path, bearer)
        if status in _OFF:
            yield Finding(
                "endpoint-off", f"{path} of gateway {gateway.name} is switched off.", f"it answers {status}"
            )
        status = _status(gateway.port, path, {})
        if status != http.client.UNAUTHORIZED and status not in _OFF:
            yield Finding(
                "endpoint-open",
                f"{path} of gateway {gateway.name} answers without a token.",
                f"it answers {status}",
            )


def _status(number: int, path: str, headers: Mapping[str, str]) -> int:
    """What it says to an empty request, which reaches no agent."""
    connection = http.client.HTTPConnection("127.0.0.1", number, timeout=30)
    try:
        connection.request("POST", path, "{}", {"content-type": "application/json", **headers})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise GatewayError(
            f"port {number} does not answer at {path}: {error or type(error).__name__}"
        ) from error
    finally:
        connection.close()


def guard(patient: Patient) -> Iterator[Finding]:
    """Whether what guards its agents' tools is at work."""
    gateway = patient.gateway
    if gateway is None or not patient.token_taken or Sandbox.load(gateway) is None:
        return
    loaded = (gateway.rpc("health").get("plugins") or {}).get("loaded") or []
    if GUARD not in loaded:
        told = f"it has loaded {', '.join(map(str, loaded)) or 'none'}"
        yield Finding(
            "guard-missing", f"Gateway {gateway.name} runs without its guard.", told, unit=gateway.unit
        )


def app(patient: Patient) -> Iterator[Finding]:
    """Whether the app knows the gateway as it is. Tokens are compared by their hashes."""
    known, gateway = patient.given.app, patient.gateway
    if known is None or gateway is None:
        return
    if not known:
        yield Finding("gateway-unknown", f"The app does not know gateway {gateway.name}.")
        return
    token = _durable.read(gateway.token_file, root=gateway.state_dir)
    if token:
        has = hashlib.sha256(token.strip()).hexdigest()
        if has not in (known.get("token_sha256"), known.get("next_token_sha256")):
            told = f"the file's hash begins with {has[:12]}, the app's with {str(known.get('token_sha256') or '(none)')[:12]}"
            yield Finding("token-mismatch", f"The app has another token than gateway {gateway.name}.", told)
    url = str(known.get("url") or "").rstrip("/")
    wanted = patient.given.url.rstrip("/")
    if wanted and url != wanted:
        told = f"the app has {plain(url)}, and it is {plain(wanted)}"
        yield Finding("url-stale", f"The app has another address of gateway {gateway.name}.", told)
