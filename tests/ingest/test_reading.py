"""What one read of a socket brings, taken at once: the same frames and the same account as message by message."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.clock import HostClock
from ingest.context import Context
from ingest.exchanges import binance, okx
from ingest.feed import Feed, Plan, Subscription
from ingest.session import Session
from ingest.subscriptions import Entry
from pipeline.frames import Frame, SubscriptionData
from tests.ingest.conftest import QUICK

WANTED = {
    "okx": tuple(Subscription("trades-all", name) for name in ("BTC-USDT", "ETH-USDT")),
    "binance": tuple(Subscription("trade", name) for name in ("BTCUSDT", "ETHUSDT")),
}
DATA = {
    "okx": [
        b'{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[{"px":"1"}]}',
        b'{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"action":"update","data":[{"px":"2"}]}',
        b'{"arg":{"channel":"trades-all","instId":"ETH-USDT"},"data":[{"px":"3"}]}',
    ],
    "binance": [
        b'{"stream":"btcusdt@trade","data":{"p":"1"}}',
        b'{"stream":"btcusdt@trade","data":{"p":"2"}}',
        b'{"stream":"ethusdt@trade","data":{"p":"3"}}',
    ],
}
OTHERS = {
    "okx": [
        b'{"arg":{"channel":"trades-all","instId":"NOT-OURS"},"data":[{"px":"4"}]}',
        b'{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[{"px":"\xff"}]}',
        b'{"event":"subscribe","id":"r1","arg":{"channel":"trades-all","instId":"ETH-USDT"}}',
        b'{"event":"error","code":"60018","msg":"Wrong channel: trades-all, instId: BTC-USDT","id":"r1"}',
        b'{"event":"notice","code":"64008","msg":"soon"}',
        b"pong",
        b"{",
        b"",
    ],
    "binance": [
        b'{"stream":"notours@trade","data":{"p":"4"}}',
        b'{"stream":"btcusdt@trade","data":{"p":"\xff"}}',
        b'{"stream":"!serverShutdown","data":{}}',
        b'{"stream":"btcusdt@trade","dataa":{}}',
        b'{"result":null,"id":"r1"}',
        b'{"error":{"code":2,"msg":"no"},"id":"r1"}',
        b'{"stream":"',
        b"",
    ],
}


class Hearing:
    """A session whose clock stands still between reads, and all that it wrote."""

    def __init__(self, name: str) -> None:
        self.now = 0
        self.frames: list[Frame] = []
        self.reports: list[str] = []
        feed: Feed = okx.Feed() if name == "okx" else binance.Feed()
        clock = HostClock(lambda: self.now, lambda: self.now)
        context = Context(feed, clock, QUICK, self.frames.append, _described, self.reports.append)
        wanted = WANTED[name]
        self.session = Session("c#1", "ws://c", Plan(feed.route(wanted[0]), wanted), context)
        feed.subscribe("r1", wanted)
        self.session.ledger.asked("r1", wanted, 0)

    def hear(self, messages: list[bytes]) -> None:
        self.now += 1_000_000
        self.session._received([bytearray(message) for message in messages])

    def state(self) -> tuple[object, ...]:
        session = self.session
        entries = [(_plain(entry), _pace(entry.pace)) for entry in session.ledger.entries.values()]
        told = (session.frames, session.pongs, session.last_frame, session.last_data, session.state, session.why)
        judged = (session.settled.is_set(), session.proven.is_set(), _pace(session.ledger._pace))
        return self.frames, self.reports, entries, told, judged


def _described(subscription: Subscription) -> SubscriptionData:
    return SubscriptionData(*subscription, "requested")


def _plain(entry: Entry) -> tuple[object, ...]:
    return entry.state, entry.reason, entry.request, entry.tries, entry.due, entry.roused, entry.asked, entry.refusals


def _pace(pace: object) -> list[object]:
    return [getattr(pace, name) for name in ("heard", "longest", "count", "since", "faded")]


def reads_of(name: str) -> st.SearchStrategy[list[list[bytes]]]:
    data, any_text = st.sampled_from(DATA[name]), st.sampled_from(DATA[name] + OTHERS[name])
    return st.lists(st.lists(data, min_size=1, max_size=8) | st.lists(any_text, min_size=1, max_size=8), max_size=8)


@settings(max_examples=300)
@given(st.sampled_from(["okx", "binance"]).flatmap(lambda name: st.tuples(st.just(name), reads_of(name))))
def test_what_a_read_brings_is_taken_as_if_it_came_message_by_message(case: tuple[str, list[list[bytes]]]) -> None:
    name, reads = case
    together, each = Hearing(name), Hearing(name)
    for read in reads:
        together.hear(read)
        each.now += 1_000_000
        for message in read:
            each.session._received([bytearray(message)])
        assert together.state() == each.state()


def test_data_that_flow_are_taken_at_once_with_one_look_at_the_clock() -> None:
    for name, data in DATA.items():
        hearing, looks = Hearing(name), list[int]()
        hearing.hear(data)
        hearing.hear(data)
        now = hearing.session._now
        hearing.session._now = lambda now=now, looks=looks: looks.append(1) or now()
        hearing.session._classify = lambda text: 1 / 0
        hearing.hear(data)
        assert len(looks) == 1
        assert [frame.data.encode() for frame in hearing.frames[-3:]] == data
