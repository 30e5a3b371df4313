"""A tiny key-value store with the calls of an asynchronous client; stands in place of Redis."""

from __future__ import annotations


class KeyValueStore:
    """Keeps texts in memory. As with a client of a real store, every call may wait."""

    def __init__(self) -> None:
        self._values: dict[str, str] | None = None

    async def open(self) -> None:
        """Connect."""
        self._values = {}

    async def ping(self) -> bool:
        """Whether the store answers."""
        return self._values is not None

    async def get(self, key: str) -> str | None:
        """The value under a key, or None."""
        return self._connected().get(key)

    async def set(self, key: str, value: str) -> None:
        """Put a value under a key."""
        self._connected()[key] = value

    async def close(self) -> None:
        """Disconnect; every call behind it but ``ping`` raises."""
        self._values = None

    def _connected(self) -> dict[str, str]:
        if self._values is None:
            raise ConnectionError("The store is not open")
        return self._values
