from __future__ import annotations

import logging
import threading

from scaling_nb.events import Signal


def test_observers_are_called_in_order_until_they_leave():
    signal, seen = Signal(), []
    leave = signal.connect(lambda value: seen.append(("a", value)))
    signal.connect(lambda value: seen.append(("b", value)))
    signal.send(1)
    leave()
    signal.send(2)
    assert seen == [("a", 1), ("b", 1), ("b", 2)]


def test_an_observer_that_raises_is_logged_and_stops_nobody(caplog):
    signal, seen = Signal(), []
    signal.connect(lambda value: 1 / 0)
    signal.connect(seen.append)
    with caplog.at_level(logging.ERROR):
        signal.send(1)
    assert seen == [1]
    assert "an observer of the sweep raised" in caplog.text


def test_many_threads_may_send_and_connect():
    signal, seen = Signal(), []
    signal.connect(seen.append)

    def work():
        for i in range(200):
            signal.send(i)
            signal.connect(lambda value: None)()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 800
