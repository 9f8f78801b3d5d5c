# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's tunnel: where it leads from just now, whether that is here, and that the app knows it.

PRIVATE to claw.fleet: may change at any time.

The module tunnel_url and the machine's own watcher are both made of this file. The watcher runs without Ansible, so
nothing here needs more than Python itself. Errors are `TunnelError`, whose text is a sentence for people and holds no
secret; `NotYet` is what may pass without anybody's doing.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin

try:
    from ansible_collections.claw.fleet.plugins.module_utils._tunnel_client import (
        Answer,
        Client,
        NotYet,
        TunnelError,
    )
except ImportError:  # beside the watcher
    from _tunnel_client import Answer, Client, NotYet, TunnelError  # type: ignore[import-not-found,no-redef]

CONFIG_DIR = "/etc/claw-tunnel"
SETTINGS, GATEWAYS, TOKEN, ACCESS = "tunnel.json", "gateways.d", "token", "access.json"
"""In that directory: what the tunnel is, a file for each gateway, and the secrets of whoever asks."""
PROOF_PATH = "/.well-known/claw-tunnel/"
"""Where the machine's proxy shows what is in `Settings.proof_dir`, and nothing else does."""
_HOSTNAME = re.compile(r"(?=.{4,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
_NOBODY = {"x-openclaw-agent-id": "nobody"}
_LOCAL_SECONDS = 5
_NEW_SECONDS = 30
"""How long a quick tunnel's name is new."""


class TokenRefused(TunnelError):
    """The gateway does not take the token that this process has of it."""


@dataclass(frozen=True)
class Settings:
    """What the role claw.fleet.tunnel wrote down of a machine's tunnel.

    ``metrics``: host:port of cloudflared's metrics; ``proof_dir``: a directory that the machine's proxy shows; ``api_url``:
    the app's API, as this machine reaches it; ``hostnames``: those of each gateway in a named tunnel, or "" for a quick one.
    """

    metrics: str
    proof_dir: str
    api_url: str
    api_path: str
    auth_header: str
    auth_prefix: str
    ca_path: str
    hostnames: Mapping[str, str]

    @classmethod
    def load(cls, directory: str | Path = CONFIG_DIR) -> Settings:
        """As they stand there. Raises TunnelError where they cannot be read."""
        found = _read_json(Path(directory) / SETTINGS)
        places = sorted((Path(directory) / GATEWAYS).glob("*.json"))
        hostnames = {place.stem: str(_read_json(place).get("hostname", "")) for place in places}
        try:
            return cls(**found, hostnames=hostnames)
        except TypeError as error:
            raise TunnelError(
                f"{Path(directory) / SETTINGS} is of another version: {error}. Run the role claw.fleet.tunnel again"
            ) from None


class Secrets(NamedTuple):
    """What is presented: the watcher's own token to the app, a gateway's token to it, and headers for who stands before."""

    token: Callable[[], str]
    of_gateway: Callable[[str], str]
    access: Callable[[], Mapping[str, str]]


class Cloudflared:
    """The process that holds the tunnel, by its metrics."""

    def __init__(self, metrics: str) -> None:
        self._url = f"http://{metrics}"
        self._where = metrics
        self._client = Client()

    def hostname(self, wanted: str = "") -> str:
        """The name that leads here: of a quick tunnel the one it was given, of a named one ``wanted``.

        Raises NotYet while the edge does not know of it, TunnelError for a name that cannot be the tunnel's.
        """
        ready = self._ask("/ready", accept=(200, 503)).json()
        if wanted:
            config = self._ask("/config").json().get("config")
            rules = config.get("ingress") if isinstance(config, dict) else None
            names = [rule.get("hostname", "") for rule in rules or [] if isinstance(rule, dict)]
            if wanted not in names:
                raise TunnelError(
                    f"the tunnel has no rule for {wanted}; it has {', '.join(filter(None, names)) or 'none'}. Check "
                    "tunnel_hostname, and run the role claw.fleet.tunnel again"
                )
            found = wanted
        else:
            found = str(self._ask("/quicktunnel").json().get("hostname", ""))
            if not found:
                raise NotYet(
                    "cloudflared has not been given a name yet; its journal may say why (claw-tunnel)"
                )
        if not ready.get("readyConnections"):
            raise NotYet(
                f"{found} is not registered at the edge: cloudflared has no connection to it. Its journal may say why "
                "(journalctl -u claw-tunnel)"
            )
        return public_name(found)

    def _ask(self, path: str, accept: tuple[int, ...] = (200,)) -> Answer:
        try:
            answer = self._client.send("GET", f"{self._url}{path}", seconds=_LOCAL_SECONDS)
        except NotYet as error:
            raise NotYet(
                f"cloudflared does not answer at {self._where} ({error}): it is starting, or has ended. See "
                "systemctl status claw-tunnel"
            ) from None
        if answer.status not in accept or not answer.json():
            raise TunnelError(
                f"what answers at {self._where} is not cloudflared ({path} gives {answer.status}): another program has "
                "its port. Give tunnel_metrics_port another"
            )
        return answer


def public_name(found: str) -> str:
    """The host name, if it can be one that is reached from outside by https."""
    scheme, divider, rest = found.rpartition("://")
    name = rest.rstrip("/").lower()
    if divider and scheme.lower() != "https":
        raise TunnelError(f"the tunnel's address is {found}, which is not https. The app is not told of it")
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name.strip("[]"))
        raise TunnelError(
            f"the tunnel's address is {name}, an address and no name; it may be anybody's. The app is not told of it"
        )
    if not _HOSTNAME.fullmatch(name) or name.endswith((".localhost", ".local", ".internal")):
        raise TunnelError(
            f"the tunnel's address is {name!r}, which is no name that is reached from outside. The app is not told of it"
        )
    return name


class Way:
    """The way from outside to the machine's gateways."""

    def __init__(self, settings: Settings, given: Secrets) -> None:
        self._proof_dir = Path(settings.proof_dir)
        self._secrets = given
        self._settings = settings
        self._client = Client(settings.ca_path, proxies=True)
        self._new: dict[str, tuple[float, Client]] = {}

    def prove(self, hostname: str, gateway: str) -> str:
        """The gateway's URL by that name, which leads to it and nobody else's.

        First it is shown that the name leads to this machine, by what nobody else can know; only then is the gateway's token
        sent there.
        """
        client = self._asked_by(hostname, gateway)
        self._prove_machine(client, hostname)
        url = f"https://{hostname}/{quote(gateway)}"
        headers = {**self._secrets.access(), **_NOBODY}
        headers["Authorization"] = f"Bearer {self._secrets.of_gateway(gateway)}"
        answer = client.send("POST", f"{url}/v1/responses", headers=headers, body={})
        if answer.status == http.client.UNAUTHORIZED:
            raise TokenRefused(
                f"gateway {gateway} refuses its token. If it was changed just now, this passes; else run the role "
                "claw.fleet.gateway"
            )
        # What lacks a question is refused by the gateway alone, and only if the token is right.
        if answer.status != http.client.BAD_REQUEST:
            raise NotYet(
                f"gateway {gateway} does not answer through {hostname}: status {answer.status} where the gateway itself would "
                "say 400. Look whether it runs, and the machine's proxy (claw-proxy)"
            )
        return url

    def _asked_by(self, hostname: str, gateway: str) -> Client:
        """Who asks there.

        A quick tunnel's name that is looked up before it is known is not there for half an hour: that long resolvers may
        remember that there is none. The domain above it is Cloudflare's edge too, and answers for all its names.
        """
        if self._settings.hostnames.get(gateway):
            return self._client
        now = time.monotonic()
        if hostname not in self._new:
            edge = Client(self._settings.ca_path, proxies=True, at=hostname.partition(".")[2])
            self._new[hostname] = (now, edge)
        since, edge = self._new[hostname]
        return edge if now - since < _NEW_SECONDS else self._client

    def _prove_machine(self, client: Client, hostname: str) -> None:
        name, words = secrets.token_hex(16), secrets.token_hex(32)
        place = self._proof_dir / name
        try:
            # Never by a link that somebody else has put there: the directory is the watcher's, and this may be root.
            file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
            with os.fdopen(file, "w") as proof:
                os.fchmod(proof.fileno(), 0o644)
                proof.write(words)
        except OSError as error:
            raise TunnelError(f"{place} cannot be written: {error.strerror}") from None
        try:
            answer = client.send(
                "GET", f"https://{hostname}{PROOF_PATH}{name}", headers=self._secrets.access()
            )
        except NotYet as error:
            raise NotYet(f"https://{hostname} cannot be reached from here: {error}") from None
        finally:
            place.unlink(missing_ok=True)
        if not secrets.compare_digest(answer.body, words.encode()):
            raise NotYet(_stranger(hostname, answer))


def _stranger(hostname: str, answer: Answer) -> str:
    if answer.status in (301, 302, 303, 307, 308, 401, 403):
        return (
            f"{hostname} lets nobody through (status {answer.status}): something stands before the tunnel, such as Cloudflare "
            "Access. Give tunnel_access a service token's headers"
        )
    if answer.status >= http.client.INTERNAL_SERVER_ERROR:
        return f"{hostname} leads nowhere yet (status {answer.status})"
    return (
        f"{hostname} does not lead to this machine: it answers {answer.status} without what only this machine can know. The "
        "app is not told of it"
    )


class App:
    """The Django app, to which the watcher's own token opens the address of its own gateways and nothing else."""

    def __init__(self, settings: Settings, given: Secrets) -> None:
        self._settings = settings
        self._secrets = given
        self._client = Client(settings.ca_path, proxies=True)

    def known(self, gateway: str) -> dict[str, Any]:
        """What it knows of the gateway's address: url, probed_at, probe_error."""
        return self._ask("GET", gateway, None)

    def tell(self, gateway: str, url: str) -> dict[str, Any]:
        """The gateway answers at this URL; returns the app's ``changed`` and ``former_url``."""
        return self._ask("PUT", gateway, {"url": url, "answered": True})

    def complain(self, gateway: str, reason: str) -> None:
        """The gateway does not answer; the app keeps the URL it has, and shows why."""
        self._ask("PUT", gateway, {"answered": False, "reason": reason})

    def _ask(self, method: str, gateway: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        wanted = self._settings
        url = urljoin(wanted.api_url, wanted.api_path.format(name=quote(gateway)))
        headers = {wanted.auth_header: f"{wanted.auth_prefix} {self._secrets.token()}".strip()}
        try:
            answer = self._client.send(method, url, headers=headers, body=body)
        except NotYet as error:
            raise NotYet(f"the app does not answer at {wanted.api_url}: {error}") from None
        if answer.status == http.client.OK:
            return answer.json()
        said = str(answer.json().get("detail", ""))[:300]
        told = f"the app answers {answer.status}{f' ({said.rstrip(chr(46))})' if said else ''}"
        if answer.status == http.client.UNAUTHORIZED:
            raise TunnelError(
                f"{told}: it does not take this machine's token. Run the role claw.fleet.tunnel again"
            )
        if answer.status == http.client.FORBIDDEN:
            raise TunnelError(
                f"{told}: this machine's token is not for gateway {gateway}. Run the role claw.fleet.tunnel again"
            )
        if answer.status == http.client.NOT_FOUND:
            raise NotYet(
                f"{told}: it does not know gateway {gateway} yet. Run the play that provisions its coaches"
            )
        if answer.status == http.client.BAD_REQUEST:
            problem = "; ".join(f"{name}: {text}" for name, text in answer.json().items())[:300]
            raise TunnelError(f"the app refuses the address: {problem or told}")
        raise NotYet(f"{told}; its log may say more")


def secrets_in(directory: str | Path, of_gateway: Callable[[str], str]) -> Secrets:
    """Those of the files of a directory, read when they are needed; ``of_gateway`` reads a gateway's token."""
    place = Path(directory)

    def access() -> Mapping[str, str]:
        return _read_json(place / ACCESS) if (place / ACCESS).exists() else {}

    return Secrets(lambda: read_secret(place / TOKEN), of_gateway, access)


def read_secret(place: str | os.PathLike[str]) -> str:
    """The one word of a file."""
    try:
        found = Path(place).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise TunnelError(f"{place} cannot be read: {error}. Run the role claw.fleet.tunnel again") from None
    if not found:
        raise TunnelError(f"{place} is empty. Run the role claw.fleet.tunnel again")
    if len(found.split()) > 1:
        raise TunnelError(f"{place} holds more than one word. Run the role claw.fleet.tunnel again")
    return found


def _read_json(place: Path) -> dict[str, Any]:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TunnelError(f"{place} cannot be read: {error}. Run the role claw.fleet.tunnel again") from None
    if not isinstance(found, dict):
        raise TunnelError(f"{place} does not hold an object. Run the role claw.fleet.tunnel again")
    return found
