"""Trades of OKX's `trades-all` as ready WebSocket frames, rendered a chunk at a time. Pure.

A chunk has every instrument equally often, in a seeded order, with seeded prices and sizes. Chunks differ in the
numbers of their trades and in the time, which are filled in: that costs next to nothing per trade.
"""

import random
from collections.abc import Mapping
from typing import NamedTuple

MOST_IN_CHUNK = 1_000
VARIETIES = 8
"""Templates that take turns, so that prices move."""
CHUNK_DIGITS = 7
_CHUNK, _TIME = b"#" * CHUNK_DIGITS, b"@" * 13
_TEXT_FRAME = 0x81
_TWO_BYTES_OF_LENGTH = 126


class Slot(NamedTuple):
    """One trade of a template: a whole frame with holes for the chunk's number and the time."""

    instrument: int
    frame: bytes

    def print(self, chunk: int, milliseconds: int) -> bytes:
        """The frame as it goes over the wire."""
        return _filled(self.frame, chunk, milliseconds)


class Tape:
    """The trades of some of the instruments: those that one connection carries, each with its place among all.
    `rounds` is how often each is in a chunk (a power of ten)."""

    def __init__(self, names: Mapping[int, str], rounds: int, seed: int) -> None:
        self._slots = [_template(names, rounds, random.Random(f"{seed} {variety}")) for variety in range(VARIETIES)]
        self._chunks = [b"".join(slot.frame for slot in slots) for slots in self._slots]
        self.size = len(names) * rounds
        """Trades in a chunk."""

    def slots(self, chunk: int) -> list[Slot]:
        """The trades of the chunk one by one."""
        return self._slots[chunk % VARIETIES]

    def print(self, chunk: int, milliseconds: int) -> bytes:
        """The frames of the chunk, one after the other."""
        return _filled(self._chunks[chunk % VARIETIES], chunk, milliseconds)


def rounds_for(instruments: int) -> int:
    """How often each instrument is in a chunk, so that a chunk is neither dear to send nor old when it is sent."""
    rounds = 1
    while instruments * rounds * 10 <= MOST_IN_CHUNK:
        rounds *= 10
    return rounds


def number(instrument: int, chunk: int, turn: int, rounds: int) -> int:
    """The `tradeId` of an instrument's trade of that `turn` within a chunk: contiguous, and no other instrument's."""
    return int(f"{instrument + 1}{chunk:0{CHUNK_DIGITS}d}") * rounds + turn


def frame_of(text: bytes) -> bytes:
    """A server's text frame: never masked, and ours are longer than 125 and shorter than 65,536 bytes (RFC 6455)."""
    assert 125 < len(text) < 65_536
    return bytes((_TEXT_FRAME, _TWO_BYTES_OF_LENGTH)) + len(text).to_bytes(2, "big") + text


def _template(names: Mapping[int, str], rounds: int, dice: random.Random) -> list[Slot]:
    order = [place for place in names for _ in range(rounds)]
    dice.shuffle(order)
    turns = dict.fromkeys(names, 0)
    slots: list[Slot] = []
    for place in order:
        slots.append(Slot(place, frame_of(_text(names[place], place, turns[place], rounds, dice))))
        turns[place] += 1
    return slots


def _text(name: str, instrument: int, turn: int, rounds: int, dice: random.Random) -> bytes:
    last_digits = f"{turn:0{len(str(rounds)) - 1}d}" if rounds > 1 else ""
    price = f"{100 * (1 + instrument % 40) * dice.uniform(0.999, 1.001):.2f}"
    side = dice.choice(("buy", "sell"))
    return (
        f'{{"arg":{{"channel":"trades-all","instId":"{name}"}},"data":[{{"instId":"{name}",'
        f'"tradeId":"{instrument + 1}{_CHUNK.decode()}{last_digits}","px":"{price}",'
        f'"sz":"{dice.uniform(0.0001, 2):.4f}","side":"{side}","source":"0","ts":"{_TIME.decode()}"}}]}}'
    ).encode()


def _filled(template: bytes, chunk: int, milliseconds: int) -> bytes:
    return template.replace(_CHUNK, b"%0*d" % (CHUNK_DIGITS, chunk)).replace(_TIME, b"%013d" % milliseconds)
