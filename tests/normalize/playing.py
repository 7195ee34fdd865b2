"""Raw streams made by hand, and Normalize run over them in batches of any size."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from normalize.stage import Normalize
from pipeline.exchanges import EXCHANGES
from pipeline.frames import ClockData, CloseData, Frame, OpenData, RawEntry, RequestData, SubscriptionData, pack
from pipeline.steps import Entry, Step, stream_id
from pipeline.streams import Keys

KEYS = Keys("md", "okx")
SECOND = 1_000_000_000
T0 = 1_790_000_000 * SECOND
A = "wss://ws.okx.com/ws/v5/business#1"
B = "wss://ws.okx.com/ws/v5/business#2"
SPOT = "BTC-USDT"
BINANCE = "https://api.binance.com"


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


def request(key: str, number: int, state: Any, at: float, **fields: Any) -> Frame:
    return _own("request", RequestData(key=key, number=number, state=state, **fields), at, "rest")


def book(
    at: float,
    last: int,
    previous: int = -1,
    bids: str = "",
    asks: str = "",
    conn: str = A,
    instrument: str = SPOT,
    action: str | None = None,
) -> Frame:
    """A frame of OKX's `books`: a snapshot where it follows -1. `bids`, `asks`: `"100@2 99@0"`."""
    row = {"bids": _rows(bids), "asks": _rows(asks), "ts": str((T0 + round(at * SECOND)) // 1_000_000)}
    row |= {"seqId": last, "prevSeqId": previous}  # type: ignore[dict-item]
    told = {"arg": {"channel": "books", "instId": instrument}, "data": [row]}
    action = action or ("snapshot" if previous == -1 else "update")
    return Frame(T0 + round(at * SECOND), conn, "in", "ws", json.dumps(told | {"action": action}))


def depth(
    at: float, first: int, last: int, bids: str = "", asks: str = "", conn: str = A, instrument: str = "BTCUSDT"
) -> Frame:
    """A frame of Binance's `depth@100ms`."""
    event = {"e": "depthUpdate", "E": (T0 + round(at * SECOND)) // 1_000_000, "s": instrument, "U": first, "u": last}
    told = {"stream": f"{instrument.lower()}@depth@100ms", "data": event | {"b": _pairs(bids), "a": _pairs(asks)}}
    return Frame(T0 + round(at * SECOND), conn, "in", "ws", json.dumps(told))


def snapshot(
    at: float, last: int, bids: str, asks: str, instrument: str = "BTCUSDT", key: str | None = None, limit: int = 1000
) -> Frame:
    """Binance's answer to a want, or (without a key) a depth reply somebody recorded."""
    body = json.dumps({"lastUpdateId": last, "bids": _pairs(bids), "asks": _pairs(asks)})
    url = f"{BINANCE}/api/v3/depth?symbol={instrument}&limit={limit}"
    return Frame(T0 + round(at * SECOND), BINANCE, "in", "rest", body, url, key)


def exchange_info(at: float, *instruments: str) -> Frame:
    """Binance's list, of pairs with USDT."""
    rows = [
        {"symbol": name, "status": "TRADING", "baseAsset": name.removesuffix("USDT"), "quoteAsset": "USDT"}
        for name in instruments
    ]
    body = json.dumps({"symbols": [row | {"filters": []} for row in rows]})
    return Frame(T0 + round(at * SECOND), BINANCE, "in", "rest", body, f"{BINANCE}/api/v3/exchangeInfo")


def _rows(levels: str) -> list[list[str]]:
    return [[*pair, "0", "1"] for pair in _pairs(levels)]


def _pairs(levels: str) -> list[list[str]]:
    return [level.split("@") for level in levels.split()]


def _own(kind: Any, data: msgspec.Struct, at: float, conn: str) -> Frame:
    return Frame(T0 + round(at * SECOND), conn, "in", kind, msgspec.json.encode(data).decode())


def entries(frames: Iterable[Frame], *, writer: int = 1, first: int = 1, size: int = 1) -> list[RawEntry]:
    """Raw entries of `size` frames."""
    pieces = list(frames)
    groups = [tuple(pieces[start : start + size]) for start in range(0, len(pieces), size)]
    return [RawEntry(writer, first + number, group) for number, group in enumerate(groups)]


class Played:
    """What a run wrote: per stream the entries in order, the hashes, the saved state, and the stage at its end."""

    def __init__(self, exchange: str = "okx") -> None:
        self.exchange = exchange
        self.streams: dict[str, list[tuple[Any, ...]]] = {}
        self.state: dict[bytes, bytes] = {}
        self.wants: dict[str, dict[str, Any]] = {}
        self.last: dict[str, dict[str, dict[str, Any]]] = {}
        self.reread = 0
        self.faults: list[str] = []
        self.stage = stage(exchange)

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
                case "HSET" if command[1] == KEYS.want:
                    self.wants[str(command[2])] = json.loads(command[3])  # type: ignore[arg-type]
                case "HSET":
                    kind = str(command[1]).removeprefix("md:last:").removesuffix(":{okx}")
                    for field, data in zip(command[2::2], command[3::2], strict=True):
                        self.last.setdefault(kind, {})[str(field)] = json.loads(data)  # type: ignore[arg-type]
                case "HDEL" if command[1] == KEYS.want:
                    self.wants.pop(str(command[2]), None)
                case "HDEL" if command[1] != KEYS.state("normalize"):
                    kind = str(command[1]).removeprefix("md:last:").removesuffix(":{okx}")
                    for field in command[2:]:
                        self.last.get(kind, {}).pop(str(field), None)
                case "HDEL":
                    for field in command[2:]:
                        self.state.pop(str(field).encode(), None)

    def restore(self, raw: Sequence[Entry], oldest: bytes | None = None) -> None:
        """The stage anew from the saved state; `raw` are the entries so far, of which those before `oldest` are
        gone."""
        self.stage = stage(self.exchange)
        self.stage.restore(dict(self.state))
        if oldest is not None:
            self.stage.lack(oldest)
        after = self.stage.reread_from
        for entry in raw:
            if after is not None and stream_id(entry.id) > stream_id(after):
                self.stage.reread(entry)
                self.reread += 1
        self.faults += self.stage.faults()

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


def stage(exchange: str = "okx") -> Normalize:
    return Normalize(KEYS, EXCHANGES[exchange])


def play(
    raw: Sequence[RawEntry], *, batch: int = 1, restore: bool = False, end: bool = False, exchange: str = "okx"
) -> Played:
    """Runs the entries `batch` at a time; with `restore`, from the saved state anew before each batch."""
    played = Played(exchange)
    played.stage.restore({})
    every = [Entry(b"%d-0" % number, pack(entry)) for number, entry in enumerate(raw, start=1)]
    for start in range(0, len(every), batch):
        if restore:
            played.restore(every[:start])
        go_on(played, every[start : start + batch])
    if end:
        step = Step(KEYS, "normalize")
        played.stage.finish(step)
        played.take(step)
    return played


def go_on(played: Played, entries: Iterable[Entry]) -> None:
    """One step more."""
    step = Step(KEYS, "normalize")
    found = [(entry.id, [part for pair in entry.fields.items() for part in pair]) for entry in entries]
    while found:
        del found[: played.stage.process_many(found, step)]
    played.stage.save(step)
    played.take(step)


def run(*frames: Frame, end: bool = False, exchange: str = "okx") -> Played:
    """The frames as one writer's entries, one each."""
    return play(entries(frames), end=end, exchange=exchange)
