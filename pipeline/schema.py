"""Writes the published JSON Schemas: `python -m pipeline.schema docs/schema`."""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from pipeline import records, settings


def publish(directory: Path) -> None:
    """records.json and settings.json, from the structs."""
    for name, schema in (("records", records.schema()), ("settings", settings.schema())):
        (directory / f"{name}.json").write_text(json.dumps(_clean(schema), indent=2) + "\n")


def _clean(tree: Any) -> Any:
    """Descriptions without their indentation, which Python 3.13 drops from docstrings and 3.11 keeps."""
    if isinstance(tree, dict):
        return {
            key: inspect.cleandoc(value) if key == "description" and isinstance(value, str) else _clean(value)
            for key, value in tree.items()
        }
    return [_clean(item) for item in tree] if isinstance(tree, list | tuple) else tree


if __name__ == "__main__":
    publish(Path(sys.argv[1]))
