from __future__ import annotations

import re
from pathlib import Path

import httpx

from processes import HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"
NOT_RECIPES = {"main.py", "index.py", "recipe.py", "key_value_store.py"}


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


def test_index_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    assert "//" not in client.get("/").text


def test_index_suits_phones_and_dark_rooms(client: httpx.Client) -> None:
    page = client.get("/").text
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


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
