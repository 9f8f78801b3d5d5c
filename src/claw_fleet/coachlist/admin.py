# SPDX-License-Identifier: GPL-3.0-or-later
"""The admin: where people say what is wanted, and see what the fleet made of it.

Forms and actions write people's columns alone (`people.py`); what the fleet writes is shown, and never
posted back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from claw_fleet.coachlist import people, rules
from claw_fleet.coachlist.models import (
    CoachingClient,
    CoachingGoal,
    CoachingMilestone,
    CoachingSession,
    CompanionProfile,
    Gateway,
    ServiceToken,
    Status,
    Wanted,
)
from claw_fleet.coachlist.models.fleet import TOKEN_COLUMNS, CompanionQuerySet, GatewayQuerySet

if TYPE_CHECKING:
    CoachForm = forms.ModelForm[CompanionProfile]
    GatewayModelForm = forms.ModelForm[Gateway]
    CoachAdminBase = admin.ModelAdmin[CompanionProfile]
    GatewayAdminBase = admin.ModelAdmin[Gateway]
    ServiceTokenAdminBase = admin.ModelAdmin[ServiceToken]
    ClientAdminBase = admin.ModelAdmin[CoachingClient]
    SessionAdminBase = admin.ModelAdmin[CoachingSession]
    GoalAdminBase = admin.ModelAdmin[CoachingGoal]
    GoalInlineBase = admin.TabularInline[CoachingGoal, CoachingClient]
    MilestoneInlineBase = admin.TabularInline[CoachingMilestone, CoachingGoal]
else:
    CoachForm = GatewayModelForm = forms.ModelForm
    CoachAdminBase = GatewayAdminBase = ServiceTokenAdminBase = admin.ModelAdmin
    ClientAdminBase = SessionAdminBase = GoalAdminBase = admin.ModelAdmin
    GoalInlineBase = MilestoneInlineBase = admin.TabularInline


def _badge(kind: str, text: str) -> SafeString:
    """A word on a colour; the word alone says it all."""
    return format_html('<span class="coachlist-badge coachlist-{}">{}</span>', kind, text)


class CoachAdminForm(CoachForm):
    """People's columns that are typed in. What changed is told against what the form was opened with."""

    class Meta:
        model = CompanionProfile
        fields = ("agent_id", "name", "vars")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in people.EDITABLE & self.fields.keys():
            # Saving one field must not carry back the others as they were when the form was opened.
            self.fields[name].show_hidden_initial = not self.instance._state.adding


class DueFilter(admin.SimpleListFilter):
    """Whether the fleet has something to do."""

    title = "due"
    parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Two choices."""
        return [("yes", "due"), ("no", "settled")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The chosen ones."""
        if self.value() not in {"yes", "no"}:
            return queryset
        due = CompanionProfile.objects.due().values("pk")
        return queryset.filter(pk__in=due) if self.value() == "yes" else queryset.exclude(pk__in=due)


@admin.register(CompanionProfile)
class CompanionProfileAdmin(CoachAdminBase):
    """Coaches."""

    form = CoachAdminForm
    list_display = ("agent_id", "name", "wanted_badge", "status_badge", "due_text", "gateway", "reason_short")
    list_filter = (DueFilter, "status", "wanted", "gateway")
    list_select_related = ("gateway",)
    search_fields = ("agent_id", "name", "key_id")
    list_per_page = 100
    ordering = ("agent_id",)
    actions = ("provision", "pause", "resume", "remove", "rotate_key")

    class Media:
        css: ClassVar = {"all": ("coachlist/admin.css",)}

    @admin.display(description="wanted", ordering="wanted")
    def wanted_badge(self, coach: CompanionProfile) -> SafeString:
        """What people want."""
        return _badge(f"wanted-{coach.wanted}", coach.wanted)

    @admin.display(description="status", ordering="status")
    def status_badge(self, coach: CompanionProfile) -> SafeString:
        """What the fleet made of it."""
        return _badge(coach.status, coach.status)

    @admin.display(description="due")
    def due_text(self, coach: CompanionProfile) -> str | SafeString:
        """What the fleet has to do."""
        return _badge("due", f"due: {coach.due}") if coach.due else "settled"

    @admin.display(description="reason")
    def reason_short(self, coach: CompanionProfile) -> str:
        """The beginning of the reason."""
        return coach.reason if len(coach.reason) <= 120 else f"{coach.reason[:120]}…"

    @admin.display(description="key")
    def key_text(self, coach: CompanionProfile) -> str:
        """Which key is registered."""
        if coach.key_sha256:
            return f"{coach.key_id or 'without id'}, SHA-256 {coach.key_sha256[:12]}…"
        return "revoked" if coach.key_revoked_at else "none yet"

    def get_fieldsets(self, request: HttpRequest, obj: CompanionProfile | None = None) -> Any:
        """People's part, then the fleet's."""
        typed = (None, {"fields": ("agent_id", "name", "vars")})
        if obj is None:
            return (typed,)
        wanted = (
            "Wanted",
            {
                "fields": ("wanted_badge", "generation", "key_wanted_generation"),
                "description": "Changed by the list's actions: Provision, Pause, Resume, Remove, Rotate key.",
            },
        )
        made = (
            "What the fleet made of it",
            {
                "fields": (
                    "status_badge",
                    "reason",
                    "due_text",
                    "observed_generation",
                    "gateway",
                    "status_changed_at",
                )
            },
        )
        key = (
            "Key",
            {
                "fields": (
                    "key_text",
                    "key_generation",
                    "key_created_at",
                    "key_rotated_at",
                    "key_revoked_at",
                    "key_last_used_at",
                )
            },
        )
        return (typed, wanted, made, key)

    def get_readonly_fields(self, request: HttpRequest, obj: CompanionProfile | None = None) -> Any:
        """Everything but the name and the variables, once the coach is there."""
        if obj is None:
            return ()
        return tuple(
            field
            for _, options in self.get_fieldsets(request, obj)
            for field in options["fields"]
            if field not in people.EDITABLE
        )

    def save_model(self, request: HttpRequest, obj: CompanionProfile, form: Any, change: bool) -> None:
        """Insert a whole row; of a row that is there, write only what was changed in the form."""
        if not change:
            obj.save(force_insert=True)
            return
        people.edit(obj.pk, **{field: form.cleaned_data[field] for field in form.changed_data})

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Without the bulk deletion: it would leave agents behind that nobody knows of."""
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def has_delete_permission(self, request: HttpRequest, obj: CompanionProfile | None = None) -> bool:
        """A row can go once the fleet has removed the agent; before, the Remove action is the way."""
        if obj is not None and (obj.wanted != Wanted.REMOVED or obj.status != Status.REMOVED):
            return False
        return super().has_delete_permission(request, obj)

    def _act(
        self,
        request: HttpRequest,
        coaches: QuerySet[CompanionProfile],
        act: Callable[[CompanionQuerySet], int],
        done: str,
        left: str,
    ) -> None:
        """Do it, log who did, and say how many it was and how many were left as they were."""
        # By primary key: the action may change what the list was filtered by.
        chosen = CompanionProfile.objects.filter(pk__in=list(coaches.values_list("pk", flat=True)))
        total = chosen.count()
        if not request.user.is_authenticated:
            return
        LogEntry.objects.log_actions(request.user.pk, chosen, CHANGE, f"Action: {act.__name__}")
        count = act(chosen)
        if count:
            self.message_user(request, f"{_coaches(count)} {done}.", messages.SUCCESS)
        if count < total:
            self.message_user(request, f"{_coaches(total - count)} left unchanged: {left}.", messages.WARNING)

    @admin.action(description="Provision: wanted running, and the fleet acts again", permissions=["change"])
    def provision(self, request: HttpRequest, coaches: QuerySet[CompanionProfile]) -> None:
        """Also from error or removed."""
        self._act(request, coaches, people.provision, "queued: the fleet's next run provisions", "deleted")

    @admin.action(description="Pause", permissions=["change"])
    def pause(self, request: HttpRequest, coaches: QuerySet[CompanionProfile]) -> None:
        """Those wanted running."""
        self._act(
            request,
            coaches,
            people.pause,
            "wanted paused: asking them is refused from now on, and the fleet's next run stops the agent",
            "only coaches wanted running can be paused",
        )

    @admin.action(description="Resume", permissions=["change"])
    def resume(self, request: HttpRequest, coaches: QuerySet[CompanionProfile]) -> None:
        """Those wanted paused."""
        self._act(
            request,
            coaches,
            people.resume,
            "wanted running: the fleet's next run resumes",
            "only coaches wanted paused can be resumed; use Provision for others",
        )

    @admin.action(description="Remove the agent", permissions=["change"])
    def remove(self, request: HttpRequest, coaches: QuerySet[CompanionProfile]) -> None:
        """Those not yet wanted removed."""
        self._act(
            request,
            coaches,
            people.remove,
            "wanted removed: keys are refused from now on, and the fleet's next run sets the agent aside",
            "they are wanted removed already",
        )

    @admin.action(description="Rotate key", permissions=["change"])
    def rotate_key(self, request: HttpRequest, coaches: QuerySet[CompanionProfile]) -> None:
        """Those not wanted removed."""
        self._act(
            request,
            coaches,
            people.rotate_key,
            "to get a new key: the old one works until the fleet's next run has put the new one in place",
            "a coach wanted removed gets no new key",
        )


def _coaches(count: int) -> str:
    return "1 coach" if count == 1 else f"{count} coaches"


class GatewayForm(GatewayModelForm):
    """A gateway, with a place to type a new token that is never filled in."""

    new_token = forms.CharField(
        required=False,
        strip=False,
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "off"}),
        validators=[rules.validate_gateway_token],
        help_text="Leave it empty to keep the token that is stored. It is encrypted, and never shown.",
    )

    class Meta:
        model = Gateway
        fields = ("name", "url", "capacity")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in {"url", "capacity"} & self.fields.keys():
            # The fleet sets these too, also while this form is open.
            self.fields[name].show_hidden_initial = not self.instance._state.adding

    def clean_url(self) -> str:
        """The address without a slash at its end, as the API stores it."""
        url: str = self.cleaned_data["url"]
        return url.rstrip("/")


@admin.register(Gateway)
class GatewayAdmin(GatewayAdminBase):
    """Gateways."""

    form = GatewayForm
    list_display = ("name", "url", "used_of_capacity", "has_token", "url_set_at")
    search_fields = ("name", "url")

    def get_queryset(self, request: HttpRequest) -> GatewayQuerySet:
        """With the number of coaches each holds."""
        return Gateway.objects.with_used()

    @admin.display(description="coaches")
    def used_of_capacity(self, gateway: Gateway) -> str:
        """Held, and how many could be."""
        used = getattr(gateway, "used", 0)
        return f"{used} of {gateway.capacity}" + (" (full)" if used >= gateway.capacity else "")

    @admin.display(description="token", boolean=True)
    def has_token(self, gateway: Gateway) -> bool:
        """Whether one is stored."""
        return bool(gateway.token_encrypted)

    def get_fields(self, request: HttpRequest, obj: Gateway | None = None) -> Any:
        """What is typed in; for one that is there, also what is known."""
        typed = ("name", "url", "capacity", "new_token")
        return typed if obj is None else (*typed, "used_of_capacity", "url_set_at", "token_sha256")

    def get_readonly_fields(self, request: HttpRequest, obj: Gateway | None = None) -> Any:
        """The name is what everything refers to."""
        return () if obj is None else ("name", "used_of_capacity", "url_set_at", "token_sha256")

    def save_model(self, request: HttpRequest, obj: Gateway, form: Any, change: bool) -> None:
        """Write what was changed in the form; the fleet writes the same row."""
        stored = (Gateway.objects.filter(pk=obj.pk).first() if change else None) or Gateway(name=obj.name)
        columns: list[str] = []
        if "url" in form.changed_data and stored.set_url(obj.url):
            columns += ["url", "url_set_at"]
        if form.cleaned_data["new_token"] and stored.set_token(form.cleaned_data["new_token"]):
            columns += TOKEN_COLUMNS
        if "capacity" in form.changed_data:
            stored.capacity = obj.capacity
            columns.append("capacity")
        if change:
            stored.save(update_fields=columns)
        else:
            stored.save(force_insert=True)


@admin.register(ServiceToken)
class ServiceTokenAdmin(ServiceTokenAdminBase):
    """The fleet's registered tokens: to look at, and to revoke where the fleet cannot."""

    list_display = ("name", "token_sha256", "created_at", "last_used_at", "revoked_at")
    fields = list_display
    readonly_fields = list_display
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """The fleet registers its own."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ServiceToken | None = None) -> bool:
        """A revoked one is kept, so that it cannot come back."""
        return False

    @admin.action(description="Revoke", permissions=["change"])
    def revoke(self, request: HttpRequest, tokens: QuerySet[ServiceToken]) -> None:
        """Those not revoked yet."""
        chosen = tokens.filter(revoked_at=None)
        if not request.user.is_authenticated:
            return
        LogEntry.objects.log_actions(request.user.pk, chosen, CHANGE, "Action: revoke")
        count = chosen.update(revoked_at=timezone.now())
        self.message_user(request, f"{count} revoked, and refused from now on.", messages.SUCCESS)


class GoalInline(GoalInlineBase):
    """A client's goals."""

    model = CoachingGoal
    extra = 0


class MilestoneInline(MilestoneInlineBase):
    """A goal's milestones."""

    model = CoachingMilestone
    extra = 0


@admin.register(CoachingClient)
class CoachingClientAdmin(ClientAdminBase):
    """Clients."""

    list_display = ("name", "email", "coach", "has_consented", "total_sessions")
    list_filter = ("has_consented",)
    list_select_related = ("coach",)
    search_fields = ("name", "email", "coach__agent_id", "coach__name")
    autocomplete_fields = ("coach",)
    inlines = (GoalInline,)


@admin.register(CoachingSession)
class CoachingSessionAdmin(SessionAdminBase):
    """Sessions."""

    list_display = ("title", "client", "date", "session_type")
    list_filter = ("session_type",)
    list_select_related = ("client",)
    search_fields = ("title", "client__name")
    autocomplete_fields = ("client",)
    date_hierarchy = "date"


@admin.register(CoachingGoal)
class CoachingGoalAdmin(GoalAdminBase):
    """Goals."""

    list_display = ("title", "client", "status")
    list_filter = ("status",)
    list_select_related = ("client",)
    search_fields = ("title", "client__name")
    autocomplete_fields = ("client",)
    inlines = (MilestoneInline,)
