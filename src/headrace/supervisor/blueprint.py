"""What a worker is made from, as text that passes a pipe."""

from __future__ import annotations

import base64
import pickle
import sys

from headrace.config import Config
from headrace.errors import ConfigError


def pack(config: Config) -> str:
    """The configuration as a worker's ``Start`` has it.

    Raises:
        ConfigError: it holds an object that only this process knows.
    """
    app = config.application.app
    if app is not None and not isinstance(app, str):
        raise ConfigError(
            "With several workers or --reload the application must be named, as in 'main:app': each worker "
            "imports it for itself."
        )
    factory = config.tls.ssl_context_factory
    if getattr(factory, "__module__", None) == "__main__":
        raise ConfigError(
            "With several workers ssl_context_factory must stand in a module that they can import."
        )
    try:
        inner = pickle.dumps(config)
    except Exception as error:
        raise ConfigError(f"An option cannot be handed to a worker process: {error}.") from error
    return base64.b64encode(pickle.dumps((sys.path, inner))).decode()


def unpack(text: str) -> Config:
    """The configuration; ``sys.path`` becomes that of the supervisor first, for what is pickled by name."""
    path, inner = pickle.loads(base64.b64decode(text))
    sys.path[:] = path
    config: Config = pickle.loads(inner)
    return config
