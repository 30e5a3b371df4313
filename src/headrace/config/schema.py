"""The JSON Schema of ``headrace.toml``, made from the option table."""

from __future__ import annotations

from typing import Any

from headrace.config.table import Row, groups, rows


def make_schema() -> dict[str, Any]:
    """The schema of the file and of ``[tool.headrace]``, draft 2020-12; unknown keys are refused."""
    properties: dict[str, Any] = {}
    for group in groups():
        for row in rows().values():
            if row.group == group and not row.option.api_only:
                properties[row.key] = _describe(row)
    # The underscore spelling of each key stands behind, so that editors offer the other one first.
    for row in rows().values():
        if "_" in row.name and row.key in properties:
            properties[row.name] = {"$ref": f"#/properties/{row.key}"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "headrace.toml",
        "description": "Options of headrace; the same keys stand under [tool.headrace] of pyproject.toml.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _describe(row: Row) -> dict[str, Any]:
    described = {"description": row.option.help, **_value_schema(row)}
    if row.default not in (None, ()):
        described["default"] = row.default
    if row.option.suggestions:
        described["examples"] = list(row.option.suggestions)
    return described


def _value_schema(row: Row) -> dict[str, Any]:
    if row.repeatable:
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": _element_schema(row)}]}
    value = _plain_schema(row)
    if row.option.joined_by:
        return {"anyOf": [value, {"type": "array", "items": value}]}
    words = ["none"] if row.nullable and row.kind in ("integer", "number", "flag") else []
    if row.option.auto is not None:
        words.append("auto")
    if words:
        return {"anyOf": [value, *({"const": word} for word in words)]}
    return value


def _element_schema(row: Row) -> dict[str, Any]:
    text = {"type": "string"}
    if row.kind != "headers":
        return text
    return {"anyOf": [text, {"type": "array", "items": text, "minItems": 2, "maxItems": 2}]}


def _plain_schema(row: Row) -> dict[str, Any]:
    if row.choices:
        return {"enum": list(row.choices)}
    names = {"flag": "boolean", "integer": "integer", "number": "number"}
    value: dict[str, Any] = {"type": names.get(row.kind, "string")}
    if row.option.minimum is not None:
        value["minimum"] = row.option.minimum
    if row.option.maximum is not None:
        value["maximum"] = row.option.maximum
    return value
