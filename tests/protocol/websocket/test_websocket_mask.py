"""Masking: both functions against the definition."""

from __future__ import annotations

import builtins
import importlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.protocol.websocket import mask
from headrace.protocol.websocket.mask import apply_mask, apply_mask_in_python

FUNCTIONS = [apply_mask, apply_mask_in_python]


@pytest.mark.parametrize("function", FUNCTIONS)
@given(data=st.binary(max_size=100), key=st.binary(min_size=4, max_size=4))
def test_as_rfc_6455_says(function: Callable[..., bytes], data: bytes, key: bytes) -> None:
    expected = bytes(byte ^ key[index % 4] for index, byte in enumerate(data))
    for buffer in (data, bytearray(data)):
        masked = function(buffer, key)
        assert type(masked) is bytes
        assert masked == expected
    assert function(expected, key) == data


def test_without_websockets_python_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any) -> Any:
        if name.startswith("websockets"):
            raise ImportError(name)
        return original(name, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", refuse)
        importlib.reload(mask)
        assert mask.apply_mask is mask.apply_mask_in_python
    importlib.reload(mask)
    assert mask.apply_mask(b"ab", b"\x01\x02\x03\x04") == b"``"
