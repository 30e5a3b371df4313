from __future__ import annotations

import pytest

from headrace.telemetry.tracing.context import TraceParent, format_traceparent, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"
PARENT = TraceParent(int(TRACE, 16), int(SPAN, 16), 1)


@pytest.mark.parametrize(
    ("value", "parent"),
    [
        (GOOD, PARENT),
        (f"  {GOOD}\t", PARENT),
        (f"00-{TRACE}-{SPAN}-00", PARENT._replace(flags=0)),
        (f"00-{TRACE}-{SPAN}-ff", PARENT._replace(flags=255)),
        # Versions to come: what stands behind the flags is for those who know it.
        (f"cc-{TRACE}-{SPAN}-01", PARENT),
        (f"cc-{TRACE}-{SPAN}-01-", PARENT),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", PARENT),
        (f"fe-{TRACE}-{SPAN}-02-\xff", PARENT._replace(flags=2)),
    ],
)
def test_valid(value: str, parent: TraceParent) -> None:
    assert parse_traceparent(value.encode("latin-1")) == parent


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}-.1",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01.",
        f"0-{TRACE}-{SPAN}-01",
        f"000-{TRACE}-{SPAN}-01",
        f".0-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}a-{SPAN}-01",
        f"00-{TRACE}-{SPAN[1:]}-01",
        f"00-{TRACE}-{SPAN}a-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE}-{SPAN}-0A",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}.-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        f"{GOOD},{GOOD}",
        f"{GOOD}\n",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 600,
    ],
)
def test_invalid_counts_as_none(value: str) -> None:
    assert parse_traceparent(value.encode("latin-1")) is None


def test_a_future_version_keeps_any_flags_it_knows() -> None:
    parent = parse_traceparent(f"01-{TRACE}-{SPAN}-03".encode())
    assert parent is not None
    assert parent.is_sampled


def test_written_as_it_is_read() -> None:
    written = format_traceparent(*PARENT)
    assert written == GOOD
    assert parse_traceparent(format_traceparent(1, 2, 0).encode()) == TraceParent(1, 2, 0)
