"""Decode files in worker processes, so that a bad file costs that file only.

Decoders are C libraries fed with whatever lies on somebody's disk: they hang, crash and ask for
all memory. Each file is decoded in one of a few processes with a time limit and a memory limit;
what goes wrong there comes back as a `DecodeFailure` and the next file goes on in a new process.

Samples return through memory that the parent owns (a memfd, or a temporary file where there is
none), so a killed worker leaves nothing behind, and neither does a killed parent: its workers
die with it. Results come as they complete; a bounded number of files is in flight.

Workers are spawned, never forked: the parent holds inference threads that a fork would break.
Scripts that use this need the usual `if __name__ == "__main__":`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from io import FileIO
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import RLock as Lock
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, TypeVar

import numpy as np
import pebble

from livi_index import audio
from livi_index.audio import Audio, FailureCode
from livi_index.errors import LiviError, UnreadableAudio

__all__ = ["DecodeFailure", "DecodePool", "Decoder"]

Value = TypeVar("Value")

_READ_BYTES_PER_S = 10_000_000  # a slow network disk: time granted for reading, beyond the limit
_FILES_PER_WORKER = 500  # then a fresh process: decoders leak
_STUCK_S = 30.0
_LOCK_S = 5.0  # that a worker waits for pebble's lock, which others hold for a moment
_LOST_LOCK = 1  # pebble's exit status of a worker that waited in vain
_MAX_RESTARTS = 3  # of the whole pool without a single result in between
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class DecodeFailure:
    """Why a file gave nothing."""

    code: FailureCode
    reason: str


class Decoder(Protocol):
    """What turns a file into samples; an importable function, as workers import it by name."""

    def __call__(self, path: Path, *, max_s: float | None) -> Audio: ...


@dataclass(frozen=True)
class _Written:
    """What a worker says of the samples it wrote into its slot."""

    n_samples: int
    duration_s: float
    truncated: bool
    decoder: str


class DecodePool:
    """A few worker processes that decode files; a context manager.

    workers: number of processes. time_limit_s: for one file, beside a second for every 10 MB of
    it. memory_bytes: address space that one worker may take beyond what it starts with.
    max_s: longest part of a file that is decoded; None for no cap. in_flight: files being
    decoded or waiting to be taken, which bounds memory.
    """

    def __init__(
        self,
        workers: int,
        *,
        time_limit_s: float = 60.0,
        memory_bytes: int = 2 << 30,
        max_s: float | None = 3600.0,
        in_flight: int | None = None,
        decode: Decoder = audio.decode,
    ) -> None:
        self._workers = workers
        self._time_limit_s = time_limit_s
        self._memory_bytes = memory_bytes
        self._max_s = max_s
        self._in_flight = in_flight or workers + 2
        self._decode = decode
        # pebble keeps this for the process: a worker that ignores SIGTERM gets SIGKILL after it.
        pebble.CONSTS.term_timeout = 1.0
        self._context = _Context()
        self._pool = self._start()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, within about a second each; can be called again."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        self._context.locks.clear()

    def decode_all(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Audio | DecodeFailure]]:
        """Decode files; yields each path with its result, in the order of completion."""
        return self._run(paths, self._decode_job)

    def map(
        self, function: Callable[[Path], Value], paths: Iterable[Path]
    ) -> Iterator[tuple[Path, Value | DecodeFailure]]:
        """`function(path)` under the same limits, for example `scan.identify`.

        The function must be importable and its result small and picklable.
        """
        return self._run(paths, lambda path: _CallJob(path, function))

    def _decode_job(self, path: Path) -> _Job[Audio]:
        return _DecodeJob(path, self._decode, self._max_s)

    def _run(
        self, paths: Iterable[Path], new_job: Callable[[Path], _Job[Value]]
    ) -> Iterator[tuple[Path, Value | DecodeFailure]]:
        waiting = iter(paths)
        running: dict[_Job[Value], Future[object]] = {}
        done: queue.SimpleQueue[tuple[_Job[Value], Future[object]]] = queue.SimpleQueue()
        n_restarts = 0
        try:
            while True:
                while len(running) < self._in_flight and (path := next(waiting, None)) is not None:
                    job = new_job(path)
                    running[job] = self._submit(job, done)
                if not running:
                    return
                broken = False
                try:
                    job, future = done.get(timeout=self._patience_s(running, n_restarts))
                except queue.Empty:
                    broken = True
                else:
                    if running.get(job) is not future:
                        continue
                    lost = _ended(future) == _LOST_LOCK and not job.tried_again
                    job.tried_again |= lost
                    broken = lost or isinstance(future.exception(), BrokenProcessPool)
                if broken:
                    n_restarts += 1
                    self._restart(n_restarts)
                    running.update({job: self._submit(job, done) for job in list(running)})
                elif _killed_from_outside(future) and not job.tried_again:
                    job.tried_again = True
                    running[job] = self._submit(job, done)
                else:
                    n_restarts = 0
                    del running[job]
                    with job:
                        result = job.result(future)
                    yield job.path, result
        finally:
            for job, future in running.items():
                future.cancel()
                job.close()

    def _submit(
        self, job: _Job[Value], done: queue.SimpleQueue[tuple[_Job[Value], Future[object]]]
    ) -> Future[object]:
        limit_s = self._limit_s(job.path)
        try:
            future: Future[object] = self._pool.schedule(job.task, args=job.args, timeout=limit_s)
        except RuntimeError as error:
            # The pool broke between two files: tell it in the way of all other failures.
            future = Future()
            future.set_exception(BrokenProcessPool(str(error)))
        future.add_done_callback(lambda finished: done.put((job, finished)))
        return future

    def _limit_s(self, path: Path) -> float:
        try:
            return self._time_limit_s + path.stat().st_size / _READ_BYTES_PER_S
        except OSError:
            return self._time_limit_s

    def _patience_s(self, running: Iterable[_Job[Value]], n_restarts: int) -> float:
        """A pool silent for longer is stuck, or the machine is so busy that new workers are still
        starting: longer each time."""
        return max(self._limit_s(job.path) for job in running) + _STUCK_S * (1 << n_restarts)

    def _start(self) -> pebble.ProcessPool:
        pool = pebble.ProcessPool(
            max_workers=self._workers,
            max_tasks=_FILES_PER_WORKER,
            initializer=_start_worker,
            initargs=(os.getpid(), self._memory_bytes),
            context=self._context,
        )
        with _deaf_to_interrupts():
            # Workers live as long as the thread that starts them: start them here, in the owner's.
            if not pool.active:
                raise LiviError("the decoding workers cannot be started")
        return pool

    def _restart(self, n_restarts: int) -> None:
        """Begin again with new workers: pebble gives up when an idle one is killed, and waits for
        ever for the lock of one that was killed with it."""
        self.close()
        if n_restarts > _MAX_RESTARTS:
            raise LiviError(
                "the decoding workers die before they decode anything; if this is a script, put "
                'its work below `if __name__ == "__main__":`'
            )
        self._pool = self._start()


class _Context(SpawnContext):
    """Keeps the pool's locks for as long as there are workers.

    pebble gives them up before it ends its workers, and one that is still starting then finds them
    gone and says so with a traceback.
    """

    def __init__(self) -> None:
        self.locks: list[Lock] = []

    def RLock(self) -> Lock:
        self.locks.append(super().RLock())
        return self.locks[-1]


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes and threads that are started here never get a SIGINT, not even while they start:
    a terminal sends Ctrl-C to all of them, and it is the parent that decides. It waits for its own
    until here is left."""
    resource_tracker.ensure_running()  # it would end this by unblocking when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Job(Generic[Value]):
    """One file on its way through the pool."""

    task: Callable[..., object]
    args: tuple[object, ...]

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tried_again = False

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.close()

    def result(self, future: Future[object]) -> Value | DecodeFailure:
        error = future.exception()
        if error is not None:
            return _failure(error)
        value = future.result()
        return value if isinstance(value, DecodeFailure) else self.read(value)

    def read(self, value: object) -> Value:
        raise NotImplementedError

    def close(self) -> None:
        """Give up what the job holds."""


class _CallJob(_Job[Value]):
    def __init__(self, path: Path, function: Callable[[Path], Value]) -> None:
        super().__init__(path)
        self.task, self.args = _guarded, (function, path)

    def read(self, value: object) -> Value:
        return value  # type: ignore[return-value]


class _DecodeJob(_Job[Audio]):
    def __init__(self, path: Path, decode: Decoder, max_s: float | None) -> None:
        super().__init__(path)
        self._slot = _Slot()
        self.task, self.args = _guarded, (_decode_into, path, self._slot.address, decode, max_s)

    def read(self, value: object) -> Audio:
        assert isinstance(value, _Written)
        samples = self._slot.read(value.n_samples)
        return Audio(samples, value.duration_s, value.truncated, value.decoder)

    def close(self) -> None:
        self._slot.close()


@dataclass(frozen=True)
class _Address:
    """How a worker finds a slot."""

    path: str
    device: int
    inode: int

    def open(self) -> FileIO:
        """Open for writing; FileNotFoundError if the parent has given the slot up."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        status = os.fstat(descriptor)
        # The parent may have closed it and opened another file under the same number.
        if (status.st_dev, status.st_ino) != (self.device, self.inode):
            os.close(descriptor)
            raise FileNotFoundError(self.path)
        return FileIO(descriptor, "w")


class _Slot:
    """Memory of the parent that one worker writes to."""

    def __init__(self) -> None:
        self._temporary: str | None = None
        if sys.platform == "linux":
            self._file = FileIO(os.memfd_create("livi-samples"), "r+")
            path = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        else:
            descriptor, path = tempfile.mkstemp(prefix="livi-samples-")
            self._file, self._temporary = FileIO(descriptor, "r+"), path
        status = os.fstat(self._file.fileno())
        self.address = _Address(path, status.st_dev, status.st_ino)

    def read(self, n_samples: int) -> audio.FloatArray:
        """(n_samples,) a copy, so that results hold no descriptors."""
        self._file.seek(0)
        samples = np.fromfile(self._file, np.float32, n_samples)
        assert len(samples) == n_samples
        return samples

    def close(self) -> None:
        self._file.close()
        if self._temporary is not None:
            Path(self._temporary).unlink(missing_ok=True)


def _ended(future: Future[object]) -> int | None:
    """The exit status of a worker that ended over its file; None if it did not."""
    error = future.exception()
    return error.exitcode if isinstance(error, pebble.ProcessExpired) else None


def _killed_from_outside(future: Future[object]) -> bool:
    """These are not what decoders die of: somebody, or the kernel short of memory, sent them."""
    return _ended(future) in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP)


def _failure(error: BaseException) -> DecodeFailure:
    if isinstance(error, TimeoutError):
        return DecodeFailure("timeout", "decoding took longer than the time limit")
    if isinstance(error, MemoryError):
        return DecodeFailure("out_of_memory", "decoding needs more memory than a worker may take")
    if isinstance(error, pebble.ProcessExpired):
        code = error.exitcode
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return DecodeFailure("worker_died", f"its decoding process ended by {how}")
    return DecodeFailure("undecodable", f"{type(error).__name__}: {error}")


# What follows runs in the workers.


def _start_worker(parent: int, memory_bytes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pebble.CONSTS.channel_lock_timeout = _LOCK_S
    # libmpg123 writes its complaints of damaged files there, across the parent's progress.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the limit is not kept, or cannot be set
        limit = _address_space() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _address_space() -> int:
    """Bytes mapped by now: libraries and idle thread stacks, which vary with the machine."""
    n_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return n_pages * resource.getpagesize()


def _guarded(function: Callable[..., object], *args: object) -> object:
    """Turn expected failures into values: those cross the process border whole."""
    try:
        return function(*args)
    except UnreadableAudio as error:
        return DecodeFailure(error.code, error.reason)  # type: ignore[arg-type]
    except MemoryError as error:
        return _failure(error)


def _decode_into(path: Path, slot: _Address, decode: Decoder, max_s: float | None) -> _Written:
    decoded = decode(path, max_s=max_s)
    samples = np.ascontiguousarray(decoded.samples, np.float32)
    with slot.open() as file:
        samples.tofile(file)
    return _Written(len(samples), decoded.duration_s, decoded.truncated, decoded.decoder)
