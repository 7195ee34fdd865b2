"""What is wrong with a word or a tree, said so that it can be mended: path, value, nearest valid spelling. Pure."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like it, or None."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return near[0] if near else None


def advice(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or all that is known."""
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else f"; known are {', '.join(sorted(known))}"


def explain(error: msgspec.ValidationError, tree: Any, sections: Mapping[str, type[msgspec.Struct]], root: str) -> str:
    """msgspec's message with the value, or the nearest spelling of an unknown key, and its place below `root`.

    `sections`: pattern of a location in `tree` to the struct whose fields are known there.
    """
    text, _, location = str(error).partition(" - at `")
    location = location.rstrip("`") or "$"
    place = f"{root}{location.removeprefix('$')}".lstrip(".") or "the top level"
    if unknown := re.search(r"unknown field `([^`]*)`", text):
        for pattern, section in sections.items():
            if re.fullmatch(pattern, location):
                return f"unknown key {unknown[1]!r} in {place}{advice(unknown[1], section.__struct_fields__)}"
    value = _at(tree, location)
    shown = "" if isinstance(value, dict | list) or value is None else f" (it is {value!r})"
    return f"{place}: {text}{shown}"


def _at(tree: Any, location: str) -> Any:
    """The value at `$.a.b[2]`; None where there is none."""
    for key, index in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", location):
        try:
            tree = tree[key] if key else tree[int(index)]
        except (KeyError, IndexError, TypeError):
            return None
    return tree
