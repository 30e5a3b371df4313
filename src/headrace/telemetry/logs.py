"""Sets up the process's logging: uvicorn's loggers, levels and lines, or the user's own configuration."""

from __future__ import annotations

import configparser
import enum
import json
import logging
import logging.config
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final, Literal

from headrace.errors import ConfigError
from headrace.telemetry.log_context import attach_context, names_ids
from headrace.telemetry.log_formatters import (
    ACCESS_FMT,
    ACCESS_LOGGER,
    DEFAULT_FMT,
    TRACE_LOG_LEVEL,
    AccessFormatter,
    ColourizedFormatter,
    DefaultFormatter,
)
from headrace.telemetry.uvicorn_names import names_uvicorn, uvicorn_names


class Unset(enum.Enum):
    """The type of ``UNSET``, so that None keeps its meaning."""

    UNSET = enum.auto()


UNSET: Final = Unset.UNSET
"""Nobody chose a logging configuration: ``LOGGING_CONFIG`` applies."""

LogConfig = Mapping[str, Any] | str | os.PathLike[str] | configparser.RawConfigParser | IO[str]

LOG_LEVELS: dict[str, int] = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE_LOG_LEVEL,
}


class _IDsOfFormats:
    """Ids on records for as long as the configuration in force has a format that asks for them.

    Such a format fails on a record that has none: those of the start, before there is any server.
    """

    def __init__(self) -> None:
        self._detach: Callable[[], None] | None = None

    def put(self, are_needed: bool) -> None:
        """A configuration comes into force."""
        if self._detach is not None:
            self._detach()
            self._detach = None
        if are_needed:
            self._detach = attach_context()


_ids_of_formats = _IDsOfFormats()

_FORMATTERS = "headrace.telemetry.log_formatters"
_DEFAULT_FORMATTER = f"{_FORMATTERS}.DefaultFormatter"
_ACCESS_FORMATTER = f"{_FORMATTERS}.AccessFormatter"
_JSON_FORMATTER = f"{_FORMATTERS}.JSONFormatter"
_PRETTY_FORMATTER = "headrace.telemetry.pretty.PrettyFormatter"
_COLOURED = frozenset(
    {
        _DEFAULT_FORMATTER,
        _ACCESS_FORMATTER,
        _PRETTY_FORMATTER,
        f"{_FORMATTERS}.ColourizedFormatter",
        "headrace.telemetry.DefaultFormatter",
        "headrace.telemetry.AccessFormatter",
        "headrace.telemetry.ColourizedFormatter",
        "uvicorn.logging.DefaultFormatter",
        "uvicorn.logging.AccessFormatter",
        "uvicorn.logging.ColourizedFormatter",
    }
)

_STRUCTURED_FORMATTERS = "headrace.telemetry.structured_formatters"
_ONE_FORMATTER = {
    "json": _JSON_FORMATTER,
    "pretty": _PRETTY_FORMATTER,
    "logfmt": f"{_STRUCTURED_FORMATTERS}.LogfmtFormatter",
    "ecs": f"{_STRUCTURED_FORMATTERS}.ECSFormatter",
    "gcp": f"{_STRUCTURED_FORMATTERS}.GCPFormatter",
}
"""Formats whose one formatter stands on both handlers."""

LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {"()": _DEFAULT_FORMATTER, "fmt": DEFAULT_FMT, "use_colors": None},
        "access": {"()": _ACCESS_FORMATTER, "fmt": ACCESS_FMT, "use_colors": None},
    },
    "handlers": {
        "default": {"class": "logging.StreamHandler", "formatter": "default", "stream": "ext://sys.stderr"},
        "access": {"class": "logging.StreamHandler", "formatter": "access", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "uvicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"level": "INFO"},
        ACCESS_LOGGER: {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
"""The default, in the shape of ``logging.config.dictConfig``. Users copy or change it before the start."""


def configure(
    *,
    log_config: LogConfig | Unset | None = UNSET,
    log_level: str | int | None = None,
    log_format: Literal["text", "json", "pretty", "logfmt", "ecs", "gcp"] = "text",
    use_colors: bool | None = None,
    access_log: bool = True,
) -> None:
    """Set up the loggers ``uvicorn``, ``uvicorn.error``, ``uvicorn.access`` and ``uvicorn.asgi``.

    Args:
        log_config: a dict for ``dictConfig``; the path of a .json, .yaml, .yml or, with any other ending,
            .ini file; a ``ConfigParser`` or an open .ini file; None leaves handlers and formatters as they
            are; ``UNSET`` takes ``LOGGING_CONFIG``. The argument itself is not changed.
        log_level: name (any case) or number for the three loggers below ``uvicorn``; None keeps theirs.
        log_format: lines of ``LOGGING_CONFIG``; without meaning for a configuration of the user's own.
        use_colors: for formatters ``default`` and ``access`` of a dict or of ``LOGGING_CONFIG``; None means
            colours on a terminal only.
        access_log: False takes the access logger's handlers away.

    Raises:
        ConfigError: a file cannot be read or is wrong; a level is unknown; the extra ``yaml`` is missing.
    """
    level = _level_number(log_level)
    logging.addLevelName(TRACE_LOG_LEVEL, "TRACE")
    if isinstance(log_config, Unset):
        _apply_mapping(_with_colours(_default_configuration(log_format), use_colors), "LOGGING_CONFIG")
    elif log_config is not None:
        _apply_users(log_config, use_colors)
    if level is not None:
        for name in ("uvicorn.error", ACCESS_LOGGER, "uvicorn.asgi"):
            logging.getLogger(name).setLevel(level)
    if not access_log:
        access_logger = logging.getLogger(ACCESS_LOGGER)
        access_logger.handlers = []
        access_logger.propagate = False


class _LentHandlers(logging.Handler):
    """Writes records of a library by the handlers of the server's log, where nobody has set up logging."""

    def emit(self, record: logging.LogRecord) -> None:
        """As ``logging.lastResort`` would, but in the form of the other lines."""
        if logging.getLogger().handlers:
            return
        for handler in logging.getLogger("uvicorn").handlers:
            if record.levelno >= handler.level:
                handler.handle(record)


def lend_handlers(name: str) -> Callable[[], None]:
    """Have a library's logger write as the server's log does, as long as the root logger has no handlers.

    Returns:
        Ends it.
    """
    logger, handler = logging.getLogger(name), _LentHandlers()
    if logger.handlers:
        return lambda: None
    logger.addHandler(handler)
    return lambda: logger.removeHandler(handler)


def _level_number(log_level: str | int | None) -> int | None:
    if log_level is None or isinstance(log_level, int):
        return log_level
    try:
        return LOG_LEVELS[log_level.lower()]
    except KeyError:
        choices = ", ".join(LOG_LEVELS)
        raise ConfigError(f"The log level {log_level[:80]!r} is unknown; choose one of {choices}.") from None


def _default_configuration(log_format: str) -> Mapping[str, Any]:
    if log_format == "text":
        return LOGGING_CONFIG
    if log_format not in _ONE_FORMATTER:
        others = " or ".join(", ".join(_ONE_FORMATTER).rsplit(", ", 1))
        raise ConfigError(f"The log format {log_format[:80]!r} is unknown; choose text, {others}.")
    lines = {"()": _ONE_FORMATTER[log_format]}
    return {**LOGGING_CONFIG, "formatters": {"default": lines, "access": lines}}


def _with_colours(configuration: Mapping[str, Any], use_colors: bool | None) -> Mapping[str, Any]:
    """A copy in which the formatters ``default`` and ``access`` have ``use_colors``, where they know it."""
    formatters = configuration.get("formatters")
    if use_colors is None or not isinstance(formatters, Mapping):
        return configuration
    changed = {
        name: {**formatter, "use_colors": use_colors}
        for name, formatter in formatters.items()
        if name in ("default", "access") and _is_coloured(formatter.get("()"))
    }
    return {**configuration, "formatters": {**formatters, **changed}}


def _is_coloured(factory: object) -> bool:
    if isinstance(factory, str):
        return factory in _COLOURED
    return isinstance(factory, type) and issubclass(factory, ColourizedFormatter)


def _apply_users(log_config: LogConfig, use_colors: bool | None) -> None:
    if isinstance(log_config, configparser.RawConfigParser):  # a Mapping too, hence the first
        _apply_ini(log_config, "log_config")
    elif isinstance(log_config, Mapping):
        _apply_mapping(_with_colours(log_config, use_colors), "log_config")
    elif isinstance(log_config, (str, os.PathLike)):
        loaded = read_log_config(Path(log_config))
        if isinstance(loaded, configparser.RawConfigParser):
            _apply_ini(loaded, str(log_config))
        else:
            _apply_mapping(loaded, str(log_config))
    else:
        _apply_ini(_parse_ini(log_config.read(), "log_config"), "log_config")


def read_log_config(path: Path) -> Mapping[str, Any] | configparser.RawConfigParser:
    """What a file of ``--log-config`` holds; nothing is applied, no handler is made.

    Returns:
        A ``ConfigParser`` for .ini, else the mapping at the file's top.

    Raises:
        ConfigError: it cannot be read or parsed, is no mapping, or the extra ``yaml`` is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise ConfigError(f"The logging configuration {str(path)!r} cannot be read: {reason}.") from exc
    if path.suffix == ".json":
        loaded = _parse_json(text, str(path))
    elif path.suffix in (".yaml", ".yml"):
        loaded = _parse_yaml(text, str(path))
    else:
        return _parse_ini(text, str(path))
    if not isinstance(loaded, Mapping):
        raise ConfigError(f"The logging configuration {str(path)!r} must be a mapping at its top.")
    return loaded


def _parse_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise _wrong(name, exc) from exc


def _parse_yaml(text: str, name: str) -> Any:
    try:
        import yaml
    except ImportError as exc:
        raise ConfigError(
            f"The logging configuration {name!r} is YAML, which needs: pip install 'headrace[yaml]'"
        ) from exc
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise _wrong(name, exc) from exc


def _apply_mapping(configuration: Mapping[str, Any], name: str) -> None:
    _ids_of_formats.put(names_ids(configuration))
    with uvicorn_names(_LOGGING_NAMES, _CONFIG_NAMES, needed=names_uvicorn(configuration)):
        try:
            logging.config.dictConfig(dict(configuration))
        except Exception as exc:  # it calls factories of the user's choice, which may raise anything
            raise _wrong(name, exc) from exc


def _parse_ini(text: str, name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    try:
        parser.read_string(text, source=name)
    except configparser.Error as exc:
        raise _wrong(name, exc) from exc
    return parser


def _apply_ini(parser: configparser.RawConfigParser, name: str) -> None:
    values = [value for section in parser for _, value in parser.items(section, raw=True)]
    _ids_of_formats.put(names_ids(values))
    with uvicorn_names(_LOGGING_NAMES, _CONFIG_NAMES, needed=names_uvicorn(values)):
        try:
            logging.config.fileConfig(parser, disable_existing_loggers=False)
        except Exception as exc:  # it evaluates expressions of the file, which may raise anything
            raise _wrong(name, exc) from exc


def _wrong(name: str, exc: BaseException) -> ConfigError:
    reasons = [_one_line(exc)]
    while exc.__cause__ is not None:
        exc = exc.__cause__
        if (reason := _one_line(exc)) not in reasons[-1]:
            reasons.append(reason)
    return ConfigError(f"The logging configuration {name!r} is wrong: {': '.join(reasons)}.")


def _one_line(exc: BaseException) -> str:
    if isinstance(exc, KeyError):
        return f"{exc} is missing"
    return " ".join(str(exc).split()).rstrip(".") or type(exc).__name__


_LOGGING_NAMES: dict[str, Any] = {
    "TRACE_LOG_LEVEL": TRACE_LOG_LEVEL,
    "ColourizedFormatter": ColourizedFormatter,
    "DefaultFormatter": DefaultFormatter,
    "AccessFormatter": AccessFormatter,
}
_CONFIG_NAMES: dict[str, Any] = {
    "LOGGING_CONFIG": LOGGING_CONFIG,
    "LOG_LEVELS": LOG_LEVELS,
    "TRACE_LOG_LEVEL": TRACE_LOG_LEVEL,
}
