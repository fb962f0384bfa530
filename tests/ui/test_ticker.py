"""One thread for widgets: order, survival, and the newest request only."""

from __future__ import annotations

import threading

from scaling_nb.ui.ticker import Latest, Ticker


def test_tasks_run_in_order_on_one_thread():
    ticker, seen = Ticker(), []
    for k in range(100):
        ticker.call(lambda k=k: seen.append((k, threading.current_thread().name)))
    assert ticker.settle()
    assert seen == [(k, "panel") for k in range(100)]


def test_beats_come_until_they_are_ended():
    ticker, enough, count = Ticker(beat=0.01), threading.Event(), [0]

    def beat():
        count[0] += 1
        if count[0] == 5:
            enough.set()

    stop = ticker.every(beat)
    assert enough.wait(10)
    stop()
    assert ticker.settle()
    after = count[0]
    ticker.call(lambda: None)
    assert ticker.settle()
    assert count[0] == after


def test_a_task_that_raises_is_logged_and_the_next_one_runs(caplog):
    ticker, seen = Ticker(), []
    ticker.call(lambda: 1 / 0)
    ticker.call(lambda: seen.append(1))
    assert ticker.settle()
    assert seen == [1]
    assert "ZeroDivisionError" in caplog.text


def test_of_many_requests_the_newest_is_done():
    worker, first, go, seen = Latest("test"), threading.Event(), threading.Event(), []

    def slow():
        first.set()
        go.wait(10)
        seen.append("first")

    done = threading.Event()
    worker.submit(slow)
    assert first.wait(10)
    for k in range(50):
        worker.submit(lambda k=k: (seen.append(k), done.set()))
    go.set()
    assert done.wait(10)
    worker.close()
    assert seen == ["first", 49]


def test_work_that_raises_does_not_end_the_worker(caplog):
    worker, done = Latest("test"), threading.Event()
    first = threading.Event()

    def fail():
        first.set()
        raise ValueError("no")

    worker.submit(fail)
    assert first.wait(10)
    worker.submit(done.set)
    assert done.wait(10)
    worker.close()
    assert "ValueError" in caplog.text
