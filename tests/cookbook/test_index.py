from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from processes import HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"
NOT_RECIPES = {"main.py", "index.py", "recipe.py", "key_value_store.py", "cost_measurement.py"}


def test_index_names_every_recipe_and_every_link_works(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    sources = set(re.findall(r"<code>(\w+\.py)</code>", page.text))
    assert sources == {path.name for path in COOKBOOK.glob("*.py")} - NOT_RECIPES
    links = re.findall(r'<a href="([^"]+)"', page.text)
    assert len(links) >= len(sources)
    for link in links:
        assert client.get(f"/{link}").status_code == 200, link


PAGES = ("/", "/echo", "/clock", "/worker", "/middleware-cost")
every_page = pytest.mark.parametrize("path", PAGES)


def test_every_page_is_looked_at(client: httpx.Client) -> None:
    pages = {page.stem for page in COOKBOOK.glob("*.html")}
    assert pages == {"index", "websocket_echo", "sse_clock", "which_worker", "middleware_cost"}
    for path in PAGES:
        page = client.get(path)
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"


@every_page
def test_page_refers_to_nothing_but_its_own_folder(client: httpx.Client, path: str) -> None:
    """So it loads nothing from elsewhere, and works behind a proxy's prefix."""
    references = re.findall(
        r"""(?:href|src|URL|EventSource|fetch)(?:=|\()"([^"]*)\"""", client.get(path).text
    )
    assert len(references) >= 3
    for reference in references:
        assert not re.match(r"/|https?:|wss?:", reference)


@every_page
def test_page_suits_phones_and_dark_rooms(client: httpx.Client, path: str) -> None:
    page = client.get(path).text
    assert 'name="viewport"' in page
    assert 'name="color-scheme" content="light dark"' in page
    assert 'href="style.css"' in page


def test_style_has_colours_for_the_dark(client: httpx.Client) -> None:
    style = client.get("/style.css")
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert "prefers-color-scheme: dark" in style.text


def test_every_recipe_has_a_row_in_the_readme_and_a_test() -> None:
    readme = (COOKBOOK / "README.md").read_text(encoding="utf-8")
    tests = Path(__file__).parent
    for source in {path.name for path in COOKBOOK.glob("*.py")} - NOT_RECIPES:
        assert f"[{source}]({source})" in readme
        assert (tests / f"test_{source}").is_file()


def test_index_works_behind_a_prefix() -> None:
    headers = {"X-Forwarded-Prefix": "/cookbook", "X-Forwarded-For": "10.0.0.7"}
    with (
        HeadraceProcess("main:app", "--proxy-fields", "all", folder=COOKBOOK) as process,
        httpx.Client(base_url=process.url, headers=headers, trust_env=False) as client,
    ):
        page = client.get("/")
        assert page.status_code == 200
        assert 'href="/' not in page.text
        assert client.get("/api/client").json() == {"client_type": "web"}
