"""What an exception says, whatever it does when it is asked."""

from __future__ import annotations


def error_text(error: BaseException | None) -> str:
    """``str(error)``, or that it cannot be had, in ``traceback``'s words."""
    try:
        return str(error)
    except Exception:
        return f"<unprintable {type(error).__qualname__} object>"
