from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from scaling_nb.events import Noted, RunFinished, RunStarted, StepLogged
from scaling_nb.executors import mailbox
from scaling_nb.executors.mailbox import Mailbox


def started(run_id: str) -> RunStarted:
    return RunStarted(spec=SimpleNamespace(run_id=run_id))  # type: ignore[arg-type]


def finished(run_id: str) -> RunFinished:
    return RunFinished(run=SimpleNamespace(run_id=run_id))  # type: ignore[arg-type]


def steps(run_id: str, first: int, last: int) -> StepLogged:
    tokens = np.arange(first, last + 1)
    return StepLogged(run_id=run_id, tokens=tokens, loss=tokens.astype(np.float32))


def curve(events: list[Any]) -> list[int]:
    """What a store holds of one run after these events: a start clears it."""
    points: list[int] = []
    for event in events:
        if isinstance(event, RunStarted):
            points = []
        elif isinstance(event, StepLogged):
            points += event.tokens.tolist()
    return points


def finished_of(events: list[Any]) -> RunFinished:
    return next(event for event in events if isinstance(event, RunFinished))


def test_everything_is_taken_once_and_in_order():
    mail = Mailbox()
    for event in (started("a"), steps("a", 1, 3), Noted(message="x"), steps("a", 4, 5)):
        mail.put(event)
    mail.put(finished("a"))
    taken = mail.take()
    assert [type(e) for e in taken] == [Noted, RunStarted, StepLogged, RunFinished]
    assert curve(taken) == [1, 2, 3, 4, 5]
    assert not mail
    assert mail.take() == []


def test_what_is_told_twice_is_taken_once():
    mail = Mailbox()
    mail.put(started("a"))
    mail.put(steps("a", 1, 4))
    mail.put(steps("a", 1, 4))
    mail.put(steps("a", 3, 6))
    assert curve(mail.take()) == [1, 2, 3, 4, 5, 6]


def test_a_run_that_starts_again_replaces_its_curve():
    mail = Mailbox()
    mail.put(started("a"))
    mail.put(steps("a", 1, 9))
    first = mail.take()
    mail.put(started("a"))
    mail.put(steps("a", 1, 5))
    assert curve([*first, *mail.take()]) == [1, 2, 3, 4, 5]


def test_a_new_driver_gets_the_whole_of_what_it_wants():
    mail = Mailbox()
    for run_id in ("a", "b", "c"):
        mail.put(started(run_id))
        mail.put(steps(run_id, 1, 2))
        mail.take()
        mail.put(steps(run_id, 3, 4))
    mail.put(finished("a"))
    mail.take()
    mail.rewind(["a", "b"])
    taken = mail.take()
    first = next(e.run_id for e in taken if isinstance(e, StepLogged))
    assert first == "a"
    assert curve(taken[: taken.index(finished_of(taken))]) == [1, 2, 3, 4]
    assert sum(isinstance(e, RunStarted) for e in taken) == 2
    assert sum(isinstance(e, RunFinished) for e in taken) == 1


def test_ended_runs_are_forgotten_some_time_after_they_were_taken(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(mailbox.time, "monotonic", lambda: now[0])
    mail = Mailbox()
    mail.put(started("a"))
    mail.put(finished("a"))
    mail.put(started("b"))
    mail.take()
    now[0] = mailbox.KEPT_SECONDS + 1
    mail.put(steps("b", 1, 1))
    mail.take()
    assert not mail.ended("a")
    mail.rewind(["a", "b"])
    assert {type(e) for e in mail.take()} == {RunStarted, StepLogged}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("steps"), st.integers(1, 20)),
            st.sampled_from([("take", 0), ("start", 0), ("rewind", 0)]),
        ),
        max_size=40,
    )
)
def test_a_driver_that_comes_and_goes_ends_with_the_newest_attempts_curve(moves):
    mail, stored, told = Mailbox(), [], 0
    mail.put(started("a"))
    for move, n in moves:
        if move == "steps":
            mail.put(steps("a", max(1, told - 1), told + n))  # overlaps what was told before
            told += n
        elif move == "start":
            mail.put(started("a"))
            told = 0
        elif move == "rewind":
            mail.rewind(["a"])
        else:
            stored += mail.take()
    stored += mail.take()
    assert curve(stored) == list(range(1, told + 1))
