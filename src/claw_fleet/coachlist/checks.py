# SPDX-License-Identifier: GPL-3.0-or-later
"""System checks: what must be configured before the application may start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography.fernet import Fernet
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured, ValidationError

from claw_fleet.coachlist import conf, rules

SERVICE_TOKEN_MIN = 32


@register("coachlist")
def check_secrets(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Encryption keys must be there and well formed; service tokens should be there, and long."""
    messages: list[CheckMessage] = []
    keys = conf.encryption_keys()
    if not keys:
        messages.append(
            Error(
                "No encryption key: gateway tokens could not be stored.",
                hint="Set COACHLIST_ENCRYPTION_KEYS to one or more Fernet keys. Make one with: python -c "
                '"from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"',
                id="coachlist.E001",
            )
        )
    for number, key in enumerate(keys, start=1):
        try:
            Fernet(key)
        except ValueError:
            messages.append(
                Error(
                    f"Encryption key number {number} is not a Fernet key.",
                    hint="A Fernet key is 32 bytes in URL-safe base64: 44 characters.",
                    id="coachlist.E002",
                )
            )
    tokens = conf.service_tokens()
    if not tokens:
        messages.append(
            Warning(
                "No service token is configured: only the fleet's registered ones open the internal API.",
                hint="For the first of them set COACHLIST_SERVICE_TOKENS to one such as `openssl rand -hex 32` prints.",
                id="coachlist.W001",
            )
        )
    if any(len(token) < SERVICE_TOKEN_MIN for token in tokens):
        messages.append(
            Warning(
                f"A service token has fewer than {SERVICE_TOKEN_MIN} characters and could be guessed.",
                hint="Use a token such as `openssl rand -hex 32` prints.",
                id="coachlist.W002",
            )
        )
    return messages


@register("coachlist")
def check_address_hosts(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """A pattern that matches nothing would refuse every address that a machine tells."""
    messages: list[CheckMessage] = []
    for pattern in conf.address_hosts():
        try:
            rules.validate_host_pattern(pattern)
        except ValidationError as exc:
            messages.append(
                Error(
                    f"COACHLIST_ADDRESS_HOSTS: {' '.join(exc.messages)}",
                    hint="Write hosts alone, without scheme, port, path or asterisk.",
                    id="coachlist.E003",
                )
            )
    return messages


@register("coachlist")
def check_gateway_headers(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Headers for gateways can be sent, and take no place of others. No message holds a value."""
    try:
        names = list(conf.gateway_headers())
    except ImproperlyConfigured as exc:
        return [Error(str(exc), hint="Correct this header, or take it out.", id="coachlist.E004")]
    return [
        Warning(
            f"COACHLIST_GATEWAY_HEADERS: “{name}” is never sent: an ask has this header itself.",
            hint="Take it out.",
            id="coachlist.W003",
        )
        for name in names
        if rules.is_header_of_an_ask(name)
    ]


REQUIRED = (check_secrets, check_address_hosts, check_gateway_headers)
"""What must have nothing serious to say before a project starts."""
