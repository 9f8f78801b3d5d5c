# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fleet does to coaches and gateways.

Each function locks the row, decides, and writes the fleet's columns alone. The lock is SELECT … FOR UPDATE
where the database has it; on SQLite it is the transaction itself, which must begin IMMEDIATE.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone
from rest_framework.exceptions import NotFound

from claw_fleet.coachlist.errors import Conflict, Invalid
from claw_fleet.coachlist.models import CompanionProfile, Gateway, Status, Wanted
from claw_fleet.coachlist.models.fleet import PROBE_COLUMNS, TOKEN_COLUMNS, URL_COLUMNS

REASON_MAX = 4000
PROBE_ERROR_MAX = 500

# What can be reported of a coach nobody holds: nothing runs in these.
_NEEDS_NO_CLAIM = frozenset({Status.PENDING, Status.PAUSED, Status.REMOVED, Status.ERROR})
_NO_FORMER_KEY = {"former_key_sha256": "", "former_key_until": None}


def _no_gateway(name: str) -> str:
    return f"There is no gateway “{name}”. Register it first with PUT internal/gateways/{name}/."


def known_gateway(name: str, gateways: QuerySet[Gateway]) -> Gateway:
    """The one of these gateways that a path names; raises NotFound."""
    # PostgreSQL cannot even be asked for a name with a NUL in it.
    gateway = gateways.filter(name=name).first() if "\x00" not in name else None
    if gateway is None:
        raise NotFound(_no_gateway(name))
    return gateway


def _locked_gateway(name: str) -> Gateway:
    gateway = Gateway.objects.select_for_update().filter(name=name).first()
    if gateway is None:
        raise Invalid(_no_gateway(name), "unknown_gateway")
    return gateway


def _locked_coach(**lookup: Any) -> CompanionProfile:
    coach = CompanionProfile.objects.select_for_update().filter(**lookup).first()
    if coach is None:
        raise NotFound("There is no such coach. Read the coach list again: the row may have been deleted.")
    return coach


def _write(coach: CompanionProfile, values: dict[str, Any]) -> bool:
    """Write those of the values that differ, and only those columns; whether any did."""
    changes = {column: value for column, value in values.items() if getattr(coach, column) != value}
    if not changes:
        return False
    if "status" in changes:
        changes["status_changed_at"] = timezone.now()
    CompanionProfile.objects.filter(pk=coach.pk).update(**changes)
    for column, value in changes.items():
        setattr(coach, column, value)
    return True


def claim(pk: int, gateway_name: str) -> CompanionProfile:
    """Place a coach on a gateway.

    Done again by the holder it changes nothing more. Raises Conflict when another gateway holds the coach or
    this one is full, Invalid when the gateway is not registered, NotFound when the coach is gone.
    """
    with transaction.atomic():
        # The gateway's row first: whoever claims for this gateway waits here, so the count below is exact.
        gateway = _locked_gateway(gateway_name)
        coach = _locked_coach(pk=pk)
        holder = coach.gateway_id
        if holder is not None and holder != gateway.name:
            raise Conflict(
                f"The gateway “{holder}” holds this coach. Leave her there, or have it report her removed.",
                "held",
                gateway=holder,
            )
        if holder is None and gateway.coaches.count() >= gateway.capacity:
            raise Conflict(
                f"The gateway “{gateway.name}” is full: it holds {gateway.capacity} coaches. "
                "Raise its capacity, or claim the coach for another gateway.",
                "full",
                gateway=None,
            )
        values: dict[str, Any] = {"gateway_id": gateway.name}
        begins = {Status.PENDING, Status.ERROR}
        if coach.wanted == Wanted.RUNNING:
            begins.add(Status.REMOVED)
        if coach.status in begins:
            values |= {"status": Status.PROVISIONING, "reason": ""}
        _write(coach, values)
        return coach


def report(
    pk: int, *, gateway: str | None, status: str, observed_generation: int | None = None, reason: str = ""
) -> CompanionProfile:
    """Take down what the fleet made of a coach. A coach reported removed is held by nobody any more.

    Raises Conflict when it is not this gateway's to say or the generation would go back, Invalid when the
    generation is ahead of what people changed, NotFound when the coach is gone.
    """
    with transaction.atomic():
        coach = _locked_coach(pk=pk)
        holder = coach.gateway_id
        if holder is not None and holder != gateway:
            raise Conflict(
                f"The gateway “{holder}” holds this coach, so only it reports her status.",
                "held",
                gateway=holder,
            )
        if holder is None and status not in _NEEDS_NO_CLAIM:
            raise Conflict(
                f"No gateway holds this coach, so she cannot be {status}. Claim her first.",
                "unclaimed",
                gateway=None,
            )
        values: dict[str, Any] = {"status": status, "reason": reason[:REASON_MAX]}
        if observed_generation is not None:
            if observed_generation > coach.generation:
                raise Invalid(
                    f"observed_generation {observed_generation} is ahead of the coach's generation "
                    f"{coach.generation}. Report the generation of the row that was carried out.",
                    "generation_ahead",
                )
            if observed_generation < coach.observed_generation:
                raise Conflict(
                    f"observed_generation would go back from {coach.observed_generation} to "
                    f"{observed_generation}: a newer run has reported already. Read the coach list again.",
                    "generation_back",
                    gateway=holder,
                )
            values["observed_generation"] = observed_generation
        if status == Status.REMOVED:
            values["gateway_id"] = None
        _write(coach, values)
        return coach


def set_key(
    agent_id: str, *, key_id: str, key_sha256: str, key_generation: int, former_seconds: int = 0
) -> bool:
    """Register the hash of a coach's key in place of the one before; whether that changed anything.

    The key before stays good for `former_seconds`; told again of the same key, that can only become less.
    The same generation may come with another hash: the key was lost with its machine and made anew, or its
    operator wanted another. Raises Conflict when the generation would go back or the key is another coach's,
    Invalid when it is ahead of what people want.
    """
    with transaction.atomic():
        coach = _locked_coach(agent_id=agent_id)
        if key_generation > coach.key_wanted_generation:
            raise Invalid(
                f"key_generation {key_generation} is ahead of the wanted one, {coach.key_wanted_generation}. "
                "A new key is asked for in the admin: Rotate key.",
                "key_generation_ahead",
            )
        if key_generation < coach.key_generation:
            raise Conflict(
                f"key_generation would go back from {coach.key_generation} to {key_generation}: "
                "a newer key is registered already. Read the coach list again.",
                "key_generation_back",
                gateway=coach.gateway_id,
            )
        values: dict[str, Any] = {
            "key_id": key_id,
            "key_sha256": key_sha256,
            "key_generation": key_generation,
        }
        now = timezone.now()
        until = now + datetime.timedelta(seconds=former_seconds)
        if coach.key_sha256 != key_sha256:
            values |= {"key_revoked_at": None, "key_last_used_at": None}
            # The first key is created; each one after it is a rotation, also after a revocation.
            values["key_rotated_at" if coach.key_created_at else "key_created_at"] = now
            kept = bool(coach.key_sha256) and former_seconds > 0
            values["former_key_sha256"] = coach.key_sha256 if kept else ""
            values["former_key_until"] = until if kept else None
        elif coach.former_key_until is not None and until < coach.former_key_until:
            # Not a change of the key that is told, so it does not count as one.
            _write(coach, {"former_key_until": until} if former_seconds else _NO_FORMER_KEY)
        try:
            with transaction.atomic():
                return _write(coach, values)
        except IntegrityError:
            raise Conflict(
                "This key is registered for another coach. Make a new key: a key belongs to one coach.",
                "key_taken",
                gateway=coach.gateway_id,
            ) from None


def revoke_key(agent_id: str) -> bool:
    """Forget a coach's key, which from now on opens nothing; whether there was one."""
    with transaction.atomic():
        coach = _locked_coach(agent_id=agent_id)
        if not coach.key_sha256:
            return False
        revoked = {"key_id": "", "key_sha256": "", "key_revoked_at": timezone.now()}
        return _write(coach, revoked | _NO_FORMER_KEY)


@dataclasses.dataclass(frozen=True)
class GatewayValues:
    """What is told of a gateway; None leaves as it is."""

    url: str | None = None
    token: str | None = None
    next_token: str | None = None
    capacity: int | None = None


def put_gateway(name: str, values: GatewayValues) -> tuple[Gateway, bool]:
    """Register a gateway, or change what is told of it; and whether that changed anything."""
    with transaction.atomic():
        _, created = Gateway.objects.get_or_create(name=name)
        gateway = _locked_gateway(name)
        columns: list[str] = []
        if values.url is not None and gateway.set_url(values.url):
            columns += URL_COLUMNS
        if values.token is not None and gateway.set_token(values.token):
            columns += TOKEN_COLUMNS
        if values.next_token is not None and gateway.set_next_token(values.next_token):
            columns += TOKEN_COLUMNS
        if values.capacity is not None and values.capacity != gateway.capacity:
            gateway.capacity = values.capacity
            columns.append("capacity")
        if columns:
            gateway.save(update_fields=columns)
        return gateway, created or bool(columns)


def probed(name: str, *, url: str | None, error: str = "") -> tuple[Gateway, str]:
    """Take down that the gateway answers at this address or, with None, why it does not at the one it has.

    The gateway, and the address it had before. Raises NotFound when the gateway is not registered.
    """
    with transaction.atomic():
        gateway = known_gateway(name, Gateway.objects.select_for_update())
        former = gateway.url
        columns = URL_COLUMNS if url is not None and gateway.set_url(url) else PROBE_COLUMNS
        gateway.set_probe(error[:PROBE_ERROR_MAX])
        gateway.save(update_fields=columns)
        return gateway, former
