"""The format that ``--access-log-format`` names."""

from __future__ import annotations

from headrace.telemetry.access_lines.combined_text import CombinedText
from headrace.telemetry.access_lines.ecs_text import ECSText
from headrace.telemetry.access_lines.gcp_text import GCPText
from headrace.telemetry.access_lines.json_text import JSONText
from headrace.telemetry.access_lines.line_format import LineFormat
from headrace.telemetry.access_lines.logfmt_text import LogfmtText
from headrace.telemetry.access_sampling import Sampling
from headrace.telemetry.access_template import TemplateText


def named_format(
    name: str,
    *,
    worker: int | None = None,
    sampling: Sampling | None = None,
    logger_name: str = "uvicorn.access",
) -> LineFormat | None:
    """Make the format.

    Args:
        name: uvicorn, combined, json, logfmt, ecs, gcp, or a template of gunicorn's %-atoms.
        worker: which process this is, if there are several.
        sampling: of the lines.
        logger_name: the access log's logger.

    Returns:
        None for uvicorn's text, whose colours depend on the handler.

    Raises:
        ConfigError: it is none of the names, and no valid template.
    """
    if name == "uvicorn":
        return None
    if name == "combined":
        return CombinedText()
    if name == "json":
        return JSONText(worker=worker, sampling=sampling)
    if name == "logfmt":
        return LogfmtText(worker=worker, sampling=sampling)
    if name == "ecs":
        return ECSText(logger_name=logger_name, worker=worker, sampling=sampling)
    if name == "gcp":
        return GCPText(logger_name=logger_name, worker=worker, sampling=sampling)
    return TemplateText(name, worker)
