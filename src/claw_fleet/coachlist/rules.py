# SPDX-License-Identifier: GPL-3.0-or-later
"""What a well-formed coach and gateway look like: pure functions, used by forms, serializers and commands.

Each validator takes the value and raises Django's ValidationError with a sentence that names the rule.
Rows that reach the table without a form may break every one of these rules, and are still served.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import re
import socket
import unicodedata
from collections.abc import Iterable
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError

AGENT_ID = re.compile(r"[a-z0-9_][a-z0-9_-]{0,63}")
GATEWAY_NAME = re.compile(r"[a-z][a-z0-9-]{0,26}")
MAX_VARS_CHARACTERS = 60_000
"""Below what the fleet takes, which counts punctuation too."""

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
SESSION_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
SHA256_HEX = re.compile(r"[0-9a-f]{64}")
# Addresses of IPv6 that stand for those of IPv4, which their last four bytes are.
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")

# What HTTP takes as a header's name, and what of its value travels everywhere.
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
# An ask has these itself, or HTTP has. What begins with the last part says whose question it is.
HEADERS_OF_AN_ASK = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
    }
)
HEADER_OF_OPENCLAW = "x-openclaw-"

# The gateway answers requests for its placeholder agent "main" itself, so no coach may be called that.
RESERVED_AGENT_IDS = frozenset({"main"})
# ?gateway=none means "claimed by nobody".
RESERVED_GATEWAY_NAMES = frozenset({"none"})

# Control characters; halves of surrogate pairs, which JSON can carry and UTF-8 cannot; and the separators of
# lines and of paragraphs, which some programs treat as newlines. The collection refuses the same.
NOT_IN_A_NAME = frozenset({"Cc", "Cs", "Zl", "Zp"})

NAME_MAX = 200
TOKEN_MAX = 512


def validate_agent_id(value: str) -> None:
    """Refuse an agent id the gateway could not serve."""
    if not AGENT_ID.fullmatch(value):
        raise ValidationError(
            "An agent id is 1 to 64 characters: lower-case letters, digits, hyphens and underscores, "
            "and it does not start with a hyphen.",
            code="agent_id",
        )
    if value in RESERVED_AGENT_IDS:
        raise ValidationError(
            "The agent id “%(value)s” is reserved by the gateway. Choose another one.",
            code="agent_id_reserved",
            params={"value": value},
        )


def validate_name(value: str) -> None:
    """Refuse a name that is empty, too long, or not one line of text that can be stored."""
    if not value.strip() or len(value) > NAME_MAX:
        raise ValidationError(f"A name is 1 to {NAME_MAX} characters.", code="name_length")
    if not NOT_IN_A_NAME.isdisjoint(map(unicodedata.category, value)):
        raise ValidationError(
            "A name is one line of text: no line breaks, no control characters.", code="name_control"
        )


def validate_vars(value: object) -> None:
    """Refuse template variables that are not an object of plain values."""
    if not isinstance(value, dict):
        raise ValidationError(
            'Template variables are a JSON object such as {"tone": "warm"}.', code="vars_object"
        )
    if sum(len(str(key)) + len(str(item)) for key, item in value.items()) > MAX_VARS_CHARACTERS:
        raise ValidationError(
            "Template variables hold more than %(limit)s characters in all. Shorten them.",
            code="vars_size",
            params={"limit": MAX_VARS_CHARACTERS},
        )
    for key, item in value.items():
        if not isinstance(key, str) or not VARIABLE_NAME.fullmatch(key):
            raise ValidationError(
                "“%(key)s” is not a variable name: letters, digits and underscores, no digit first.",
                code="vars_key",
                params={"key": key},
            )
        if key.startswith("__ansible"):
            raise ValidationError(
                "“%(key)s” is a name that Ansible keeps for itself. Choose another.",
                code="vars_key",
                params={"key": key},
            )
        if isinstance(item, str) and any(unicodedata.category(character) == "Cs" for character in item):
            raise ValidationError(
                "The variable “%(key)s” holds half a character (an unpaired surrogate). Type it anew.",
                code="vars_text",
                params={"key": key},
            )
        if item is not None and not isinstance(item, (str, int, float, bool)):
            raise ValidationError(
                "The variable “%(key)s” holds a list or an object. Give it text, a number or true/false.",
                code="vars_value",
                params={"key": key},
            )
        if isinstance(item, float) and not math.isfinite(item):
            raise ValidationError(
                "The variable “%(key)s” is not a finite number.", code="vars_number", params={"key": key}
            )


def validate_gateway_name(value: str) -> None:
    """Refuse a gateway name that could not be a Unix user and a unit."""
    if not GATEWAY_NAME.fullmatch(value) or value in RESERVED_GATEWAY_NAMES:
        raise ValidationError(
            "A gateway name is 1 to 27 characters: lower-case letters, digits and hyphens, "
            "starting with a letter, and not “none”.",
            code="gateway_name",
        )


def validate_gateway_url(value: str) -> None:
    """Refuse an address that is not plain http(s)://host[:port][/path]."""
    try:
        parts = urlsplit(value)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not value.isascii() or any(c.isspace() or not c.isprintable() for c in value):
        raise ValidationError(
            "A gateway's address starts with https:// or http:// and names a host, "
            "for example https://gateway.example.org/gw-a.",
            code="gateway_url",
        )
    if parts.username is not None or parts.password is not None or "?" in value or "#" in value:
        raise ValidationError(
            "A gateway's address holds no user name, password, query or fragment: "
            "only scheme, host, port and path.",
            code="gateway_url_parts",
        )


def tidy_gateway_url(value: str) -> str:
    """An address as it is stored, without a slash at its end; raises as validate_gateway_url does."""
    validate_gateway_url(value)
    return value.rstrip("/")


def validate_public_url(value: str, allowed: Iterable[str]) -> None:
    """Refuse an address that a gateway's token must not be sent to because a machine's watcher said so.

    ``allowed``: patterns of hosts as in COACHLIST_ADDRESS_HOSTS; none allow every public host. What a name
    resolves to is not looked up: that can change at any time.
    """
    parts = urlsplit(value)
    host = (parts.hostname or "").removesuffix(".")
    if parts.scheme != "https":
        raise ValidationError(
            "The gateway's token would travel in the clear. Send an address that starts with https://.",
            code="gateway_url_scheme",
        )
    address = _ip_address(host)
    if host == "localhost" or host.endswith(".localhost") or (address and not _is_public(address)):
        raise ValidationError(
            "The host “%(host)s” is not a public one. Send the tunnel's own public address; "
            "a private one can be set by the fleet or in the admin.",
            code="gateway_url_private",
            params={"host": host},
        )
    if address is None and not HOST_NAME.fullmatch(host):
        raise ValidationError(
            "“%(host)s” is not the name of a host: letters, digits, hyphens and dots.",
            code="gateway_url_host",
            params={"host": host},
        )
    patterns = [pattern.lower() for pattern in allowed]
    if patterns and not any(_matches(host, pattern) for pattern in patterns):
        raise ValidationError(
            "The host “%(host)s” is none that this token may name: %(patterns)s. "
            "If it is right, add it to COACHLIST_ADDRESS_HOSTS.",
            code="gateway_url_not_allowed",
            params={"host": host, "patterns": ", ".join(patterns)},
        )


def validate_host_pattern(value: str) -> None:
    """Refuse what could never match a host."""
    if not HOST_NAME.fullmatch(value.lower().removeprefix(".")) and _ip_address(value) is None:
        raise ValidationError(
            "“%(value)s” is no host such as gateway.example.org, and no pattern such as .example.org, "
            "which means every host below it.",
            code="host_pattern",
            params={"value": value},
        )


def _matches(host: str, pattern: str) -> bool:
    return host.endswith(pattern) if pattern.startswith(".") else host == pattern


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a host is written as, in each of the ways that resolvers take for one; else None."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host)
    with contextlib.suppress(OSError):
        return ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1, 0x7f000001, 2130706433, …
    return None


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        within = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            within = ipaddress.IPv4Address(address.packed[-4:])
        if within is not None:
            return _is_public(within)
    return address.is_global and not address.is_multicast


def validate_gateway_token(value: str) -> None:
    """Refuse a token that could not travel in an HTTP header."""
    if not 16 <= len(value) <= TOKEN_MAX or not value.isascii() or not all("!" <= c <= "~" for c in value):
        raise ValidationError(
            f"A gateway's token is 16 to {TOKEN_MAX} visible ASCII characters without spaces.",
            code="gateway_token",
        )


def is_header_of_an_ask(name: str) -> bool:
    """Whether a header is one that an ask has itself, so that no other may stand in its place."""
    return name.lower() in HEADERS_OF_AN_ASK or name.lower().startswith(HEADER_OF_OPENCLAW)


def validate_gateway_headers(value: object) -> None:
    """Refuse headers that could not be sent. Their values are secrets, and what is no name may be one: neither is said."""
    if not isinstance(value, dict):
        raise ValidationError(
            'Headers are a JSON object such as {"CF-Access-Client-Id": "…"}.', code="headers_object"
        )
    for number, (name, text) in enumerate(value.items(), start=1):
        if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
            raise ValidationError(
                "Name number %(number)s is not one of a header: letters, digits and hyphens.",
                code="headers_name",
                params={"number": number},
            )
        if not isinstance(text, str) or not HEADER_VALUE.fullmatch(text):
            raise ValidationError(
                "The value of “%(name)s” is not one line of ASCII text without spaces at its ends.",
                code="headers_value",
                params={"name": name},
            )


def validate_session_slug(value: str) -> None:
    """Refuse a session name the gateway would fold into another one."""
    if not SESSION_SLUG.fullmatch(value):
        raise ValidationError(
            "A session is 1 to 64 characters: lower-case letters, digits, hyphens and underscores, "
            "starting with a letter or a digit.",
            code="session",
        )


def validate_sha256(value: str) -> None:
    """Refuse anything but a SHA-256 in lower-case hexadecimal."""
    if not SHA256_HEX.fullmatch(value):
        raise ValidationError(
            "Send the SHA-256 of the key as 64 lower-case hexadecimal digits, never the key.", code="sha256"
        )
