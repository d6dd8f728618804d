import threading
import time

import pytest

from livi_index.pipeline import Clock, Pipeline


def one(_value):
    return 1


def test_values_come_in_order_and_stages_overlap():
    threads = set()

    def stage(values):
        for value in values:
            threads.add(threading.get_ident())
            yield value + 1

    with Pipeline() as line:
        first = line.ahead(stage(iter(range(50))), 4, one)
        assert list(line.ahead(stage(first), 4, one)) == list(range(2, 52))
    assert len(threads) == 2


def test_what_lies_ready_is_bounded_by_weight():
    made = []

    def values():
        for value in (5, 3, 4, 100, 1):
            made.append(value)
            yield value

    with Pipeline() as line:
        taken = line.ahead(values(), 8, float)
        assert next(taken) == 5
        time.sleep(0.2)
        assert made == [5, 3, 4, 100]  # 3 and 4 lie ready, 100 is held by its stage
        assert list(taken) == [3, 4, 100, 1]


def test_an_error_comes_after_what_was_before_it():
    def values():
        yield 1
        yield 2
        raise ValueError("third")

    with Pipeline() as line:
        taken = line.ahead(values(), 8, one)
        assert [next(taken), next(taken)] == [1, 2]
        with pytest.raises(ValueError, match="third"):
            next(taken)


def test_leaving_ends_every_stage():
    before = threading.active_count()

    def endless():
        while True:
            yield 1

    with Pipeline() as line:
        taken = line.ahead(line.ahead(endless(), 3, one), 3, one)
        assert next(taken) == 1
    assert threading.active_count() == before


def test_leaving_does_not_wait_for_ever():
    awake = threading.Event()

    def stuck():
        awake.wait(30)
        yield 1

    started = time.monotonic()
    with Pipeline() as line:
        line.ahead(stuck(), 3, one)
        threading.Thread(target=list, args=(line.ahead(stuck(), 3, one),), daemon=True).start()
        time.sleep(0.1)
    assert time.monotonic() - started < 10
    awake.set()


def test_the_clock_counts_what_waits():
    clock = Clock()

    def slow():
        for value in range(3):
            time.sleep(0.05)
            yield value

    assert list(clock.each("decode", slow())) == [0, 1, 2]
    with clock.time("publish"):
        time.sleep(0.05)
    assert clock.stages["decode"] >= 0.15
    assert 0.05 <= clock.stages["publish"] <= clock.seconds
