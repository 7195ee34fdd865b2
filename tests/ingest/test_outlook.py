"""How far repairs have come and when they will be done, by a clock of the test's own."""

from ingest.budget import Backoff
from ingest.clock import HostClock
from ingest.context import Context
from ingest.exchanges.okx import Feed
from ingest.feed import Numbers, Request
from ingest.outlook import Outlook
from ingest.repair import Pace, Repair
from ingest.timing import Timing
from pipeline.frames import SubscriptionData
from pipeline.timeframes import MINUTE, SECOND
from pipeline.wants import Want


class Pages:
    """A history that covers what the test says."""

    behind = 0

    def __init__(self) -> None:
        self.spans: tuple[int, int] | None = None

    def next(self) -> Request | None:
        return Request("/", "pages")

    def take(self, body: str) -> Numbers:
        return Numbers(None, None, 0)


CONTEXT = Context(
    Feed(),
    HostClock(),
    Timing(),
    lambda frame: None,
    lambda each: SubscriptionData(*each, "requested"),
    lambda text: None,
)


def repair(first: int, last: int, at: int = 0) -> tuple[Repair, Pages]:
    want = Want(
        what="trades", instrument="X", number=3, since=1, reason="gap", first=first, last=last, from_time=at, to_time=at
    )
    pages = Pages()
    return Repair(f"x {first}", want, CONTEXT, pages, 77, Backoff(SECOND, MINUTE, lambda: 0.5)), pages


def test_a_pace_is_that_of_the_last_half_minute() -> None:
    pace = Pace()
    assert pace.rate(SECOND) is None
    for second in range(1, 101):
        pace.add(10, second * SECOND)
    assert pace.rate(100 * SECOND) == 10
    assert pace.rate(115 * SECOND) == 5
    assert pace.rate(200 * SECOND) == 0


def test_a_first_page_is_no_endless_speed() -> None:
    pace = Pace()
    pace.add(100, SECOND)
    assert pace.rate(SECOND) == 100
    assert pace.rate(5 * SECOND) == 25


def test_a_row_tells_how_far_it_has_come_and_when_it_ends() -> None:
    each, pages = repair(101, 1100)
    assert each.row(SECOND, 12.34) == {
        "number": 3,
        "state": "queued",
        "reason": None,
        "done": 0,
        "wanted": 1000,
        "pages": 0,
        "rate": None,
        "left": 12.3,
        "deadline": 77,
        "late": False,
    }
    pages.spans = (1001, 1100)
    assert each.progressed(SECOND) == 100
    pages.spans = (901, 1100)
    assert each.progressed(2 * SECOND) == 100
    row = each.row(5 * SECOND, 12.34)
    assert (row["done"], row["pages"], row["rate"], row["left"]) == (200, 2, 50.0, 16.0)
    each.late = True
    each.ended("answered")
    row = each.row(5 * SECOND, None)
    assert (row["state"], row["rate"], row["left"], row["late"]) == ("answered", None, None, False)


def test_trouble_is_counted_from_its_beginning_and_ends_with_a_page() -> None:
    each, _ = repair(1, 10)
    assert each.troubled("away", SECOND) == (SECOND, SECOND // 2)
    assert each.troubled("away still", 9 * SECOND) == (SECOND, SECOND)
    assert each.reason == "away still"
    each.progressed(10 * SECOND)
    assert each.reason is None
    assert each.troubled("again", 11 * SECOND) == (11 * SECOND, SECOND // 2)


def test_what_is_more_urgent_is_done_first_and_a_ban_comes_before_all() -> None:
    old, new = repair(1, 500, at=1)[0], repair(1001, 1100, at=2)[0]
    outlook = Outlook()
    assert outlook.seconds([new, old], 100.0, 0, SECOND) == {"x 1": 5, "x 1001": 6}
    assert outlook.seconds([new, old], 100.0, 11 * SECOND, SECOND) == {"x 1": 15, "x 1001": 16}


def test_after_half_a_minute_the_pace_seen_counts_and_after_a_rest_what_is_allowed() -> None:
    each, _ = repair(1, 600)
    outlook = Outlook()
    for second in range(1, 41):
        outlook.add(20, second * SECOND)
        found = outlook.seconds([each], 100.0, 0, second * SECOND)["x 1"]
        assert found == (6 if second < 31 else 30)
    assert outlook.seconds([], 100.0, 0, 41 * SECOND) == {}
    assert outlook.seconds([each], 100.0, 0, 42 * SECOND) == {"x 1": 6}
