"""Every way to a route in Django, and the template that each must have."""

from __future__ import annotations

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import include, path, re_path
from labelled import Case, Labelled

settings.configure(
    ALLOWED_HOSTS=["*"],
    DEBUG=False,
    LOGGING_CONFIG=None,
    MIDDLEWARE=["headrace.django.RouteMiddleware", "django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="not a secret",
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402


async def answer(request: HttpRequest, **arguments: object) -> HttpResponse:
    return HttpResponse("answer")


def answer_in_thread(request: HttpRequest, **arguments: object) -> HttpResponse:
    return HttpResponse("answer")


async def fail(request: HttpRequest, **arguments: object) -> HttpResponse:
    raise LookupError("on purpose")


urlpatterns = [
    path("", answer),
    path("items/<int:item_id>/", answer),
    path("sync/<uid>", answer_in_thread),
    path("fail/<uid>", fail),
    re_path(r"^old/(?P<year>[^/]+)/$", answer),
    path("api/<org>/", include([path("u/<uid>", answer), re_path(r"^re/\d+$", answer)])),
]
inner = get_asgi_application()

CASES: list[Case] = [
    ("GET", "/", "/"),
    ("GET", "/items/7/", "/items/<int:item_id>/"),
    ("GET", "/items/seven/", None),
    ("GET", "/sync/x", "/sync/<uid>"),
    ("GET", "/fail/x", "/fail/<uid>"),
    ("GET", "/old/1999/", "/old/(?P<year>[^/]+)/"),
    ("GET", "/api/u/u/u", "/api/<org>/u/<uid>"),
    ("GET", "/api/u/re/7", r"/api/<org>/re/\d+"),
    ("GET", "/nowhere", None),
]

app = Labelled(inner, CASES)
