"""A small shop. SHOP_DATABASE is a file of SQLite, or a URL of PostgreSQL; what else it has is in SHOP_FOLDER."""

from __future__ import annotations

import os
import sys
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import django

if os.environ.get("SHOP_DRIVER") == "psycopg2":
    sys.modules["psycopg"] = None  # type: ignore[assignment]  # Django takes it where it finds no psycopg 3

_where = os.environ["SHOP_DATABASE"]
_url = urlsplit(_where)
DATABASES: dict[str, dict[str, Any]]
if _where.startswith("postgres"):
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _url.path.lstrip("/"),
            "HOST": unquote(_url.hostname or dict(parse_qsl(_url.query)).get("host", "")),
            "PORT": str(_url.port or ""),
            "USER": unquote(_url.username or ""),
            "PASSWORD": unquote(_url.password or ""),
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": _where,
            "OPTIONS": {"transaction_mode": "IMMEDIATE"},
            "TEST": {"NAME": f"{_where}.test"},
        }
    }

DATABASES["other"] = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": f"{os.environ['SHOP_FOLDER']}/other.db",
    "OPTIONS": {"transaction_mode": "IMMEDIATE"},
    "TEST": {"NAME": f"{os.environ['SHOP_FOLDER']}/other.test.db"},
}
SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
ROOT_URLCONF = "shop.urls"
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DEFAULT_FROM_EMAIL = "The Shop <shop@example.com>"
SERVER_EMAIL = "shop@example.com"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "shop",
    "outbox.doors.django",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
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
if django.VERSION >= (6, 1):
    MAILERS = {
        "default": {"BACKEND": "outbox.doors.django.EmailBackend"},
        "bulk": {"BACKEND": "outbox.doors.django.EmailBackend", "OPTIONS": {"priority": 9, "tag": "news"}},
    }
else:
    EMAIL_BACKEND = "outbox.doors.django.EmailBackend"
