"""The watchdog's judgement, on made moments: who is started, killed, held back, and when an operator hears of it."""

import itertools

import msgspec
import pytest

from pipeline.judgement import (
    GRACE,
    HUNG_SERVER,
    HUNG_WORKER,
    SETTLED,
    SILENCE_FIRST,
    SILENCE_LONGEST,
    SLOWEST,
    Do,
    Life,
    Policy,
    Seen,
    Verdict,
    after_blindness,
    delay,
    judge,
    silence_delay,
)

POLICY = Policy(auto_restart=True, attempts=3)
NEVER_STARTED = Seen(name="ingest-okx", state="STOPPED")


def running(pid: int = 7, beats: int | None = None, answers: bool | None = None) -> Seen:
    return Seen(name="ingest-okx", state="RUNNING", pid=pid, start=1, beats=beats, answers=answers)


def stalled(pid: int, beats: int) -> Seen:
    return msgspec.structs.replace(running(pid, beats), stalled="no data")


def down(state: str = "EXITED", answers: bool | None = None) -> Seen:
    return Seen(name="ingest-okx", state=state, start=1, answers=answers)


def watch(moments: list[tuple[float, Seen]], policy: Policy = POLICY, life: Life | None = None) -> list[Verdict]:
    verdicts = []
    life = life or Life()
    for now, seen in moments:
        verdicts.append(judge(seen, life, now, policy))
        life = verdicts[-1].life
    return verdicts


def test_what_never_ran_is_started_and_what_a_person_stopped_is_left() -> None:
    first, again = watch([(0, NEVER_STARTED), (1, running(beats=1))])
    assert first.do == (Do.START,)
    assert again.do == ()
    assert again.life.restarts == again.life.attempts == 0
    assert watch([(0, running()), (5, down("STOPPED")), (500, down("STOPPED"))])[-1].do == ()


def test_a_worker_that_beats_is_left_alone_however_slowly_time_goes() -> None:
    moments = [(float(second), running(beats=second)) for second in range(0, 1000, 14)]
    assert all(verdict.do == () for verdict in watch(moments))


def test_a_worker_without_beats_is_killed_once_after_its_time() -> None:
    moments = [(0.0, running(beats=1)), (1.0, running(beats=2)), (HUNG_WORKER, running(beats=2))]
    assert watch(moments)[-1].do == ()
    verdict = watch([*moments, (1 + HUNG_WORKER, running(beats=2))])[-1]
    assert verdict.do == (Do.KILL,)
    assert verdict.loud
    assert "hung" in (verdict.life.reason or "")
    assert judge(running(beats=2), verdict.life, 2 + HUNG_WORKER, POLICY).do == ()


def test_a_starting_worker_has_longer() -> None:
    assert watch([(0, running()), (GRACE - 1, running())])[-1].do == ()
    assert watch([(0, running()), (GRACE, running())])[-1].do == (Do.KILL,)


def test_a_server_is_judged_by_its_answers() -> None:
    ok, silent = running(answers=True), running(answers=False)
    assert watch([(0, silent), (1, ok), (HUNG_SERVER, silent)])[-1].do == ()
    assert watch([(0, silent), (1, ok), (1 + HUNG_SERVER, silent)])[-1].do == (Do.KILL,)
    assert watch([(0, silent), (60, silent)])[-1].do == (), "it may load its data for a while"


def test_nobody_is_killed_for_our_own_sleep() -> None:
    life = watch([(0, running(beats=1)), (1, running(beats=2))])[-1].life
    woken = after_blindness(life, 1000.0)
    assert judge(running(beats=2), woken, 1000.0, POLICY).do == ()


def test_quick_restarts_are_counted_then_held_back_and_loud() -> None:
    verdicts = watch([(float(n), running(pid=n, beats=1)) for n in range(1, 6)])
    assert [verdict.life.restarts for verdict in verdicts] == [0, 1, 2, 3, 4]
    assert [verdict.loud for verdict in verdicts] == [False, False, False, False, True]
    assert verdicts[-1].do == (Do.PARK,)
    life = verdicts[-1].life
    fell = judge(down(), life, 10.0, POLICY)
    assert fell.do == ()
    assert fell.life.next_start == 10.0 + delay(5, POLICY)
    assert judge(down(), fell.life, fell.life.next_start - 0.1, POLICY).do == ()
    started = judge(down(), fell.life, fell.life.next_start, POLICY)
    assert started.do == (Do.START,)
    settled = watch(
        [(100.0, running(pid=99, beats=1)), (100.0 + SETTLED, running(pid=99, beats=2))], life=started.life
    )[-1]
    assert settled.do == (Do.UNPARK,)
    assert settled.life.attempts == 0
    assert settled.life.restarts == 5


def test_the_pauses_double_up_to_five_minutes() -> None:
    assert [delay(n, POLICY) for n in (1, 2, 3)] == [1, 1, 1]
    assert [delay(n, POLICY) for n in (4, 5, 6, 7)] == [5, 10, 20, 40]
    assert delay(1000, POLICY) == SLOWEST


def test_fatal_is_started_again_after_a_pause() -> None:
    fell = judge(down("FATAL"), Life(started_by_us=True), 5.0, POLICY)
    assert fell.loud
    assert fell.do == ()
    assert judge(down("FATAL"), fell.life, 6.0, POLICY).do == (Do.START,)


@pytest.mark.parametrize("seen", [down(), down("FATAL")])
def test_without_auto_restart_a_worker_stays_down_and_is_reported_once(seen: Seen) -> None:
    policy = Policy(auto_restart=False)
    verdicts = watch([(0, running(beats=1)), (1, seen), (400, seen)], policy)
    assert verdicts[0].do == (Do.PARK,), "supervisord must not restart it either"
    assert [verdict.do for verdict in verdicts[1:]] == [(), ()]
    assert [verdict.loud for verdict in verdicts] == [False, True, False]
    assert "auto_restart is off" in (verdicts[-1].life.reason or "")


def test_without_auto_restart_a_hung_worker_is_reported_and_a_server_still_restarted() -> None:
    policy = Policy(auto_restart=False)
    hung = watch([(0, running(beats=1)), (1, running(beats=2)), (50, running(beats=2))], policy)[-1]
    assert Do.KILL not in hung.do
    assert hung.loud
    server = watch([(0, running(answers=True)), (1, down(answers=False)), (2, down(answers=False))], policy)
    assert server[-1].do == (Do.START,)


def test_judging_changes_nothing_it_was_given() -> None:
    life = Life(pid=1, since=0.0, progress=0.0)
    copy = msgspec.structs.replace(life)
    judge(running(pid=2, beats=3), life, 50.0, POLICY)
    assert life == copy


def test_a_worker_that_says_it_does_nothing_is_restarted_ever_more_rarely() -> None:
    """As where an exchange rests for days: no loop of restarts."""
    life, now, restarts = Life(), 0.0, []
    for pid in range(1, 12):
        verdict = None
        while verdict is None or Do.KILL not in verdict.do:
            now += 10
            verdict = judge(stalled(pid, int(now)), life, now, POLICY)
            life = verdict.life
        assert verdict.loud
        assert life.reason == "silent: no data"
        restarts.append(now)
    pauses = [later - earlier for earlier, later in itertools.pairwise(restarts)]
    assert restarts[0] == 10, "the first time at once"
    assert pauses[:4] == [SILENCE_FIRST, 2 * SILENCE_FIRST, 4 * SILENCE_FIRST, 8 * SILENCE_FIRST]
    assert pauses[-1] == SILENCE_LONGEST
    assert silence_delay(10_000) == SILENCE_LONGEST
    assert life.silences == 11
    # After a long time without, it is a first time again.
    later = judge(stalled(11, 1), life, now + 2 * SILENCE_LONGEST, POLICY)
    assert later.life.silences == 1


def test_a_silent_worker_is_counted_and_named_after_its_restart() -> None:
    first = judge(stalled(7, 1), Life(pid=7, beats=0), 5.0, POLICY)
    again = judge(running(pid=8, beats=1), first.life, 8.0, POLICY)
    assert (again.life.restarts, again.life.attempts) == (1, 1)
    assert again.life.reason == "silent: no data"
    settled = judge(running(pid=8, beats=2), again.life, 8.0 + SETTLED, POLICY)
    assert settled.life.reason is None
    assert settled.life.silences == 1


def test_without_auto_restart_a_silent_worker_is_only_told_of() -> None:
    verdicts = watch([(float(now), stalled(7, now)) for now in range(3)], Policy(auto_restart=False))
    assert [Do.KILL in verdict.do for verdict in verdicts] == [False, False, False]
    assert [verdict.loud for verdict in verdicts] == [True, False, False]
