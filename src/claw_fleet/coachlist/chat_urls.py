# SPDX-License-Identifier: GPL-3.0-or-later
"""The paths of the chat page, to be included under a prefix such as chat/."""

from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path, reverse_lazy

from claw_fleet.coachlist import chat

app_name = "coachlist_chat"

_login = LoginView.as_view(
    template_name="coachlist/chat_login.html", next_page=reverse_lazy("coachlist_chat:page")
)

urlpatterns = [
    path("", chat.page, name="page"),
    path("ask/", chat.ChatAsk.as_view(), name="ask"),
    path("login/", chat.self_contained(_login), name="login"),
    path("logout/", LogoutView.as_view(next_page=reverse_lazy("coachlist_chat:login")), name="logout"),
]
