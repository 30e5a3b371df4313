"""Field lines: split, checked, serialised, remembered within bounds."""

from __future__ import annotations

import pytest

from headrace.protocol import fields
from headrace.protocol.fields import (
    HOST,
    MAX_CACHED_LINE_BYTES,
    MAX_TABLE_ENTRIES,
    TOKEN,
    ResponseField,
    SpecialLine,
    content_length,
    remember,
    write_line,
)


@pytest.fixture(autouse=True)
def empty_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "response_lines", {})


def test_long_lines_are_not_remembered() -> None:
    write_line(b"x", b"a" * (MAX_CACHED_LINE_BYTES + 1))
    assert not fields.response_lines


def test_tables_are_bounded() -> None:
    table: dict[int, int] = {}
    for number in range(3 * MAX_TABLE_ENTRIES):
        remember(table, number, number)
        assert len(table) <= MAX_TABLE_ENTRIES
        assert table[number] == number


def test_write_line() -> None:
    assert write_line(b"X-A", b"b \xff\t") == b"x-a: b \xff\t\r\n"
    assert fields.response_lines[b"X-A", b"b \xff\t"] == b"x-a: b \xff\t\r\n"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"CONNECTION", ResponseField.CONNECTION),
        (b"transfer-encoding", ResponseField.TRANSFER_ENCODING),
        (b"Date", ResponseField.DATE),
        (b"server", ResponseField.SERVER),
    ],
)
def test_write_line_marks_what_the_engine_acts_on(name: bytes, kind: ResponseField) -> None:
    written = write_line(name, b" Value\t")
    assert isinstance(written, SpecialLine)
    assert (written.field, written.value) == (kind, b"value")
    assert written.length == -1
    assert written.line == name.lower() + b":  Value\t\r\n"


@pytest.mark.parametrize("name", [b"Set-Cookie", b"location", b"X-Request-ID", b"ETag"])
def test_changing_or_secret_fields_of_responses_are_not_remembered(name: bytes) -> None:
    write_line(name, b"x")
    assert not fields.response_lines


@pytest.mark.parametrize("bad", [chr(code).encode("latin-1") for code in (*range(9), *range(10, 32), 127)])
def test_controls_in_values_are_refused(bad: bytes) -> None:
    for value in (bad, b"a" + bad, bad + b"a", b"a\t" + bad + b"b"):
        with pytest.raises(ValueError, match="Invalid HTTP header value"):
            write_line(b"x", value)
    assert not fields.response_lines


@pytest.mark.parametrize(
    "bad", [b"", *(bytes([code]) for code in range(256) if not TOKEN.fullmatch(bytes([code])))]
)
def test_names_that_are_no_tokens_are_refused(bad: bytes) -> None:
    for name in {bad, b"a" + bad if bad else b"", bad + b"a" if bad else b""}:
        with pytest.raises(ValueError, match="Invalid HTTP header name"):
            write_line(name, b"x")


def test_tokens_are_those_of_rfc_9110() -> None:
    assert {bytes([code]) for code in range(256) if TOKEN.fullmatch(bytes([code]))} == {
        bytes([code])
        for code in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    }


@pytest.mark.parametrize("pair", [("x", b"y"), (b"x", "y"), (b"x", None), (bytearray(b"x"), b"y"), (1, 2)])
def test_other_types_are_refused(pair: tuple[object, object]) -> None:
    with pytest.raises(TypeError, match="must be bytes"):
        write_line(*pair)  # type: ignore[arg-type]


def test_errors_cut_what_they_quote() -> None:
    with pytest.raises(ValueError) as caught:
        write_line(b"x", b"\n" * 10_000)
    assert len(str(caught.value)) < 200


def test_write_line_reads_a_length() -> None:
    written = write_line(b"Content-Length", b" 0012 ")
    assert isinstance(written, SpecialLine)
    assert (written.field, written.length) == (ResponseField.CONTENT_LENGTH, 12)


@pytest.mark.parametrize(
    "value", [b"", b"-1", b"+1", b"1.0", b"0x1", b"1_0", b"1 1", b"1,1", b"\xb2", b"9" * 19]
)
def test_content_length_is_digits_and_nothing_else(value: bytes) -> None:
    with pytest.raises(ValueError, match="Invalid Content-Length"):
        content_length(value)


def test_host_is_linear() -> None:
    """No value makes the expression go back and forth."""
    assert not HOST.fullmatch(b"%41" * 20_000 + b"/")
    assert not HOST.fullmatch(b"[" + b":" * 60_000)
