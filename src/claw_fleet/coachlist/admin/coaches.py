# SPDX-License-Identifier: GPL-3.0-or-later
"""Coaches: what people want of them, and what the fleet made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from claw_fleet.coachlist import people
from claw_fleet.coachlist.admin.badges import BadgeMedia, badge, beginning
from claw_fleet.coachlist.models import CompanionProfile, Status, Wanted
from claw_fleet.coachlist.models.fleet import CompanionQuerySet

if TYPE_CHECKING:
    CoachForm = forms.ModelForm[CompanionProfile]
    CoachAdminBase = admin.ModelAdmin[CompanionProfile]
else:
    CoachForm = forms.ModelForm
    CoachAdminBase = admin.ModelAdmin


# What is typed into the form of a coach who is there.
TYPED = people.EDITABLE | {"user"}


class CoachAdminForm(CoachForm):
    """People's columns that are typed in. What changed is told against what the form was opened with."""

    class Meta:
        model = CompanionProfile
        fields = ("agent_id", "name", "vars", "user")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in TYPED & self.fields.keys():
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
    raw_id_fields = ("user",)
    list_per_page = 100
    ordering = ("agent_id",)
    actions = ("provision", "pause", "resume", "remove", "rotate_key")

    class Media(BadgeMedia):
        """Badges."""

    @admin.display(description="wanted", ordering="wanted")
    def wanted_badge(self, coach: CompanionProfile) -> SafeString:
        """What people want."""
        return badge(f"wanted-{coach.wanted}", coach.wanted)

    @admin.display(description="status", ordering="status")
    def status_badge(self, coach: CompanionProfile) -> SafeString:
        """What the fleet made of it."""
        return badge(coach.status, coach.status)

    @admin.display(description="due")
    def due_text(self, coach: CompanionProfile) -> str | SafeString:
        """What the fleet has to do."""
        return badge("due", f"due: {coach.due}") if coach.due else "settled"

    @admin.display(description="reason")
    def reason_short(self, coach: CompanionProfile) -> str:
        """The beginning of the reason."""
        return beginning(coach.reason)

    @admin.display(description="key")
    def key_text(self, coach: CompanionProfile) -> str:
        """Which key is registered."""
        if coach.key_sha256:
            return f"{coach.key_id or 'without id'}, SHA-256 {coach.key_sha256[:12]}…"
        return "revoked" if coach.key_revoked_at else "none yet"

    def get_fieldsets(self, request: HttpRequest, obj: CompanionProfile | None = None) -> Any:
        """People's part, then the fleet's."""
        typed = (None, {"fields": ("agent_id", "name", "vars", "user")})
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
        """Everything but what is typed in, once the coach is there."""
        if obj is None:
            return ()
        return tuple(
            field
            for _, options in self.get_fieldsets(request, obj)
            for field in options["fields"]
            if field not in TYPED
        )

    def save_model(self, request: HttpRequest, obj: CompanionProfile, form: Any, change: bool) -> None:
        """Insert a whole row; of a row that is there, write only what was changed in the form."""
        if not change:
            obj.save(force_insert=True)
            return
        changed = {field: form.cleaned_data[field] for field in form.changed_data}
        if "user" in changed:
            user = changed.pop("user")
            people.let_in(obj.pk, user and user.pk)
        people.edit(obj.pk, **changed)

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
