from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValueList

from headrace.telemetry.tracing.wire import any_value, attribute, attributes, text, varint
from otlp import value_of

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def decode(value: Any) -> Any:
    encoded = any_value(value)
    assert encoded is not None
    return value_of(AnyValue.FromString(encoded))


@given(values)
def test_the_generated_classes_read_what_is_written(value: Any) -> None:
    assert decode(value) == value


@given(st.integers(0, 2**64 - 1))
def test_varint(number: int) -> None:
    read = sum((digit & 127) << (7 * place) for place, digit in enumerate(varint(number)))
    assert read == number


def test_not_a_number_and_tuples() -> None:
    assert math.isnan(decode(math.nan))
    assert decode((1, "a")) == [1, "a"]


def test_what_utf_8_cannot_say() -> None:
    assert decode("a\udcffb") == "a?b"


@pytest.mark.parametrize("value", [object(), {1}, 1j])
def test_what_no_attribute_can_be_is_left_out(value: Any) -> None:
    assert any_value(value) is None
    assert attribute(b"\x0a", "key", value) == b""
    pairs = KeyValueList.FromString(attributes(b"\x0a", {"a": 1, "b": value, "c": [value, 2]}))
    assert {pair.key: value_of(pair.value) for pair in pairs.values} == {"a": 1, "c": [2]}


def test_depth_is_bounded() -> None:
    deep: Any = "bottom"
    for _ in range(100):
        deep = [deep]
    assert str(decode(deep)).count("[") <= 17


@pytest.mark.parametrize("number", [2**63, 2**64 + 5, 2**80 + 5, -(2**63) - 1])
def test_integers_beyond_64_bits_are_told_as_text(number: int) -> None:
    assert decode(number) == str(number)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_the_largest_integers(number: int) -> None:
    assert decode(number) == number


def test_a_string_is_a_field() -> None:
    assert text(b"\x0a", "é" * 100)[:3] == b"\x0a\xc8\x01"
