# SPDX-License-Identifier: GPL-3.0-or-later
"""The application's settings, read from Django's at the time of use.

| setting                       | meaning                                                         | default |
|-------------------------------|-----------------------------------------------------------------|---------|
| COACHLIST_SERVICE_TOKENS      | list of tokens the fleet may present, beside registered ones     | none    |
| COACHLIST_ENCRYPTION_KEYS     | list of Fernet keys; the first encrypts, all decrypt             | none    |
| COACHLIST_ADDRESS_HOSTS       | hosts a token of gateways alone may name, .a.b: all below a.b    | public  |
| COACHLIST_GATEWAY_HEADERS     | headers for whatever stands before gateways, over https alone    | none    |
| COACHLIST_ASK_RATE            | asks of one coach, as DRF writes rates; empty: no limit          | 30/min  |
| COACHLIST_ASK_CONNECT_TIMEOUT | seconds to reach a gateway                                       | 5       |
| COACHLIST_ASK_READ_TIMEOUT    | seconds a gateway may be silent                                  | 300     |
| COACHLIST_ASK_KEEPALIVE       | seconds of silence after which a stream carries a comment        | 15      |
"""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.views.decorators.debug import sensitive_variables

from claw_fleet.coachlist import rules

ASK_RATE = "30/min"
ASK_CONNECT_TIMEOUT = 5.0
ASK_READ_TIMEOUT = 300.0
ASK_KEEPALIVE = 15.0


def service_tokens() -> tuple[str, ...]:
    """Every token the fleet may present."""
    return tuple(getattr(settings, "COACHLIST_SERVICE_TOKENS", ()))


def encryption_keys() -> tuple[str, ...]:
    """Every key gateway tokens may be encrypted with, the current one first."""
    return tuple(getattr(settings, "COACHLIST_ENCRYPTION_KEYS", ()))


def address_hosts() -> tuple[str, ...]:
    """Patterns of the hosts that a service token of gateways alone may name; none: every public host."""
    return tuple(getattr(settings, "COACHLIST_ADDRESS_HOSTS", ()))


@sensitive_variables()
def gateway_headers() -> dict[str, str]:
    """Headers, by their names, for whatever stands before gateways; raises ImproperlyConfigured, without a value."""
    headers: dict[str, str] = getattr(settings, "COACHLIST_GATEWAY_HEADERS", {})
    try:
        rules.validate_gateway_headers(headers)
    except ValidationError as exc:
        raise ImproperlyConfigured(f"COACHLIST_GATEWAY_HEADERS: {' '.join(exc.messages)}") from None
    return headers


def ask_rate() -> str | None:
    """How often one coach may ask, or None for no limit."""
    return getattr(settings, "COACHLIST_ASK_RATE", ASK_RATE) or None


def ask_connect_timeout() -> float:
    """Seconds to reach a gateway."""
    return float(getattr(settings, "COACHLIST_ASK_CONNECT_TIMEOUT", ASK_CONNECT_TIMEOUT))


def ask_read_timeout() -> float:
    """Seconds a gateway may be silent."""
    return float(getattr(settings, "COACHLIST_ASK_READ_TIMEOUT", ASK_READ_TIMEOUT))


def ask_keepalive() -> float:
    """Seconds of silence after which a stream to a coach carries a comment."""
    return float(getattr(settings, "COACHLIST_ASK_KEEPALIVE", ASK_KEEPALIVE))
