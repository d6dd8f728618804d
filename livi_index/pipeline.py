"""Stages that work at the same time: an iterator runs ahead of who takes from it, in a thread.

A stage is a plain generator over what the stage before it yields, so the same stages run in a row
in one thread, or each in its own: ``with Pipeline() as line: line.ahead(stage(...), ...)``. What a
stage has ready is bounded by weight (seconds of audio, for example), so a fast stage waits for a
slow one. An error in a stage is raised where its values are taken, after those that came before.

Leaving the ``with`` block stops every stage at its next value. Stages are not interrupted inside
one, so leaving does not wait for them for ever: their threads end with the process.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar

PATIENCE_S = 2.0

Stage = Literal["walk", "identify", "decode", "vocals", "encode", "whole", "commit", "publish"]
Value = TypeVar("Value")


class Clock:
    """Seconds that each stage was at work; each stage belongs to one thread.

    ``limit_s``: how long a run may go on taking files.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        self.started_at = time.time()
        self._started = time.monotonic()
        self._limit_s = limit_s
        self.stages: dict[Stage, float] = defaultdict(float)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def is_over(self) -> bool:
        """Whether the time of the run is up."""
        return self._limit_s is not None and self.seconds >= self._limit_s

    @contextmanager
    def time(self, stage: Stage) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.stages[stage] += time.monotonic() - started

    def each(self, stage: Stage, values: Iterator[Value]) -> Iterator[Value]:
        """The same values; the time until each comes is the stage's."""
        while True:
            with self.time(stage):
                found = list(zip((None,), values, strict=False))
            if not found:
                return
            yield found.pop()[1]


class Pipeline:
    """Threads that are started and stopped together; a context manager."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self.join()

    def stop(self) -> None:
        """Let every stage end at its next value; does not wait for it."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def join(self) -> None:
        """Wait until the stages have ended, within reason."""
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def ahead(
        self, values: Iterator[Value], limit: float, weight: Callable[[Value], float]
    ) -> Iterator[Value]:
        """The same values, made in a thread until ``limit`` of weight lies ready.

        A value heavier than the limit waits until nothing else does. The thread starts when the
        first value is asked for.
        """
        shelf: _Shelf[Value] = _Shelf(limit, weight)

        def fill() -> None:
            try:
                for value in values:
                    if not self._put(shelf, value):
                        return
            except BaseException as error:
                # Not swallowed: it is raised where the values are taken.
                shelf.error = error
            finally:
                with self._condition:
                    shelf.complete = True
                    self._condition.notify_all()

        thread = threading.Thread(target=fill, daemon=True)
        self._threads.append(thread)
        thread.start()
        yield from self._take(shelf)

    def _put(self, shelf: _Shelf[Value], value: Value) -> bool:
        with self._condition:
            self._condition.wait_for(lambda: self._stopped or shelf.has_room_for(value))
            if not self._stopped:
                shelf.add(value)
                self._condition.notify_all()
            return not self._stopped

    def _take(self, shelf: _Shelf[Value]) -> Iterator[Value]:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopped or shelf.values or shelf.complete)
                if self._stopped:
                    return
                if not shelf.values:
                    break
                value = shelf.remove()
                self._condition.notify_all()
            yield value
            del value  # it may be large, and the next one may be long in coming
        if shelf.error is not None:
            raise shelf.error


class _Shelf(Generic[Value]):
    """What one stage has ready for the next."""

    def __init__(self, limit: float, weight: Callable[[Value], float]) -> None:
        self.values: deque[Value] = deque()
        self.complete = False
        self.error: BaseException | None = None
        self._limit = limit
        self._weight = weight
        self._held = 0.0

    def has_room_for(self, value: Value) -> bool:
        return not self.values or self._held + self._weight(value) <= self._limit

    def add(self, value: Value) -> None:
        self.values.append(value)
        self._held += self._weight(value)

    def remove(self) -> Value:
        value = self.values.popleft()
        self._held -= self._weight(value)
        return value
