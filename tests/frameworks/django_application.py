"""The contract on Django, by its own ``get_asgi_application``; without lifespan and background task."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import django
from contract import ENDLESS_PAUSE_S, GREETING, LARGE_BYTES, LINES, Books, facts_of, file_path
from django.conf import settings
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import path, re_path, reverse

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    DEBUG=False,
    LOGGING_CONFIG=None,
    MIDDLEWARE=["headrace.django.RouteMiddleware", "django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="not a secret",
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402

books = Books()


async def document(request: HttpRequest) -> HttpResponse:
    return JsonResponse(GREETING if request.method != "POST" else json.loads(request.body))


def form(request: HttpRequest) -> HttpResponse:
    # Not async: Django runs it in a thread.
    return JsonResponse(request.POST.dict())


async def upload(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    return JsonResponse({"name": file.name, "note": request.POST["note"], **facts_of(file.read())})


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[str]:
        for line in LINES:
            yield line
            await asyncio.sleep(0)

    return StreamingHttpResponse(lines())


async def events(request: HttpRequest) -> StreamingHttpResponse:
    async def numbers() -> AsyncIterator[str]:
        for number in range(3):
            yield f"data: {number}\n\n"

    return StreamingHttpResponse(numbers(), content_type="text/event-stream")


async def endless(request: HttpRequest) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[str]:
        try:
            while True:
                yield "again\n"
                await asyncio.sleep(ENDLESS_PAUSE_S)
        finally:
            books.left += 1

    return StreamingHttpResponse(lines())


async def show_books(request: HttpRequest) -> HttpResponse:
    return JsonResponse(books.as_dict())


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(open(file_path(), "rb"))


async def redirect(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect(reverse("document"))


async def fail(request: HttpRequest) -> HttpResponse:
    raise LookupError("on purpose")


async def show_path(request: Any) -> HttpResponse:
    return JsonResponse(
        {"path": request.scope["path"], "raw_path": request.scope["raw_path"].decode("ascii")}
    )


async def body(request: HttpRequest) -> HttpResponse:
    return JsonResponse(facts_of(request.body))


async def large(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"x" * LARGE_BYTES)


urlpatterns = [
    path("json", document, name="document"),
    path("form", form),
    path("upload", upload),
    path("stream", stream),
    path("events", events),
    path("endless", endless),
    path("books", show_books),
    path("file", file),
    path("redirect", redirect),
    path("error", fail),
    re_path("^path/", show_path),
    path("body", body),
    path("large", large),
]

app = get_asgi_application()
