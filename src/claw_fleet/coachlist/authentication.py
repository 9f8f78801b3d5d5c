# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is asking: the fleet with a service token, a coach's agent with its key, or a coach who is signed in.

The first two present `Authorization: Bearer …`. What arrives is hashed, and hashes are compared in constant time.
"""

from __future__ import annotations

import dataclasses
import datetime
import hmac

from django.db.models import Q
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from rest_framework.authentication import (
    BaseAuthentication,
    SessionAuthentication,
    get_authorization_header,
)
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from claw_fleet.coachlist import conf
from claw_fleet.coachlist.crypto import sha256_hex
from claw_fleet.coachlist.errors import Conflict, Forbidden
from claw_fleet.coachlist.models import CompanionProfile, ServiceToken, Status, Wanted

SECRET_MAX = 512
# How exact "last used" is. Every request writing it would make each read a write.
LAST_USED_STEP = datetime.timedelta(minutes=1)


@dataclasses.dataclass(frozen=True)
class ServicePrincipal:
    """The fleet, by the hash of the token it presented; or, with `gateways`, what watches those alone."""

    token_sha256: str
    gateways: tuple[str, ...] = ()
    is_authenticated: bool = True


@dataclasses.dataclass(frozen=True)
class CoachPrincipal:
    """A coach's agent, or the coach herself; `pk` is the coach's."""

    coach: CompanionProfile
    is_authenticated: bool = True

    @property
    def pk(self) -> int:
        """The coach's primary key, by which DRF throttles."""
        return self.coach.pk


class _Bearer(BaseAuthentication):
    """The common part: find the secret, and say how to present one."""

    realm = ""
    what = ""

    def authenticate_header(self, request: Request) -> str:
        """The challenge that makes a refusal a 401."""
        return f'Bearer realm="{self.realm}"'

    @sensitive_variables()
    def secret(self, request: Request) -> str | None:
        """The presented secret; None when there is no Authorization header at all."""
        header = get_authorization_header(request)
        if not header:
            return None
        scheme, _, value = header.partition(b" ")
        value = value.strip()
        if scheme.lower() != b"bearer" or not value.isascii() or not 0 < len(value) <= SECRET_MAX:
            raise AuthenticationFailed(f"Send the header “Authorization: Bearer <{self.what}>”.")
        return value.decode("ascii")


def is_configured(presented: str) -> bool:
    """Whether a hash is that of one of COACHLIST_SERVICE_TOKENS."""
    # Every token is compared, so the time taken does not tell which of them was nearly right.
    matches = [hmac.compare_digest(presented, sha256_hex(token)) for token in conf.service_tokens()]
    return any(matches)


class ServiceTokenAuthentication(_Bearer):
    """The fleet's own token: one of COACHLIST_SERVICE_TOKENS, or one that is registered and not revoked."""

    realm = "coachlist internal"
    what = "service token"

    @sensitive_variables()
    def authenticate(self, request: Request) -> tuple[ServicePrincipal, None] | None:
        """The fleet, if the token is one of those."""
        secret = self.secret(request)
        if secret is None:
            return None
        presented = sha256_hex(secret)
        if is_configured(presented):
            return ServicePrincipal(presented), None
        token = self._registered(presented)
        if token is None:
            raise AuthenticationFailed(
                "This service token is not accepted: it is unknown or revoked. Use one of those in "
                "COACHLIST_SERVICE_TOKENS, or one that was registered."
            )
        return ServicePrincipal(presented, tuple(token.gateways)), None

    @staticmethod
    def _registered(presented: str) -> ServiceToken | None:
        token = ServiceToken.objects.filter(token_sha256=presented, revoked_at=None).first()
        if token is None or not hmac.compare_digest(token.token_sha256, presented):
            return None
        now = timezone.now()
        if token.last_used_at is None or token.last_used_at < now - LAST_USED_STEP:
            ServiceToken.objects.filter(pk=token.pk).update(last_used_at=now)
        return token


class CompanionAPIKeyAuthentication(_Bearer):
    """A coach's own key. It opens that coach's data and nothing else.

    It is refused once revoked or, after the moment the fleet asked for, replaced; and as soon as the coach is
    wanted removed. While she is paused it goes on working; what it may do then is `CoachMayWrite`'s to say.
    """

    realm = "coachlist"
    what = "the coach's key"

    @sensitive_variables()
    def authenticate(self, request: Request) -> tuple[CoachPrincipal, None] | None:
        """The coach whose key it is."""
        secret = self.secret(request)
        if secret is None:
            return None
        presented = sha256_hex(secret)
        now = timezone.now()
        mine = Q(key_sha256=presented) | Q(former_key_sha256=presented, former_key_until__gt=now)
        coach = CompanionProfile.objects.filter(mine).first()
        if coach is None or not any(
            hmac.compare_digest(known, presented) for known in (coach.key_sha256, coach.former_key_sha256)
        ):
            raise AuthenticationFailed("This key is not valid: it is unknown, replaced or revoked.")
        if coach.wanted == Wanted.REMOVED or coach.status == Status.REMOVED:
            raise AuthenticationFailed("This coach is removed, so her key is not valid any more.")
        if coach.key_last_used_at is None or coach.key_last_used_at < now - LAST_USED_STEP:
            # Only while it is still this key: a rotation in between has cleared the column.
            CompanionProfile.objects.filter(pk=coach.pk, key_sha256=presented).update(key_last_used_at=now)
        return CoachPrincipal(coach), None


class CoachSessionAuthentication(SessionAuthentication):
    """A coach who is signed in as the Django user that is hers. Her requests carry Django's CSRF token."""

    def authenticate(self, request: Request) -> tuple[CoachPrincipal, None] | None:
        """The coach of the user who is signed in; for a user without one a 403."""
        signed_in = super().authenticate(request)
        if signed_in is None:
            return None
        coach = CompanionProfile.objects.of_user(signed_in[0].pk)
        if coach is None:
            raise Forbidden(
                "No coach belongs to this user. Choose the user on the coach's page in the admin.", "no_coach"
            )
        return CoachPrincipal(coach), None


class IsService(BasePermission):
    """Only the fleet, with a token that may do everything."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether the fleet is asking; for a token of gateways alone a 403 that says what it may do."""
        if isinstance(request.user, ServicePrincipal) and request.user.gateways:
            raise Forbidden(
                "This service token may do nothing but tell and read the address of: "
                f"{', '.join(request.user.gateways)} (internal/gateways/NAME/address/). "
                "Use one that is not for single gateways.",
                "service_token_scoped",
            )
        return isinstance(request.user, ServicePrincipal)


class MayTellAddress(BasePermission):
    """The fleet, or what watches the gateway that the path names."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """True, or for another gateway a 403 that names those the token is for."""
        if not isinstance(request.user, ServicePrincipal):
            return False
        scope = request.user.gateways
        if scope and view.kwargs["name"] not in scope:
            raise Forbidden(
                f"This service token is for {', '.join(scope)} alone, and not for “{view.kwargs['name']}”. "
                "Register it for this gateway too, or use that gateway's own.",
                "not_your_gateway",
            )
        return True


class IsCoach(BasePermission):
    """Only a coach: her agent or, where a view lets her sign in, herself."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether it is one."""
        return isinstance(request.user, CoachPrincipal)


class CoachMayWrite(BasePermission):
    """A paused coach's key reads and does not write."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """True, or a 409 that says what to do."""
        if request.method in SAFE_METHODS or not isinstance(request.user, CoachPrincipal):
            return True
        if request.user.coach.wanted == Wanted.PAUSED:
            raise Conflict(
                "This coach is paused: her data can be read and not changed. Resume her in the admin first.",
                "paused",
            )
        return True
