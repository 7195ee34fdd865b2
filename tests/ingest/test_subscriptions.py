"""The account of subscriptions against a venue that answers in every way it may."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.feed import Subscription
from ingest.subscriptions import Ledger
from pipeline.timeframes import HOUR, SECOND

PATIENCE = 5 * SECOND
SILENCE = 300 * SECOND


def wanted(count: int) -> list[Subscription]:
    return [Subscription("trades-all", f"C{number}-USDT") for number in range(count)]


def ledger(count: int) -> Ledger:
    return Ledger(wanted(count), PATIENCE, SILENCE)


def test_everything_is_asked_at_once_and_only_once_while_it_is_answered() -> None:
    account, subscriptions = ledger(3), wanted(3)
    assert account.due(0) == [tuple(subscriptions)]
    assert account.asked("r1", subscriptions, 0) == subscriptions
    assert account.due(PATIENCE - 1) == []
    assert all(account.accepted(subscription, 1) for subscription in subscriptions)
    assert not account.accepted(subscriptions[0], 2), "a second acknowledgement changes nothing"
    assert account.settled
    assert not account.proven
    assert account.due(PATIENCE) == []


def test_a_named_refusal_settles_one_and_the_unanswered_rest_is_asked_again_without_it() -> None:
    account, (one, two, three) = ledger(3), wanted(3)
    account.asked("r1", (one, two, three), 0)
    assert account.refused("r1", two, "60018 no", 1) == [two]
    assert account.refused("r1", two, "60018 no", 2) == [], "said once"
    assert account.due(PATIENCE) == [(one, three)]
    assert account.asked("r2", (one, three), PATIENCE) == [], "not for the first time"
    account.accepted(one, PATIENCE + 1)
    account.accepted(three, PATIENCE + 1)
    assert account.settled
    assert account.due(2 + 4 * PATIENCE) == []


def test_a_refused_one_is_asked_for_again_soon_and_then_ever_more_rarely() -> None:
    account, (one,) = ledger(1), wanted(1)
    now, pauses = 0, []
    for number in range(12):
        assert account.due(now) == [(one,)]
        account.asked(f"r{number}", (one,), now)
        assert account.refused(f"r{number}", one, "60018 no", now) == ([one] if number == 0 else []), "said once"
        pause = next(pause for pause in range(0, HOUR + 1, SECOND) if account.due(now + pause))
        pauses.append(pause // SECOND)
        now += pause
    assert pauses[:4] == [20, 40, 80, 160]
    assert pauses[-1] == HOUR // SECOND, "an instrument may come back"
    account.asked("r", (one,), now)
    assert account.accepted(one, now)
    account.left(one, now)
    account.asked("again", (one,), now)
    assert account.refused("again", one, "60018 no", now) == [one]
    assert account.due(now + 4 * PATIENCE) == [(one,)]


def test_unanswered_requests_are_repeated_ever_more_rarely() -> None:
    account, (one,) = ledger(1), wanted(1)
    now, pauses = 0, []
    for number in range(5):
        assert account.due(now) == [(one,)]
        account.asked(f"r{number}", (one,), now)
        pause = next(pause for pause in range(0, HOUR, SECOND) if account.due(now + pause))
        pauses.append(pause // SECOND)
        now += pause
    assert pauses == [5, 10, 20, 40, 80]


@given(st.integers(1, 40), st.data())
def test_a_refusal_that_names_only_its_request_is_traced_to_its_culprits(count: int, data: st.DataObject) -> None:
    """The venue refuses a whole request as soon as one bad subscription is in it, and does not say which."""
    subscriptions = wanted(count)
    bad = set(data.draw(st.lists(st.sampled_from(subscriptions), max_size=3)))
    account, now, request = ledger(count), 0, 0
    while not account.settled:
        for group in account.due(now):
            request += 1
            account.asked(f"r{request}", group, now)
            if bad & set(group):
                account.refused(f"r{request}", None, "60012 Invalid request", now)
            else:
                for subscription in group:
                    account.accepted(subscription, now)
        now += PATIENCE << 7
        assert request < 480, "within an hour's allowance"
    assert {key for key, entry in account.entries.items() if entry.state == "refused"} == bad


def test_data_is_worth_an_acknowledgement_and_proves() -> None:
    account, (one, two) = ledger(2), wanted(2)
    account.asked("r1", (one, two), 0)
    assert account.data(one, 1)
    assert not account.data(one, 2)
    assert not account.data(None, 2)
    assert not account.data(Subscription("books", "X"), 2)
    assert not account.settled
    account.refused("r1", two, "60018", 3)
    assert account.settled
    assert account.proven


def test_a_silent_subscription_is_asked_again_and_a_dead_connection_is_seen() -> None:
    account, (one, two) = ledger(2), wanted(2)
    account.asked("r1", (one, two), 0)
    account.accepted(one, 0)
    account.accepted(two, 0)
    account.data(two, SILENCE // 2)
    assert account.due(SILENCE) == [(one,)]
    account.asked("r2", (one,), SILENCE)
    account.accepted(one, SILENCE)
    assert not account.dead(3 * SILENCE), "the other one had data, and was not asked again"
    account.asked("r3", (two,), 3 * SILENCE)
    assert not account.dead(4 * SILENCE)
    assert account.dead(5 * SILENCE)
    account.data(one, 5 * SILENCE)
    assert not account.dead(5 * SILENCE)


def test_a_connection_is_dead_although_its_subscriptions_fell_silent_one_by_one() -> None:
    account, subscriptions = ledger(4), wanted(4)
    account.asked("r0", subscriptions, 0)
    for number, subscription in enumerate(subscriptions):
        account.data(subscription, number * 20 * SECOND)
    now = 0
    while not account.dead(now):
        for group in account.due(now):
            account.asked("r", group, now)
        now += SECOND
        assert now < HOUR
    # The last one is silent for 300 s, is asked for again within a minute, and then silent for 600 s more.
    assert 60 * SECOND + 3 * SILENCE <= now <= 120 * SECOND + 3 * SILENCE


def test_many_silent_subscriptions_leave_requests_for_what_matters() -> None:
    """A hundred quiet instruments, each with a trade in six minutes, all at other times."""
    account, subscriptions = ledger(100), wanted(100)
    account.asked("r0", subscriptions, 0)
    for subscription in subscriptions:
        account.accepted(subscription, 0)
    requests = 0
    for now in range(0, HOUR, SECOND // 2):
        for number, subscription in enumerate(subscriptions):
            if now % (360 * SECOND) == number * 3 * SECOND:
                account.data(subscription, now)
        for group in account.due(now):
            requests += 1
            account.asked(f"r{requests}", group, now)
    assert 0 < requests <= 60, "of 480 in an hour"


def test_what_is_silent_waits_where_requests_are_few_and_what_is_new_does_not() -> None:
    account, (one, two) = ledger(2), wanted(2)
    account.asked("r1", (one,), 0)
    account.accepted(one, 0)
    assert account.due(SILENCE, rouse=False) == [(two,)]
    assert account.due(SILENCE) == [(one, two)]


def test_a_connection_without_requests_to_spare_is_seen_to_be_dead() -> None:
    account, (one,) = ledger(1), wanted(1)
    account.asked("r1", (one,), 0)
    account.data(one, 0)
    assert account.due(SILENCE, rouse=False) == account.due(2 * SILENCE, rouse=False) == []
    assert not account.dead(3 * SILENCE - 1)
    assert account.dead(3 * SILENCE)


def test_what_is_barred_is_not_asked_for_until_readmitted_or_heard() -> None:
    account, (one, two) = ledger(2), wanted(2)
    account.asked("r1", (one, two), 0)
    account.accepted(one, 0)
    account.accepted(two, 0)
    account.data(one, 1)
    assert account.bar(two, "not listed")
    assert not account.bar(two, "not listed"), "said once"
    assert account.pending("r1") == [], "a late acknowledgement of the request means the others"
    assert account.proven
    assert two not in [each for group in account.due(100 * HOUR) for each in group]
    account.readmit(two)
    assert account.due(1) == [(two,)]
    assert account.asked("r2", (two,), 1) == [two]
    account.bar(two, "not listed")
    assert account.data(two, 2), "data is believed"
    assert account.entries[two].state == "subscribed"


def test_what_is_left_is_asked_for_by_whoever_left_it_or_else_after_a_while() -> None:
    account, (one,) = ledger(1), wanted(1)
    account.asked("r1", (one,), 0)
    account.accepted(one, 0)
    account.left(one, 10)
    assert account.entries[one].state == "requested"
    assert account.due(10) == []
    assert account.due(10 + 4 * PATIENCE) == [(one,)]
    assert account.asked("r2", (one,), 20) == [one], "told anew"
    assert account.pending("r2") == [one]
    assert account.accepted(one, 21)
    assert account.pending("r2") == []


def test_a_refused_one_that_is_taken_again_is_known_by_its_request_alone() -> None:
    account, (one, two) = ledger(2), wanted(2)
    account.asked("r1", (one, two), 0)
    account.refused("r1", two, "no", 1)
    assert account.pending("r1") == [one]
    account.accepted(one, 1)
    account.asked("r2", (two,), HOUR + 1)
    assert account.pending("r2") == [two]
    assert account.accepted(two, HOUR + 2)
    assert account.entries[two].state == "subscribed"


def busy(count: int, steady: bool = False) -> Ledger:
    """`count` subscriptions that all gave data each second for ten minutes, the last at 599 s."""
    account, subscriptions = Ledger(wanted(count), PATIENCE, SILENCE, steady=lambda _: steady), wanted(count)
    account.asked("r0", subscriptions, 0)
    for second in range(600):
        for subscription in subscriptions:
            account.data(subscription, second * SECOND)
    return account


LAST = 599 * SECOND
BRISK = 15 * SECOND


def test_a_busy_subscription_that_falls_silent_is_asked_for_soon_by_itself() -> None:
    account, (one, two) = busy(2), wanted(2)
    for second in range(600, 700):
        account.data(two, second * SECOND)
        due = account.due(second * SECOND)
        if due:
            break
    assert due == [(one,)]
    assert second * SECOND == LAST + BRISK
    assert not account.dead(HOUR), "the other one lives"


def test_a_busy_connection_that_falls_silent_is_replaced_within_a_minute() -> None:
    account, now, requests = busy(3), LAST, 0
    while not account.dead(now):
        for group in account.due(now):
            requests += 1
            account.asked(f"r{requests}", group, now)
        now += SECOND
    assert now == LAST + 3 * BRISK
    assert requests <= 2


def test_a_quiet_subscription_among_busy_ones_is_left_alone() -> None:
    """It trades each four minutes; after the first such pauses it is no longer asked for, whatever the others do."""
    account, (quiet, lively) = ledger(2), wanted(2)
    account.asked("r0", (quiet, lively), 0)
    account.accepted(quiet, 0)
    asked = []
    for second in range(0, 4 * 3600):
        now = second * SECOND
        account.data(lively, now)
        if second % 240 == 239 or second in (7000, 7100):
            account.data(quiet, now)
        for group in account.due(now):
            asked.append(now)
            account.asked("r", group, now)
    assert asked == []


def test_a_connection_of_quiet_subscriptions_is_not_replaced_for_what_is_usual_there() -> None:
    account, subscriptions = ledger(3), wanted(3)
    account.asked("r0", subscriptions, 0)
    for second in range(24 * 3600):
        if second % 280 == 0:
            account.data(subscriptions[second // 280 % 3], second * SECOND)
        for group in account.due(second * SECOND):
            account.asked("r", group, second * SECOND)
        assert not account.dead(second * SECOND)


def test_what_is_steady_is_never_allowed_more_than_the_setting_what_is_not_may_prove_quiet() -> None:
    for steady, limit in ((True, SILENCE), (False, 3 * 290 * SECOND)):
        account, (one,) = Ledger(wanted(1), PATIENCE, SILENCE, steady=lambda _, steady=steady: steady), wanted(1)
        account.asked("r0", (one,), 0)
        for number in range(5):
            account.data(one, number * 290 * SECOND)
        last = 4 * 290 * SECOND
        assert account.due(last + limit - SECOND) == []
        assert account.due(last + limit) == [(one,)]


def test_nobody_is_asked_for_or_given_up_because_we_stood_still() -> None:
    account, subscriptions = busy(2), wanted(2)
    woken = LAST + HOUR
    account.excuse(woken)
    assert account.due(woken) == []
    assert not account.dead(woken)
    for subscription in subscriptions:
        account.data(subscription, woken + 1)
    assert account.due(woken + BRISK) == []
