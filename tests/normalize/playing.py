"""Raw streams made by hand, and Normalize run over them in batches of any size."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from normalize.stage import Normalize
from pipeline.exchanges import EXCHANGES
from pipeline.frames import ClockData, CloseData, Frame, OpenData, RawEntry, SubscriptionData, pack
from pipeline.steps import Entry, Step
from pipeline.streams import Keys

KEYS = Keys("md", "okx")
SECOND = 1_000_000_000
T0 = 1_790_000_000 * SECOND
A = "wss://ws.okx.com/ws/v5/business#1"
B = "wss://ws.okx.com/ws/v5/business#2"
SPOT = "BTC-USDT"


def fill(number: int, at: float, instrument: str = SPOT, **fields: str) -> dict[str, str]:
    """An element of trades-all: number, seconds after T0."""
    known = {"instId": instrument, "tradeId": str(number), "px": "100.5", "sz": "0.25", "side": "buy", "source": "0"}
    return known | {"ts": str((T0 + round(at * SECOND)) // 1_000_000)} | fields


def data(*fills: dict[str, str], at: float, conn: str = A, channel: str = "trades-all") -> Frame:
    text = json.dumps({"arg": {"channel": channel, "instId": fills[0]["instId"]}, "data": fills})
    return Frame(T0 + round(at * SECOND), conn, "in", "ws", text)


def trade(number: int, at: float, conn: str = A, delay: float = 0.01) -> Frame:
    return data(fill(number, at), at=at + delay, conn=conn)


def opened(at: float, conn: str = A) -> Frame:
    return _own("open", OpenData(url=conn), at, conn)


def closed(at: float, conn: str = A) -> Frame:
    return _own("close", CloseData(reason="1006"), at, conn)


def clock(at: float, offset: int | None = 0, **connections: float) -> Frame:
    """`a=1.5`: connection A was heard at 1.5."""
    heard = {{"a": A, "b": B}[name]: T0 + round(last * SECOND) for name, last in connections.items()}
    return _own("clock", ClockData(connections=heard, offset=offset), at, "clock")


def subscription(state: Any, at: float, conn: str = A, **fields: Any) -> Frame:
    known: dict[str, Any] = {"channel": "trades-all", "instrument": SPOT, "timeframes": ("1s", "1m")}
    return _own("subscription", SubscriptionData(state=state, **(known | fields)), at, conn)


def _own(kind: Any, data: msgspec.Struct, at: float, conn: str) -> Frame:
    return Frame(T0 + round(at * SECOND), conn, "in", kind, msgspec.json.encode(data).decode())


def entries(frames: Iterable[Frame], *, writer: int = 1, first: int = 1, size: int = 1) -> list[RawEntry]:
    """Raw entries of `size` frames."""
    pieces = list(frames)
    groups = [tuple(pieces[start : start + size]) for start in range(0, len(pieces), size)]
    return [RawEntry(writer, first + number, group) for number, group in enumerate(groups)]


class Played:
    """What a run wrote: per stream the entries in order, the saved state, and the stage at its end."""

    def __init__(self) -> None:
        self.streams: dict[str, list[tuple[Any, ...]]] = {}
        self.state: dict[bytes, bytes] = {}
        self.stage = stage()

    def take(self, step: Step) -> None:
        for command in step.commands():
            match command[0]:
                case "XADD":
                    self.streams.setdefault(str(command[1]), []).append(command[2:])
                case "HSET" if command[1] == KEYS.state("normalize"):
                    pairs = list(command[2:])
                    self.state |= {
                        str(field).encode(): value  # type: ignore[misc]
                        for field, value in zip(pairs[::2], pairs[1::2], strict=True)
                    }
                case "HDEL":
                    for field in command[2:]:
                        self.state.pop(str(field).encode(), None)

    def trades(self, instrument: str | None = None) -> list[tuple[int, int]]:
        """(epoch, number) of every trade that passed."""
        found = [record for label, record in self.ordered() if label == "trade"]
        return [(r.get("epoch", 0), r["sequence"]) for r in found if instrument in (None, r["instrument"])]

    def ordered(self) -> list[tuple[str, dict[str, Any]]]:
        """md:trade in order: (trade | clock | coverage | gap, record)."""
        rows = []
        for *_, field, label, _, value in self.streams.get(KEYS.trade, []):
            rows.append(("trade" if field == b"symbol" else label.decode(), json.loads(value)))
        return rows

    def of(self, name: str) -> list[dict[str, Any]]:
        """The records of one sort in md:trade."""
        return [record for label, record in self.ordered() if label == name]

    def stream(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(command[-1]) for command in self.streams.get(KEYS.stream(kind), [])]


def stage() -> Normalize:
    return Normalize(KEYS, EXCHANGES["okx"])


def play(raw: Sequence[RawEntry], *, batch: int = 1, restore: bool = False, end: bool = False) -> Played:
    """Runs the entries `batch` at a time; with `restore`, from the saved state anew before each batch."""
    played = Played()
    played.stage.restore({})
    for start in range(0, len(raw), batch):
        if restore:
            played.stage = stage()
            played.stage.restore(dict(played.state))
        step = Step(KEYS, "normalize")
        for number, entry in enumerate(raw[start : start + batch], start=start):
            played.stage.process(Entry(b"%d-0" % number, pack(entry)), step)
        played.stage.save(step)
        played.take(step)
    if end:
        step = Step(KEYS, "normalize")
        played.stage.finish(step)
        played.take(step)
    return played


def run(*frames: Frame, end: bool = False) -> Played:
    """The frames as one writer's entries, one each."""
    return play(entries(frames), end=end)
