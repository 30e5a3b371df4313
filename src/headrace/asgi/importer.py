"""Find the application, import it, and make one ASGI 3 callable of it.

``find_application`` takes ``module:attribute``, a module, a file, a folder, or nothing at all, and gives
the object there; ``load_application`` calls factories and wraps older conventions.

Whose fault an error is decides its shape. A name that leads nowhere is a plain ``ConfigError``, one
sentence. An exception inside the application's own code is an ``ApplicationImportError`` whose
``__cause__`` is that exception, its traceback cut to begin in the application's code.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from headrace.errors import ApplicationImportError, ConfigError

FILES = ("main.py", "app.py", "api.py", "app/main.py", "app/app.py", "app/api.py")
ATTRIBUTES = ("app", "api", "application")
FACTORIES = ("create_app", "make_app")

# Routers and mounts answer ASGI too, but stand inside an application.
_PART_OF_APPLICATION = ("Router", "Route", "Mount", "Host", "StaticFiles", "Middleware")

_logger = logging.getLogger("uvicorn.error")


@dataclass(frozen=True, slots=True)
class FoundApplication:
    """The object a name leads to.

    Attributes:
        name: ``module:attribute``, or the type of an object that was passed in.
        target: an application, or a callable that makes one.
        is_factory: it was found under a factory's name, so it is called without being asked.
    """

    name: str
    target: Any
    is_factory: bool = False


def find_application(name: Any = None, app_dir: str = "") -> FoundApplication:
    """Find the application and import its module.

    Args:
        name: ``module:attribute[.attribute]``, a module, a file (``src/main.py``, ``src/main.py:app``), a
            folder, ``None`` to look where ``fastapi run`` does, or the application itself.
        app_dir: folder put first on ``sys.path``; empty is the current one.

    Raises:
        ConfigError: the name leads nowhere; one sentence that says what was looked for.
        ApplicationImportError: the module raised while it was imported.
    """
    if name is not None and not isinstance(name, str | os.PathLike):
        return FoundApplication(type(name).__qualname__, name)
    folder = Path(app_dir or ".").absolute()
    if not folder.is_dir():
        raise ConfigError(f"The folder {app_dir!r} of --app-dir does not exist.")
    _put_first_on_path(folder)
    if name is None:
        return _find_in_file(_first_file(folder, FILES, app_dir or "the current folder"), "")
    place, attribute = _split_name(os.fspath(name))
    path = _as_path(place, attribute, folder)
    if path is None:
        return _find_in_module(_import_module(place), attribute)
    if path.is_dir():
        path = _first_file(path, (*FILES, "__init__.py"), place)
    return _find_in_file(path, attribute)


def load_application(
    found: FoundApplication, factory: bool = False, interface: str = "auto"
) -> Callable[..., Any]:
    """Make the ASGI 3 callable of what was found.

    Args:
        found: what ``find_application`` returned.
        factory: call it without arguments first. A callable that cannot be anything but a factory is
            called without this too, with a warning, as uvicorn does.
        interface: "auto", "asgi3" or "asgi2".

    Raises:
        ConfigError: it is no ASGI application.
        ApplicationImportError: the factory raised.
    """
    app = found.target
    if factory or found.is_factory:
        app = _call_factory(found)
    elif _is_undeclared_factory(app):
        app = _call_factory(found)
        _logger.warning(
            "ASGI app factory detected. Using it, but please consider setting the --factory flag explicitly."
        )
    if not callable(app) or isinstance(app, ModuleType):
        raise ConfigError(f"{found.name} is of type {type(app).__name__}, not an ASGI application.")
    if interface == "wsgi" or (interface == "auto" and _is_wsgi(app)):
        raise ConfigError(f"{found.name} is a WSGI application, which this release does not host yet.")
    if interface == "asgi2" or (interface == "auto" and not _is_asgi3(app)):
        return _SingleCallable(app)
    asgi3: Callable[..., Any] = app
    return asgi3


def detect_interface(app: Any) -> str:
    """The name of the convention a callable from ``load_application`` was written for."""
    return "asgi2" if isinstance(app, _SingleCallable) else "asgi3"


class _SingleCallable:
    """An ASGI 2 application, ``app(scope)(receive, send)``, as an ASGI 3 one."""

    __slots__ = ("_app",)

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope)(receive, send)


# ---- from a name to a module


def _split_name(name: str) -> tuple[str, str]:
    """``place:attribute`` in two; a Windows drive's colon separates nothing."""
    place, colon, attribute = name.rpartition(":")
    if not colon or "/" in attribute or "\\" in attribute:
        return name, ""
    if not place or not attribute:
        raise ConfigError(f"The application {name!r} must be module:attribute, a file or a folder.")
    return place, attribute


def _as_path(place: str, attribute: str, folder: Path) -> Path | None:
    """The file or folder that the place names, or ``None`` if it is a module."""
    looks_like_path = place.endswith(".py") or "/" in place or os.sep in place or place in (".", "..")
    candidates = (Path(place).absolute(), folder / place)
    if looks_like_path:
        for path in candidates:
            if path.exists():
                return path
        raise ConfigError(f"There is no file or folder {place!r} that holds an application.")
    if attribute:
        return None
    return next((path for path in candidates if path.is_dir()), None)


def _first_file(folder: Path, names: Iterable[str], called: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"No application found in {called}: none of {', '.join(names)} is there; name it as module:attribute."
    )


def _find_in_file(path: Path, attribute: str) -> FoundApplication:
    """Import a file as the module it is in its package, so that its relative imports work."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    root = path.resolve().parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    _put_first_on_path(root)
    module = _import_module(".".join(parts))
    loaded_from = getattr(module, "__file__", None)
    if loaded_from is None or not path.samefile(loaded_from):
        raise ConfigError(
            f"{path} cannot be imported, because another module is called {module.__name__!r} "
            f"({loaded_from or 'built in'}); rename the file."
        )
    return _find_in_module(module, attribute)


def _put_first_on_path(folder: Path) -> None:
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{name}.".startswith(f"{missing}.") and _own_traceback(error.__traceback__) is None:
            raise ConfigError(f"There is no module {name!r}{_module_hint(name, missing)}") from None
        raise _own_fault(error, f"Importing {name} failed") from error
    except Exception as error:
        raise _own_fault(error, f"Importing {name} failed") from error


def _module_hint(name: str, missing: str) -> str:
    """The end of the sentence: ``main.app`` was meant as ``main:app``, or a name that is nearly right."""
    parent, _, last = missing.rpartition(".")
    module = sys.modules.get(parent)
    if module is not None and hasattr(module, last):
        return f"; did you mean {parent + ':' + name[len(parent) + 1 :]!r}?"
    folders = list(getattr(module, "__path__", [])) if parent else sys.path[:1]
    names = [
        entry.stem
        for folder in folders
        if os.path.isdir(folder)
        for entry in sorted(Path(folder).iterdir())
        if entry.suffix == ".py" or (entry / "__init__.py").is_file()
    ]
    near = difflib.get_close_matches(last, names, n=1)
    if near:
        return f"; did you mean {'.'.join(filter(None, [parent, near[0]]))!r}?"
    return "." if parent else f" in {folders[0]} or elsewhere on the import path."


# ---- from a module to the application in it


def _find_in_module(module: ModuleType, attribute: str) -> FoundApplication:
    if attribute:
        return FoundApplication(f"{module.__name__}:{attribute}", _follow(module, attribute))
    for name in ATTRIBUTES:
        target = getattr(module, name, None)
        if callable(target):
            return FoundApplication(f"{module.__name__}:{name}", target)
    instances = [name for name, target in vars(module).items() if _is_application_instance(target)]
    if instances:
        return FoundApplication(f"{module.__name__}:{instances[0]}", getattr(module, instances[0]))
    for name in FACTORIES:
        target = getattr(module, name, None)
        if callable(target):
            return FoundApplication(f"{module.__name__}:{name}", target, is_factory=True)
    raise ConfigError(
        f"Module {module.__name__!r} has no application: neither {', '.join(ATTRIBUTES)}, nor an ASGI object "
        f"under another name, nor a factory {' or '.join(FACTORIES)}; name it as module:attribute."
    )


def _follow(module: ModuleType, attribute: str) -> Any:
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            names = [name for name in dir(target) if not name.startswith("__")]
            near = difflib.get_close_matches(part, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ConfigError(f"Module {module.__name__!r} has no attribute {attribute!r}{hint}")
        target = getattr(target, part)
    return target


def _is_application_instance(target: Any) -> bool:
    """An object with an asynchronous ``__call__(scope, receive, send)`` that is a whole application."""
    if isinstance(target, type | ModuleType) or inspect.isroutine(target):
        return False
    if not _is_asynchronous(target) or not _takes(target, 3):
        return False
    return not type(target).__name__.endswith(_PART_OF_APPLICATION)


# ---- from the application to an ASGI 3 callable


def _call_factory(found: FoundApplication) -> Any:
    if not callable(found.target):
        raise ConfigError(f"{found.name} is of type {type(found.target).__name__}, not a factory.")
    if _is_asynchronous(found.target):
        raise ConfigError(f"The factory {found.name} is asynchronous; it must be a plain function.")
    if not _takes(found.target, 0):
        raise ConfigError(f"The factory {found.name} must work without arguments.")
    try:
        return found.target()
    except Exception as error:
        raise _own_fault(error, f"The factory {found.name} failed") from error


def _is_undeclared_factory(app: Any) -> bool:
    """A callable that works without arguments and is no ASGI application.

    uvicorn calls the object to find out; here its signature answers.
    """
    if not callable(app) or _is_asynchronous(app):
        return False
    parameters = _positional(app)
    return parameters is not None and not parameters.required and not parameters.any_number


def _is_asgi3(app: Any) -> bool:
    """As uvicorn tells, but a plain function of three parameters that returns an awaitable is ASGI 3 too."""
    if isinstance(app, type):
        return hasattr(app, "__await__")
    return _is_asynchronous(app) or _takes(app, 3)


def _is_asynchronous(target: Any) -> bool:
    """A coroutine function, or an object whose call is one; a class is neither."""
    call = getattr(type(target), "__call__", None)  # noqa: B004, the function itself is looked at
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(call)


def _is_wsgi(app: Any) -> bool:
    parameters = _positional(app)
    return parameters is not None and parameters.required == ("environ", "start_response")


@dataclass(frozen=True, slots=True)
class _Positional:
    """What a callable takes by position."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    any_number: bool


def _positional(target: Any) -> _Positional | None:
    """The positional parameters, or ``None`` where the callable does not tell or needs keywords."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return None
    required: list[str] = []
    optional: list[str] = []
    any_number = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            any_number = True
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            (required if parameter.default is parameter.empty else optional).append(parameter.name)
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            return None
    return _Positional(tuple(required), tuple(optional), any_number)


def _takes(target: Any, count: int) -> bool:
    """Whether it can be called with so many positional arguments; in doubt yes."""
    parameters = _positional(target)
    if parameters is None:
        return True
    most = len(parameters.required) + len(parameters.optional)
    return len(parameters.required) <= count and (parameters.any_number or count <= most)


# ---- errors of the application's own code


def _own_fault(error: Exception, what: str) -> ApplicationImportError:
    error.with_traceback(_own_traceback(error.__traceback__))
    detail = f": {error}" if str(error) else ""
    return ApplicationImportError(f"{what}: {type(error).__name__}{detail}")


def _own_traceback(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the application's first frame on, without this file's and importlib's before it."""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file not in (__file__, importlib.__file__) and not file.startswith("<frozen importlib"):
            return traceback
        traceback = traceback.tb_next
    return None
