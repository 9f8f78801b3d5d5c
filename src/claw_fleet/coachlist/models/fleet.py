# SPDX-License-Identifier: GPL-3.0-or-later
"""Gateways and coaches.

A coach's row has two writers, and each writes its own columns only: people say what is wanted
(`people.py`), the fleet says what it made of it (`fleet.py`). Neither saves a whole row it once read,
so no click is lost to a run in progress, and no outcome to a click.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Aggregate, Count, F, Q, Value
from django.db.models.functions import MD5, Cast, JSONObject
from django.utils import timezone

from claw_fleet.coachlist import crypto, rules


class Wanted(models.TextChoices):
    """What people want of a coach's agent."""

    RUNNING = "running", "running"
    PAUSED = "paused", "paused"
    REMOVED = "removed", "removed"


class Status(models.TextChoices):
    """What the fleet made of it."""

    PENDING = "pending", "pending"
    PROVISIONING = "provisioning", "provisioning"
    ACTIVATING = "activating", "activating"
    ACTIVE = "active", "active"
    PAUSED = "paused", "paused"
    REMOVED = "removed", "removed"
    ERROR = "error", "error"


# The status at which a coach rests, for each thing people can want.
SETTLED = {Wanted.RUNNING: Status.ACTIVE, Wanted.PAUSED: Status.PAUSED, Wanted.REMOVED: Status.REMOVED}

# What the coach list shows of a row, in its order. The list's ETag covers these and nothing else.
ROW_FIELDS = (
    "pk",
    "agent_id",
    "name",
    "vars",
    "wanted",
    "generation",
    "status",
    "observed_generation",
    "reason",
    "gateway",
    "key_id",
    "key_sha256",
    "key_generation",
    "key_wanted_generation",
)


class GatewayQuerySet(models.QuerySet["Gateway"]):
    """Queries on gateways."""

    def with_used(self) -> GatewayQuerySet:
        """Annotate `used`: how many coaches each gateway holds."""
        return self.annotate(used=Count("coaches"))


class Gateway(models.Model):
    """One OpenClaw gateway: where it is reached, with which token, and how many coaches it carries."""

    name = models.CharField(
        primary_key=True,
        max_length=27,
        validators=[rules.validate_gateway_name],
        help_text="For example gw-a.",
    )
    url = models.CharField(
        "address",
        max_length=500,
        blank=True,
        validators=[rules.validate_gateway_url],
        help_text="Where this application reaches the gateway; /v1/responses is appended.",
    )
    url_set_at = models.DateTimeField("address set at", null=True, editable=False)
    # What came of asking the gateway at that address, told by whoever watches it.
    probed_at = models.DateTimeField("last probed at", null=True, editable=False)
    probe_error = models.TextField(blank=True, editable=False)
    capacity = models.PositiveIntegerField(default=100, help_text="How many coaches may be placed here.")
    token_encrypted = models.TextField(blank=True, editable=False)
    token_sha256 = models.CharField("token's SHA-256", max_length=64, blank=True, editable=False)
    # Announced by the fleet, and not yet known to be in force.
    next_token_encrypted = models.TextField(blank=True, editable=False)
    next_token_sha256 = models.CharField("next token's SHA-256", max_length=64, blank=True, editable=False)

    objects = GatewayQuerySet.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def set_url(self, url: str) -> bool:
        """Take a new address, of which nothing is known yet; whether it differs from the old one."""
        if url == self.url:
            return False
        self.url, self.url_set_at = url, timezone.now()
        self.probed_at, self.probe_error = None, ""
        return True

    def set_probe(self, error: str) -> None:
        """Take what a probe just found: why the gateway did not answer, or "" if it did."""
        self.probed_at, self.probe_error = timezone.now(), error

    def set_token(self, token: str) -> bool:
        """Take the token that is in force, to be stored encrypted; whether that changed what is stored."""
        digest = crypto.sha256_hex(token)
        if digest == self.token_sha256 and not self.next_token_sha256:
            return False
        if digest != self.token_sha256:
            self.token_encrypted, self.token_sha256 = crypto.encrypt(token), digest
        self.next_token_encrypted = self.next_token_sha256 = ""
        return True

    def set_next_token(self, token: str) -> bool:
        """Take a token that will be in force soon, beside the one that is; whether that changed anything."""
        digest = crypto.sha256_hex(token)
        if digest in {self.token_sha256, self.next_token_sha256}:
            return False
        self.next_token_encrypted, self.next_token_sha256 = crypto.encrypt(token), digest
        return True

    def token(self) -> str:
        """The token in plain, or "" if there is none; raises crypto.Undecryptable."""
        return crypto.decrypt(self.token_encrypted) if self.token_encrypted else ""

    def next_token(self) -> str:
        """The announced token in plain, or "" if there is none; raises crypto.Undecryptable."""
        return crypto.decrypt(self.next_token_encrypted) if self.next_token_encrypted else ""

    def tokens(self) -> list[str]:
        """The tokens to present, the likeliest first; without those that no configured key decrypts."""
        found = []
        for read in (self.token, self.next_token):
            with contextlib.suppress(crypto.Undecryptable):
                found.append(read())
        return [token for token in found if token]

    def accepted(self, token: str) -> None:
        """The gateway took this token: if it is the announced one, it is the one from now on."""
        digest = crypto.sha256_hex(token)
        if digest != self.next_token_sha256:
            return
        # Only while nobody has told anything newer of this gateway.
        Gateway.objects.filter(pk=self.pk, next_token_sha256=digest).update(
            token_encrypted=F("next_token_encrypted"),
            token_sha256=digest,
            next_token_encrypted="",
            next_token_sha256="",
        )


# What is written of a gateway when it was probed, when its address changes, and when one of its tokens does.
PROBE_COLUMNS = ("probed_at", "probe_error")
URL_COLUMNS = ("url", "url_set_at", *PROBE_COLUMNS)
TOKEN_COLUMNS = ("token_encrypted", "token_sha256", "next_token_encrypted", "next_token_sha256")


class ServiceToken(models.Model):
    """A token of the fleet's own, by its hash; beside those of COACHLIST_SERVICE_TOKENS."""

    name = models.CharField(max_length=100, help_text="Who presents it.")
    token_sha256 = models.CharField("token's SHA-256", max_length=64, unique=True, editable=False)
    # Empty: it may do everything. Otherwise nothing but tell the addresses of these.
    gateways = models.JSONField("only for", default=list, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.name


class _Joined(Aggregate):
    """All values of a text expression in one, separated by commas, in any order."""

    function = "STRING_AGG"
    template = "%(function)s(%(expressions)s, ',')"
    output_field = models.TextField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        """SQLite's name for it."""
        return self.as_sql(compiler, connection, function="GROUP_CONCAT", **extra)


class CompanionQuerySet(models.QuerySet["CompanionProfile"]):
    """Queries on coaches."""

    def of_user(self, user_pk: int) -> CompanionProfile | None:
        """The coach who signs in as this user, with her gateway; None once she is wanted removed or is."""
        here = self.exclude(wanted=Wanted.REMOVED).exclude(status=Status.REMOVED)
        return here.filter(user=user_pk).select_related("gateway").first()

    def due(self) -> CompanionQuerySet:
        """Those the fleet has something to do for."""
        settled = Q()
        for wanted, status in SETTLED.items():
            settled |= Q(wanted=wanted, status=status)
        return self.filter(
            ~settled
            | ~Q(generation=F("observed_generation"))
            | (~Q(key_generation=F("key_wanted_generation")) & ~Q(wanted=Wanted.REMOVED))
        )

    def etag(self) -> str:
        """The entity tag of exactly what the coach list shows of these rows, by one aggregate query.

        It is made from the values themselves and not from a time of change, so an import or a bulk update
        changes it too, and a write that changes nothing visible does not.
        """
        # Rows are digested by the database, so that ten thousand coaches do not travel for a 304.
        row = JSONObject(**{field: F(field) for field in ROW_FIELDS})
        joined: str | None = self.order_by().aggregate(rows=_Joined(MD5(Cast(row, models.TextField()))))[
            "rows"
        ]
        # The order in which a database aggregates is its own affair; sorted, it does not matter.
        digests = sorted((joined or "").split(","))
        return f'"{hashlib.sha256(",".join(digests).encode()).hexdigest()[:40]}"'


class CompanionProfile(models.Model):
    """A coach who should have an agent: people's columns, then the fleet's."""

    # Written by people.
    agent_id = models.CharField(
        max_length=255,
        unique=True,
        validators=[rules.validate_agent_id],
        help_text="For example coach-anna. It cannot be changed later.",
    )
    name = models.CharField(max_length=255, validators=[rules.validate_name])
    vars = models.JSONField(
        "template variables",
        default=dict,
        blank=True,
        validators=[rules.validate_vars],
        help_text='What the workspace templates may use, as a JSON object of plain values: {"tone": "warm"}.',
    )
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="coach",
        verbose_name="user of the chat page",
        help_text="Who signs in as this coach to ask her agent. The fleet does not see it.",
    )
    wanted = models.CharField(max_length=16, choices=Wanted, default=Wanted.RUNNING, editable=False)
    generation = models.PositiveBigIntegerField(
        default=1, editable=False, help_text="Counts what people changed."
    )
    key_wanted_generation = models.PositiveBigIntegerField("wanted key", default=1, editable=False)

    # Written by the fleet.
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING, editable=False)
    status_changed_at = models.DateTimeField(null=True, editable=False)
    observed_generation = models.PositiveBigIntegerField(
        default=0, editable=False, help_text="The last of people's changes that the fleet has carried out."
    )
    reason = models.TextField(blank=True, editable=False)
    gateway = models.ForeignKey(
        Gateway, null=True, blank=True, editable=False, on_delete=models.PROTECT, related_name="coaches"
    )
    key_id = models.CharField(max_length=255, blank=True, editable=False)
    key_sha256 = models.CharField("key's SHA-256", max_length=64, blank=True, editable=False)
    key_generation = models.PositiveBigIntegerField("key", default=0, editable=False)
    # The key before, which is still good for a moment.
    former_key_sha256 = models.CharField(max_length=64, blank=True, editable=False)
    former_key_until = models.DateTimeField(null=True, editable=False)
    key_created_at = models.DateTimeField(null=True, editable=False)
    key_rotated_at = models.DateTimeField(null=True, editable=False)
    key_revoked_at = models.DateTimeField(null=True, editable=False)
    key_last_used_at = models.DateTimeField(null=True, editable=False)

    objects = CompanionQuerySet.as_manager()

    class Meta:
        verbose_name = "coach"
        verbose_name_plural = "coaches"
        ordering = ("pk",)
        indexes = (
            models.Index(fields=["status"], name="coachlist_status"),
            # A presented key is found by its hash; the partial index below would not be used for that.
            models.Index(fields=["key_sha256"], name="coachlist_key_sha256"),
            models.Index(
                fields=["former_key_sha256"],
                condition=~Q(former_key_sha256=""),
                name="coachlist_former_key",
            ),
        )
        constraints = (
            # A key belongs to one coach.
            models.UniqueConstraint(
                fields=["key_sha256"], condition=~Q(key_sha256=Value("")), name="coachlist_one_coach_a_key"
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.agent_id})"

    def clean(self) -> None:
        """A new agent id must not differ from an existing one in case alone."""
        super().clean()
        if self._state.adding:
            other = CompanionProfile.objects.filter(agent_id__iexact=self.agent_id).first()
            if other is not None:
                raise ValidationError(
                    {"agent_id": f"The agent id “{other.agent_id}” is already there. Choose another one."}
                )

    @property
    def due(self) -> str:
        """Why the fleet has something to do for this coach, in a few words; "" if it has not."""
        settled = SETTLED.get(Wanted(self.wanted)) if self.wanted in Wanted.values else None
        if self.status != settled:
            return f"wanted {self.wanted}, is {self.status}"
        if self.generation != self.observed_generation:
            return f"change {self.generation}, carried out {self.observed_generation}"
        if self.key_generation != self.key_wanted_generation and self.wanted != Wanted.REMOVED:
            return f"key {self.key_wanted_generation} wanted, has {self.key_generation}"
        return ""
