# SPDX-License-Identifier: GPL-3.0-or-later
"""Gateways, and the tokens of the fleet's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from claw_fleet.coachlist import rules
from claw_fleet.coachlist.admin.badges import BadgeMedia, badge, beginning
from claw_fleet.coachlist.models import Gateway, ServiceToken
from claw_fleet.coachlist.models.fleet import TOKEN_COLUMNS, URL_COLUMNS, GatewayQuerySet

if TYPE_CHECKING:
    GatewayModelForm = forms.ModelForm[Gateway]
    GatewayAdminBase = admin.ModelAdmin[Gateway]
    ServiceTokenAdminBase = admin.ModelAdmin[ServiceToken]
else:
    GatewayModelForm = forms.ModelForm
    GatewayAdminBase = ServiceTokenAdminBase = admin.ModelAdmin


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
    # Shown of a gateway that is there.
    known = ("url_set_at", "probe_badge", "probe_error", "probed_at", "used_of_capacity", "token_sha256")
    list_display = ("name", "url", "url_set_at", "probe_badge", "probed_at", "used_of_capacity", "has_token")
    search_fields = ("name", "url")

    class Media(BadgeMedia):
        """Badges."""

    def get_queryset(self, request: HttpRequest) -> GatewayQuerySet:
        """With the number of coaches each holds."""
        return Gateway.objects.with_used()

    @admin.display(description="coaches")
    def used_of_capacity(self, gateway: Gateway) -> str:
        """Held, and how many could be."""
        used = getattr(gateway, "used", 0)
        return f"{used} of {gateway.capacity}" + (" (full)" if used >= gateway.capacity else "")

    @admin.display(description="last probe", ordering="probe_error")
    def probe_badge(self, gateway: Gateway) -> str | SafeString:
        """What was found when it was last asked at this address."""
        if gateway.probed_at is None:
            return "not probed yet"
        if gateway.probe_error:
            return badge("error", beginning(gateway.probe_error))
        return badge("active", "answers")

    @admin.display(description="token", boolean=True)
    def has_token(self, gateway: Gateway) -> bool:
        """Whether one is stored."""
        return bool(gateway.token_encrypted)

    def get_fields(self, request: HttpRequest, obj: Gateway | None = None) -> Any:
        """What is typed in; for one that is there, also what is known."""
        typed = ("name", "url", "capacity", "new_token")
        return typed if obj is None else (*typed, *self.known)

    def get_readonly_fields(self, request: HttpRequest, obj: Gateway | None = None) -> Any:
        """The name is what everything refers to."""
        return () if obj is None else ("name", *self.known)

    def save_model(self, request: HttpRequest, obj: Gateway, form: Any, change: bool) -> None:
        """Write what was changed in the form; the fleet writes the same row."""
        stored = (Gateway.objects.filter(pk=obj.pk).first() if change else None) or Gateway(name=obj.name)
        columns: list[str] = []
        if "url" in form.changed_data and stored.set_url(obj.url):
            columns += URL_COLUMNS
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

    list_display = ("name", "only_for", "token_sha256", "created_at", "last_used_at", "revoked_at")
    fields = list_display
    readonly_fields = list_display
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """The fleet registers its own."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ServiceToken | None = None) -> bool:
        """A revoked one is kept, so that it cannot come back."""
        return False

    @admin.display(description="may do")
    def only_for(self, token: ServiceToken) -> str:
        """Everything, or tell the addresses of some gateways."""
        return f"tell the address of {', '.join(token.gateways)}" if token.gateways else "everything"

    @admin.action(description="Revoke", permissions=["change"])
    def revoke(self, request: HttpRequest, tokens: QuerySet[ServiceToken]) -> None:
        """Those not revoked yet."""
        chosen = tokens.filter(revoked_at=None)
        if not request.user.is_authenticated:
            return
        LogEntry.objects.log_actions(request.user.pk, chosen, CHANGE, "Action: revoke")
        count = chosen.update(revoked_at=timezone.now())
        self.message_user(request, f"{count} revoked, and refused from now on.", messages.SUCCESS)
