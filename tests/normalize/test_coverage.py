"""Coverage begins with data, moves between connections, and ends with the last frame that proved it."""

from pipeline.frames import Frame
from tests.normalize.playing import SECOND, T0, A, B, clock, closed, entries, opened, play, run, subscription, trade


def changes(*frames: Frame) -> list[tuple[str, str, str | None, float]]:
    """(state, cause, connection, seconds after T0) of every coverage record."""
    return rows(run(*frames).of("coverage"))


def rows(records: list[dict[str, object]]) -> list[tuple[str, str, str | None, float]]:
    return [
        (str(r["state"]), str(r["cause"]), r.get("connection"), (r["time"] - T0) / SECOND)  # type: ignore[operator,misc]
        for r in records
    ]


def test_an_acknowledgement_covers_nothing_and_data_does() -> None:
    frames = [clock(0), opened(0), subscription("requested", 0.1), subscription("subscribed", 0.2), clock(5, a=4.9)]
    assert changes(*frames) == []
    assert changes(*frames, trade(7, 5.5, delay=0.5)) == [("covered", "open", A, 6.0)]


def test_a_replayed_trade_covers_from_its_arrival_not_from_its_time() -> None:
    assert changes(clock(0), opened(0), trade(7, -3600, delay=3601)) == [("covered", "open", A, 1.0)]
    assert changes(opened(0), trade(7, -3600, delay=3601)) == [], "without the exchange's clock it covers nothing"


def test_times_are_the_exchanges() -> None:
    offset = 2 * SECOND
    found = changes(clock(0, offset), opened(0), trade(7, 3, delay=-1), clock(5, offset, a=4.5), closed(6))
    assert found == [("covered", "open", A, 4.0), ("uncovered", "closed", A, 6.5)]


def test_it_ends_with_the_last_frame_of_any_sort() -> None:
    found = changes(clock(0), opened(0), trade(7, 1), clock(5, a=4.5), closed(20))
    assert found[-1] == ("uncovered", "closed", A, 4.5)


def test_it_moves_to_another_connection_that_shows_data() -> None:
    found = changes(
        clock(0), opened(0), trade(7, 1), opened(2, B), trade(7, 1, B, 2), clock(4, a=3.9, b=3.9), closed(4.1)
    )
    assert found == [("covered", "open", A, 1.01), ("covered", "moved", B, 3.9)]


def test_an_idle_second_connection_does_not_take_over() -> None:
    found = changes(clock(0), opened(0), opened(0, B), trade(7, 1), closed(2), trade(8, 3, B))
    assert [row[:3] for row in found] == [
        ("covered", "open", A),
        ("uncovered", "closed", A),
        ("covered", "open", B),
    ]


def test_the_end_of_the_other_connection_changes_nothing() -> None:
    found = changes(clock(0), opened(0), opened(0, B), trade(7, 1), trade(7, 1, B, 2), closed(4, B))
    assert [row[:3] for row in found] == [("covered", "open", A)]


def test_unsubscribing_ends_it_and_what_was_under_way_does_not_revive_it() -> None:
    frames = [clock(0), opened(0), subscription("subscribed", 0), trade(7, 1)]
    ended = [*frames, subscription("unsubscribed", 2), trade(8, 2.5)]
    assert [row[:2] for row in changes(*ended)] == [("covered", "open"), ("uncovered", "unsubscribed")]
    again = changes(*ended, subscription("requested", 3), trade(9, 4))
    assert again[-1][:2] == ("covered", "open")


def test_settings_come_from_the_subscription_and_are_told_when_they_change() -> None:
    frames = [clock(0), opened(0), subscription("subscribed", 0, timeframes=("1m",), grace=5, quiet_from="5m")]
    played = run(*frames, trade(7, 1), subscription("subscribed", 2, timeframes=("1s", "1m")))
    first, second = played.of("coverage")
    assert first["candles"] == {"timeframes": ["1m"], "grace": 5, "quiet_from": "5m"}
    assert (second["state"], second["cause"], second["candles"]["timeframes"]) == ("covered", "settings", ["1s", "1m"])


def test_another_channel_proves_nothing_about_trades() -> None:
    frames = [clock(0), opened(0), trade(7, 1), subscription("unsubscribed", 2, channel="books")]
    assert [row[0] for row in changes(*frames)] == ["covered"]


def test_a_jump_in_the_entries_breaks_it_until_new_data() -> None:
    raw = entries([clock(0), opened(0), trade(7, 1), clock(2, a=1.9)])
    lost = entries([clock(3, a=2.9), trade(8, 4)], first=9)
    assert rows(play([*raw, *lost]).of("coverage")) == [
        ("covered", "open", A, 1.01),
        ("uncovered", "lost", A, 1.9),
        ("covered", "open", A, 4.01),
    ]


def test_a_new_writer_ends_every_connection_of_the_old_one() -> None:
    old = entries([clock(0), opened(0), trade(7, 1), clock(2, a=1.9)])
    new = entries([clock(30), opened(31), trade(7, 1, delay=31), trade(8, 33)], writer=2)
    played = play([*old, *new])
    assert rows(played.of("coverage")) == [
        ("covered", "open", A, 1.01),
        ("uncovered", "writer", A, 1.9),
        ("covered", "open", A, 32.0),
    ]
    assert played.trades() == [(0, 7), (0, 8)]


def test_a_new_writer_after_a_close_breaks_nothing_more() -> None:
    old = entries([clock(0), opened(0), trade(7, 1), closed(2)])
    new = entries([clock(30), opened(31)], writer=2)
    assert [row[:2] for row in rows(play([*old, *new]).of("coverage"))] == [
        ("covered", "open"),
        ("uncovered", "closed"),
    ]


def test_coverage_stands_behind_the_trades_that_prove_it() -> None:
    labels = [label for label, _ in run(clock(0), opened(0), trade(7, 1), closed(2)).ordered()]
    assert labels == ["clock", "trade", "coverage", "coverage"]


def test_a_host_ahead_of_an_unknown_clock_follows_the_numbers_all_the_same() -> None:
    """Only the first trade may be a replayed one; nobody dated coverage but the exchange."""
    ahead = 600.0
    frames = [opened(ahead), *(trade(number, number, delay=ahead) for number in (7, 8, 10))]
    played = run(*frames, clock(ahead + 13, None), closed(ahead + 14))
    assert [(row["from_sequence"], row["to_sequence"]) for row in played.of("gap")] == [(9, 9)]
    assert rows(played.of("coverage")) == [("covered", "open", A, ahead + 8), ("uncovered", "closed", A, 10)]


def test_the_opening_is_dated_anew_when_the_exchanges_clock_becomes_known() -> None:
    frames = [opened(600), clock(601, -600 * SECOND, a=600), trade(7, 2, delay=600), trade(9, 3, delay=600)]
    assert [row["from_sequence"] for row in run(*frames, clock(610, -600 * SECOND)).of("gap")] == [8]


def test_what_comes_late_of_a_closed_connection_is_used_and_proves_nothing() -> None:
    late = [trade(8, 1.5, delay=0.6), subscription("unsubscribed", 2.2), clock(2.25)]
    played = run(clock(0), opened(0), trade(7, 1), closed(2), *late)
    assert played.trades() == [(0, 7), (0, 8)]
    assert rows(played.of("coverage")) == [("covered", "open", A, 1.01), ("uncovered", "closed", A, 1.01)]
    assert not any(field.startswith(b"connection:") for field in played.state)
    again = [opened(3), trade(9, 3.1)]
    assert rows(run(clock(0), opened(0), trade(7, 1), closed(2), *late, *again).of("coverage"))[-1][:2] == (
        "covered",
        "open",
    )


def test_nothing_is_remembered_for_ever_of_connections_that_are_gone() -> None:
    frames = [clock(0)]
    for number in range(1, 300):
        conn = f"wss://ws.okx.com/ws/v5/business#{number}"
        frames += [opened(number, conn), trade(number, number, conn), closed(number + 0.5, conn)]
        frames.append(trade(number, number, conn, delay=0.6))
    played = run(*frames, clock(320))
    assert [number for _, number in played.trades()] == list(range(1, 300))
    assert not any(field.startswith(b"connection:") for field in played.state)
    assert len(played.state[b"stream"]) < 6_000


def test_a_connection_whose_end_was_lost_is_forgotten_once_others_live_without_it() -> None:
    frames = [clock(0), opened(0), opened(0, B), trade(7, 1), clock(2, a=2, b=2)]
    assert b"connection:" + B.encode() in run(*frames, clock(50, a=50)).state
    played = run(*frames, clock(50, a=50), clock(63, a=63))
    assert b"connection:" + B.encode() not in played.state
    assert b"connection:" + A.encode() in run(*frames, clock(900)).state, "where none is listed nobody knows"
    assert b"connection:" + A.encode() in run(*frames, clock(900, b=900)).state, "the ledger has it as covered"
