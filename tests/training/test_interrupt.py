"""Signals as a wish: which are taken for one, how often, and what they leave as it was."""

import os
import pickle
import signal
import threading
from pathlib import Path

import pytest

from decone.training.interrupt import (
    SIGNALS,
    TERMINATIONS,
    Interrupted,
    Stopped,
    Terminated,
    catch_interrupt,
    exit_code,
    raise_on_termination,
)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_sets_the_event_and_gives_its_number(number: int) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with catch_interrupt() as event:
        assert not event.is_set()
        send(number)
        assert event.wait(60)
        assert event.number == number
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("number", TERMINATIONS)
def test_a_closing_terminal_may_send_twice(number: int) -> None:
    with catch_interrupt() as event:
        for each in (number, number, *TERMINATIONS):
            send(each)
        assert event.wait(60)
        assert event.number == number


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_ignored_stays_ignored(number: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with raise_on_termination(), catch_interrupt() as event:
            assert signal.getsignal(number) is signal.SIG_IGN
            send(number)
            assert not event.is_set()
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", TERMINATIONS)
def test_the_first_is_raised_like_ctrl_c_and_no_other(number: int) -> None:
    with raise_on_termination(), raise_on_termination():
        with pytest.raises(KeyboardInterrupt) as stopped:
            send(number)
            threading.Event().wait(60)
        send(number)
        threading.Event().wait(0.01)
    assert isinstance(stopped.value, Terminated)
    assert exit_code(stopped.value) == 128 + number
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_loop_that_was_stopped_hears_no_second_signal_afterwards() -> None:
    with raise_on_termination():
        with catch_interrupt() as event:
            send(signal.SIGTERM)
            assert event.wait(60)
        send(signal.SIGTERM)
        threading.Event().wait(0.01)


def test_another_thread_leaves_signals_alone() -> None:
    handlers: list[object] = []

    def look() -> None:
        with catch_interrupt(), raise_on_termination():
            handlers.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (Stopped(), 130),
        (Stopped(signal.SIGTERM), 143),
        (Interrupted(Path("a"), 1), 130),
        (Interrupted(Path("a"), 1, signal.SIGTERM), 143),
    ],
)
def test_exit_codes_are_those_of_shells(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_an_interruption_survives_the_way_home_from_a_worker() -> None:
    again = pickle.loads(pickle.dumps(Interrupted(Path("a b"), 7, signal.SIGTERM)))
    assert (str(again), again.number) == ("stopped after step 7; resume with: decone train --resume 'a b'", 15)
