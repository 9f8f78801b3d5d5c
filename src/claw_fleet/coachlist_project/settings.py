# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings from the environment.

| variable                   | meaning                                                                   |
|----------------------------|---------------------------------------------------------------------------|
| COACHLIST_SECRET_KEY       | Django's secret key; required                                             |
| COACHLIST_ENCRYPTION_KEYS  | Fernet keys with commas between; the first encrypts; required             |
| COACHLIST_SERVICE_TOKENS   | tokens of the fleet with commas between; several while rotating           |
| COACHLIST_ADDRESS_HOSTS    | hosts that machines may tell as gateways' addresses, as in `conf.py`      |
| COACHLIST_GATEWAY_HEADERS  | headers for what stands before gateways, a JSON object: {"name": "value"} |
| DATABASE_URL               | default: sqlite:///coachlist.sqlite3, in the working directory            |
| COACHLIST_ALLOWED_HOSTS    | host names with commas between; default: localhost,127.0.0.1,[::1]        |
| COACHLIST_CSRF_ORIGINS     | origins the admin is used from behind a proxy: https://…, commas between  |
| COACHLIST_PLAIN_HTTP       | 1: the admin also works over plain HTTP, where its cookies can be read    |
| COACHLIST_HTTPS_REDIRECT   | 1: everything but /healthz is redirected to HTTPS                         |
| COACHLIST_HSTS_SECONDS     | how long browsers insist on HTTPS; default 0                              |
| COACHLIST_PROXY_HTTPS      | 1: a proxy in front always sets X-Forwarded-Proto, and it is believed     |
| COACHLIST_ASK_*            | RATE, CONNECT_TIMEOUT, READ_TIMEOUT, KEEPALIVE: as in the app's `conf.py` |
| COACHLIST_LOG_LEVEL        | default INFO                                                              |
| COACHLIST_DEBUG            | 1: Django's debug pages, and keys nobody should rely on                   |

Importing this module never fails; `startup.require()` refuses to start what is not configured.
"""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import dj_database_url

from claw_fleet.coachlist import conf
from claw_fleet.coachlist.schema import COACH


def _list(name: str, default: str = "") -> list[str]:
    return [item.strip() for item in os.environ.get(name, default).split(",") if item.strip()]


def _json(name: str, default: str) -> Any:
    """What stands there, or None where that is no JSON: a check says so, without what stands there."""
    try:
        return json.loads(os.environ.get(name) or default)
    except ValueError:
        return None


def _on(name: str) -> bool:
    return os.environ.get(name, "") == "1"


DEBUG = _on("COACHLIST_DEBUG")

SECRET_KEY = os.environ.get("COACHLIST_SECRET_KEY", "")
COACHLIST_ENCRYPTION_KEYS = _list("COACHLIST_ENCRYPTION_KEYS")
COACHLIST_SERVICE_TOKENS = _list("COACHLIST_SERVICE_TOKENS")
COACHLIST_ADDRESS_HOSTS = _list("COACHLIST_ADDRESS_HOSTS")
COACHLIST_GATEWAY_HEADERS = _json("COACHLIST_GATEWAY_HEADERS", "{}")
COACHLIST_ASK_RATE = os.environ.get("COACHLIST_ASK_RATE", conf.ASK_RATE)
COACHLIST_ASK_CONNECT_TIMEOUT = os.environ.get("COACHLIST_ASK_CONNECT_TIMEOUT") or conf.ASK_CONNECT_TIMEOUT
COACHLIST_ASK_READ_TIMEOUT = os.environ.get("COACHLIST_ASK_READ_TIMEOUT") or conf.ASK_READ_TIMEOUT
COACHLIST_ASK_KEEPALIVE = os.environ.get("COACHLIST_ASK_KEEPALIVE") or conf.ASK_KEEPALIVE

if DEBUG:
    # The same at each start, so that a development database stays readable. They protect nothing.
    SECRET_KEY = SECRET_KEY or "for development alone " * 3
    COACHLIST_ENCRYPTION_KEYS = COACHLIST_ENCRYPTION_KEYS or [
        base64.urlsafe_b64encode(b"for development alone".ljust(32)).decode()
    ]

ALLOWED_HOSTS = _list("COACHLIST_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = _list("COACHLIST_CSRF_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "claw_fleet.coachlist",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "claw_fleet.coachlist_project.urls"
WSGI_APPLICATION = "claw_fleet.coachlist_project.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def database(url: str) -> dict[str, Any]:
    """Django's description of the database at a URL."""
    described: dict[str, Any] = dict(dj_database_url.parse(url, conn_health_checks=True))
    if described["ENGINE"] == "django.db.backends.sqlite3":
        described["OPTIONS"] = {
            # A transaction takes the write lock when it begins. Taken later, SQLite would refuse it at once,
            # without waiting, if somebody else has written in between.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            # Readers do not wait for a writer.
            "init_command": "PRAGMA journal_mode=WAL;",
        }
    return described


DATABASES = {"default": database(os.environ.get("DATABASE_URL") or "sqlite:///coachlist.sqlite3")}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
# Served from where the packages have them: there is no collectstatic to forget.
WHITENOISE_USE_FINDERS = True
WHITENOISE_MAX_AGE = 3600

SESSION_COOKIE_SECURE = not (DEBUG or _on("COACHLIST_PLAIN_HTTP"))
SESSION_COOKIE_HTTPONLY = True
CSRF_COOKIE_SECURE = SESSION_COOKIE_SECURE
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SECURE_SSL_REDIRECT = _on("COACHLIST_HTTPS_REDIRECT")
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]
SECURE_HSTS_SECONDS = int(os.environ.get("COACHLIST_HSTS_SECONDS") or 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_SECONDS > 0
# Whether browsers are shipped with this host in their lists is for its owner to decide and to apply for.
SILENCED_SYSTEM_CHECKS = ["security.W021"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _on("COACHLIST_PROXY_HTTPS") else None
# Ids in the admin's own paths are numbers; everything else is small JSON.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_500_000

REST_FRAMEWORK = {
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "SCHEMA_COERCE_PATH_PK": False,  # the documents call a path's parts what the code calls them
}
SPECTACULAR_SETTINGS = COACH

_LEVEL = os.environ.get("COACHLIST_LOG_LEVEL") or "INFO"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": _LEVEL},
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        # They would log every address asked, at best noise.
        "httpx": {"level": "WARNING"},
        "httpcore": {"level": "WARNING"},
    },
}
