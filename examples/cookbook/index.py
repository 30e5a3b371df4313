"""The index page: every recipe with a sentence and its links, made once from ``index.html``."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

from recipe import Recipe

_PAGE = Template(Path(__file__).with_name("index.html").read_text(encoding="utf-8"))
_RECIPE = Template("""\
    <li class="card">
      <h2>$title</h2>
      <p>$sentence</p>
      <p class="links">$links <code>$source</code></p>
    </li>
""")


def render_index(recipes: Iterable[Recipe]) -> str:
    """The whole page. Links are relative, so that the page works behind a proxy's prefix."""
    return _PAGE.substitute(recipes="".join(_render(recipe) for recipe in recipes))


def _render(recipe: Recipe) -> str:
    links = " ".join(f'<a href="{escape(link.lstrip("/"))}">{escape(link)}</a>' for link in recipe.links)
    return _RECIPE.substitute(
        title=escape(recipe.title),
        sentence=escape(recipe.sentence),
        links=links,
        source=escape(recipe.source),
    )
