"""The elements of one message, each judged alone, so that a bad one does not cost the others. No venue's words."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from pipeline.errors import DecodeError
from pipeline.frames import Frame

Element = TypeVar("Element")
Result = TypeVar("Result")

JSON_FAULTS = (msgspec.DecodeError, UnicodeEncodeError, RecursionError)
"""What decoding raises on any text: broken, of other types, half a surrogate pair, nested too deep."""
_MOST_DETAIL = 400
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])


def message(text: str | bytes | msgspec.Raw, decoder: "msgspec.json.Decoder[Element]", what: str) -> Element:
    """The decoded text. Raises DecodeError: `not JSON`, or `not <what>`."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise DecodeError(f"not {what}", str(error)) from error
    except JSON_FAULTS as error:
        raise DecodeError("not JSON", str(error)) from error


def beginning_with(frames: Sequence[Frame], words: str, within: int) -> list[bool]:
    """Which of the frames a socket brought, with these words among their first `within` characters."""
    return [frame.kind == "ws" and frame.dir == "in" and frame.data.find(words, 0, within) >= 0 for frame in frames]


def together(texts: Sequence[str], decoder: "msgspec.json.Decoder[Element]") -> list[Element]:
    """The objects that the texts are, one each, decoded at once. Raises DecodeError where they have to be looked at one
    by one."""
    # A line break is no part of a string, and nothing goes on with `{` behind `}`: so each text is one object or more.
    apart = {text[:1] for text in texts} == {"{"} and {text[-1:] for text in texts} == {"}"}
    try:
        found = decoder.decode_lines("\n".join(texts)) if apart else []
    except JSON_FAULTS as error:
        raise DecodeError("not all alike", str(error)) from error
    if len(found) != len(texts):
        raise DecodeError("not one object each")
    return found


def raws(data: str | bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """The elements, undecoded. Raises DecodeError."""
    try:
        return _RAWS.decode(data)
    except JSON_FAULTS as error:
        raise DecodeError("data is not a list", str(error)) from error


def elements(
    data: str | bytes | msgspec.Raw, decoder: "msgspec.json.Decoder[list[Element]]", kind: type[Element], what: str
) -> tuple[list[Element], list[DecodeError]]:
    """All elements at once; one by one when one of them is wrong. Raises DecodeError when it is no list."""
    try:
        return decoder.decode(data), []
    except JSON_FAULTS:
        good: list[Element] = []
        faults: list[DecodeError] = []
    for raw in raws(data):
        try:
            good.append(msgspec.json.decode(raw, type=kind))
        except JSON_FAULTS as error:
            faults.append(DecodeError(f"not {what}", f"{error} in {bytes(raw)[:_MOST_DETAIL]!r}"))
    return good, faults


def each(
    found: Iterable[Element], faults: list[DecodeError], convert: Callable[[Element], Result]
) -> tuple[Result, ...]:
    """The elements that convert; what the others lack is added to `faults`."""
    results = []
    for element in found:
        try:
            results.append(convert(element))
        except DecodeError as error:
            faults.append(DecodeError(error.reason, f"{error.detail} in {str(element)[:_MOST_DETAIL]}"))
    return tuple(results)


def asked(url: str | None) -> tuple[str, dict[str, str]]:
    """Path and query of a REST reply's url; the last of values given twice. Raises DecodeError."""
    try:
        parts = urlsplit(url or "")
        return parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}
    except ValueError as error:
        raise DecodeError("reply without a url", str(error)) from error
