from __future__ import annotations

import asyncio
import functools
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.asgi.importer import (
    FoundApplication,
    detect_interface,
    find_application,
    load_application,
)
from headrace.errors import ApplicationImportError, ConfigError

ASGI = "async def {name}(scope, receive, send):\n    pass\n"
CLASS = "class Thing:\n    async def __call__(self, scope, receive, send):\n        pass\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what a test imports from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        places = [str(getattr(sys.modules[name], place, "")) for place in ("__file__", "__path__")]
        if any(str(tmp_path) in place for place in places):
            del sys.modules[name]


def write(path: str, text: str = ASGI.format(name="app")) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def refusal(name: Any = None, app_dir: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        find_application(name, app_dir)
    return str(caught.value)


class TestFinding:
    @pytest.mark.parametrize(
        "file", ["main.py", "app.py", "api.py", "app/main.py", "app/app.py", "app/api.py"]
    )
    def test_files_without_a_name(self, folder: Path, file: str) -> None:
        write(file)
        assert find_application().name == f"{Path(file).stem}:app"

    def test_the_first_file_wins(self, folder: Path) -> None:
        write("api.py")
        write("app/main.py")
        assert find_application().name == "api:app"

    def test_a_file_of_a_package_is_imported_as_such(self, folder: Path) -> None:
        write("app/__init__.py", "")
        write("app/main.py", "from .other import app")
        write("app/other.py")
        assert find_application().name == "app.main:app"

    def test_nothing_there(self, folder: Path) -> None:
        assert refusal() == (
            "No application found in the current folder: none of main.py, app.py, api.py, app/main.py, "
            "app/app.py, app/api.py is there; name it as module:attribute."
        )

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("pkg.web:app", "pkg.web:app"),
            ("pkg.web:box.app", "pkg.web:box.app"),
            ("pkg.web", "pkg.web:app"),
            ("pkg/web.py", "pkg.web:app"),
            ("pkg/web.py:other", "pkg.web:other"),
            ("./pkg/web.py", "pkg.web:app"),
            ("pkg", "pkg.main:app"),
            ("./pkg", "pkg.main:app"),
            ("pkg/", "pkg.main:app"),
        ],
    )
    def test_names(self, folder: Path, name: str, found: str) -> None:
        write("pkg/__init__.py", "")
        write("pkg/main.py")
        text = ASGI.format(name="app") + ASGI.format(name="other")
        write("pkg/web.py", text + "class box:\n    app = app\n")
        assert find_application(name).name == found

    def test_the_current_folder(self, folder: Path) -> None:
        write("app/main.py")
        assert find_application(".").name == "main:app"

    def test_a_package_that_holds_the_application_itself(self, folder: Path) -> None:
        write("pkg/__init__.py")
        assert find_application("pkg").name == "pkg:app"

    def test_app_dir_comes_first_on_the_path(self, folder: Path) -> None:
        write("src/inner.py")
        assert find_application("inner:app", "src").name == "inner:app"
        assert sys.path[0] == str(folder / "src")
        assert find_application("inner.py", "src").name == "inner:app"
        assert refusal("inner:app", "nowhere") == "The folder 'nowhere' of --app-dir does not exist."

    def test_an_object_is_taken_as_it_is(self) -> None:
        app = SimpleNamespace()
        assert find_application(app) == FoundApplication("SimpleNamespace", app)

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            (ASGI.format(name="api"), "api"),
            (ASGI.format(name="application"), "application"),
            (ASGI.format(name="api") + ASGI.format(name="app"), "app"),
            (CLASS + "zebra = Thing()\nant = Thing()\n", "zebra"),
            (CLASS + "class SubRouter(Thing):\n    pass\nrouter = SubRouter()\nsite = Thing()\n", "site"),
            (CLASS + "app = 'no callable'\nsite = Thing()\n", "site"),
            ("from fastapi import APIRouter, FastAPI\nrouter = APIRouter()\nweb = FastAPI()\n", "web"),
            ("from litestar import Litestar\nweb = Litestar()\n", "web"),
            ("def make_app():\n    pass\n", "make_app"),
            ("def create_app():\n    pass\ndef make_app():\n    pass\n", "create_app"),
        ],
    )
    def test_attributes(self, folder: Path, text: str, found: str) -> None:
        write("main.py", text)
        assert find_application().name == f"main:{found}"


class TestRefusals:
    def test_module(self, folder: Path) -> None:
        write("server.py")
        write("pkg/__init__.py", "")
        write("pkg/web.py")
        assert refusal("servr:app") == "There is no module 'servr'; did you mean 'server'?"
        assert refusal("pkg.wbe:app") == "There is no module 'pkg.wbe'; did you mean 'pkg.web'?"
        assert refusal("server.app") == "There is no module 'server.app'; did you mean 'server:app'?"
        assert refusal("xyzzy:app") == (
            f"There is no module 'xyzzy' in {folder} or elsewhere on the import path."
        )
        assert refusal("xyzzy.web:app").startswith("There is no module 'xyzzy.web' in ")

    def test_attribute(self, folder: Path) -> None:
        write("main.py")
        assert refusal("main:ap") == "Module 'main' has no attribute 'ap'; did you mean 'app'?"
        assert refusal("main:app.xyzzy") == "Module 'main' has no attribute 'app.xyzzy'."

    def test_no_application_in_the_module(self, folder: Path) -> None:
        write("main.py", "x = 1")
        assert refusal() == (
            "Module 'main' has no application: neither app, api, application, nor an ASGI object under "
            "another name, nor a factory create_app or make_app; name it as module:attribute."
        )

    def test_paths_and_forms(self, folder: Path) -> None:
        (folder / "empty").mkdir()
        assert refusal("src/none.py") == "There is no file or folder 'src/none.py' that holds an application."
        assert refusal("empty").startswith("No application found in empty: none of main.py, ")
        assert refusal("main:") == "The application 'main:' must be module:attribute, a file or a folder."
        assert refusal(":app") == "The application ':app' must be module:attribute, a file or a folder."

    def test_a_file_whose_name_is_taken(self, folder: Path) -> None:
        write("src/json.py")
        assert "because another module is called 'json'" in refusal("src/json.py")
        write("src/sys.py")
        assert refusal("src/sys.py").endswith("called 'sys' (built in); rename the file.")


class TestFaultsOfTheApplication:
    def fault(self, folder: Path, text: str) -> ApplicationImportError:
        write("main.py", text)
        with pytest.raises(ApplicationImportError) as caught:
            find_application("main:app")
        return caught.value

    def test_traceback_begins_in_the_application(self, folder: Path) -> None:
        error = self.fault(folder, "def helper():\n    raise RuntimeError('boom')\nhelper()\n")
        assert str(error) == "Importing main failed: RuntimeError: boom"
        assert error.__cause__ is not None
        frames = traceback.extract_tb(error.__cause__.__traceback__)
        assert [(Path(frame.filename).name, frame.name) for frame in frames] == [
            ("main.py", "<module>"),
            ("main.py", "helper"),
        ]

    def test_a_missing_dependency_is_its_own_fault(self, folder: Path) -> None:
        error = self.fault(folder, "import no_such_dependency\n")
        assert str(error) == (
            "Importing main failed: ModuleNotFoundError: No module named 'no_such_dependency'"
        )

    def test_syntax_error(self, folder: Path) -> None:
        error = self.fault(folder, "def broken(:\n")
        assert str(error).startswith("Importing main failed: SyntaxError: ")
        assert error.__cause__ is not None
        text = "".join(traceback.format_exception(error.__cause__))
        assert "main.py" in text
        assert "importlib" not in text

    def test_factory(self) -> None:
        def create_app() -> None:
            raise ValueError

        with pytest.raises(
            ApplicationImportError, match=r"^The factory m:create failed: ValueError$"
        ) as caught:
            load_application(FoundApplication("m:create", create_app), factory=True)
        assert caught.value.__cause__ is not None
        (frame,) = traceback.extract_tb(caught.value.__cause__.__traceback__)
        assert frame.name == "create_app"


async def asgi3(scope: Any, receive: Any, send: Any) -> None:
    await send({"by": "asgi3"})


def asgi3_plain(scope: Any, receive: Any, send: Any) -> Any:
    return asgi3(scope, receive, send)


def asgi2(scope: Any) -> Any:
    async def instance(receive: Any, send: Any) -> None:
        await send({"by": "asgi2"})

    return instance


class ASGI2Class:
    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        await send({"by": "asgi2"})


class ASGI3Class:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"by": "asgi3"})


class ASGI3Awaitable:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.send = send

    def __await__(self) -> Any:
        return self.send({"by": "asgi3"}).__await__()


def load(target: Any, factory: bool = False, interface: str = "auto", is_factory: bool = False) -> Any:
    return load_application(FoundApplication("m:a", target, is_factory), factory, interface)


def answer(app: Any) -> str:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def call() -> None:
        await app({}, None, send)

    asyncio.run(call())
    return str(sent[0]["by"])


class TestLoading:
    @pytest.mark.parametrize(
        "app",
        [asgi3, asgi3_plain, ASGI3Class(), ASGI3Class().__call__, ASGI3Awaitable, functools.partial(asgi3)],
    )
    def test_asgi3_stays_as_it_is(self, app: Any) -> None:
        loaded = load(app)
        assert loaded is app
        assert detect_interface(loaded) == "asgi3"
        assert answer(loaded) == "asgi3"

    @pytest.mark.parametrize("app", [asgi2, ASGI2Class])
    def test_asgi2_is_wrapped(self, app: Any) -> None:
        loaded = load(app)
        assert detect_interface(loaded) == "asgi2"
        assert answer(loaded) == "asgi2"

    def test_interface_overrules(self) -> None:
        assert load(asgi2, interface="asgi3") is asgi2
        assert detect_interface(load(asgi3, interface="asgi2")) == "asgi2"

    def test_declared_factory(self, caplog: pytest.LogCaptureFixture) -> None:
        assert load(lambda: asgi3, factory=True) is asgi3
        assert load(lambda: asgi3, is_factory=True) is asgi3
        assert not caplog.records

    @pytest.mark.parametrize(
        "factory", [lambda: asgi3, lambda settings=None: asgi3, functools.partial(lambda app: app, asgi3)]
    )
    def test_undeclared_factory(self, factory: Any, caplog: pytest.LogCaptureFixture) -> None:
        assert load(factory) is asgi3
        assert caplog.messages == [
            "ASGI app factory detected. Using it, but please consider setting the --factory flag explicitly."
        ]

    def test_a_class_without_arguments_is_a_factory(self) -> None:
        assert isinstance(load(ASGI3Class), ASGI3Class)

    def test_any_arguments_are_no_factory(self) -> None:
        def app(*arguments: Any) -> Any:
            return asgi3(*arguments)

        assert load(app) is app

    def test_a_callable_that_tells_nothing_of_its_parameters(self) -> None:
        """A built-in type without a signature, and a function that needs a keyword, are taken as they are."""

        def app(scope: Any, receive: Any, send: Any, *, settings: Any) -> None:
            """Cannot be called by position; the error comes when it is called, and names the keyword."""

        assert load(app) is app
        assert detect_interface(load(dict)) == "asgi2"

    @pytest.mark.parametrize(
        ("target", "factory", "sentence"),
        [
            ({}, False, "m:a is of type dict, not an ASGI application."),
            (sys, False, "m:a is of type module, not an ASGI application."),
            ({}, True, "m:a is of type dict, not a factory."),
            (asgi3, True, "The factory m:a is asynchronous; it must be a plain function."),
            (asgi2, True, "The factory m:a must work without arguments."),
            (lambda: None, True, "m:a is of type NoneType, not an ASGI application."),
            (
                lambda environ, start_response: [],
                False,
                "m:a is a WSGI application, which this release does not host yet.",
            ),
        ],
    )
    def test_refusals(self, target: Any, factory: bool, sentence: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load(target, factory)
        assert str(caught.value) == sentence
