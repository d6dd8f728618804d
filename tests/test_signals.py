"""Stop means stop: real processes, real signals."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import songs
from test_build import ROOT, contents, outcomes, run

from livi_index.store import Store

# A command whose main thread is inside a library for half a minute.
DEAF = """
import hashlib, sys
from livi_index import cli
@cli.app.command()
def deaf():
    print("here", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 30_000_000)
sys.argv = ["livi-index", "deaf"]
cli.main()
"""


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def ended(process, within_s):
    """Its exit status, and what it said."""
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < within_s
    assert "Traceback" not in said
    return process.returncode, said


def busy(tmp_path, n=6):
    """A build at work and its workers."""
    for i in range(n):
        songs.song(tmp_path / "music" / f"{i}.wav", i, 600.0)
    process = start(
        "-m", "livi_index", "build", tmp_path / "music", "--library", tmp_path / "library",
        "--model", songs.TINY, "--jobs", "1", start_new_session=True,
    )  # fmt: skip
    family = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while not (workers := family.children(recursive=True)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return process, workers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [0.0, 0.5])
def test_a_whole_family_is_told(tmp_path, number, after_s):
    """As a terminal does with Ctrl-C, and systemd with a service; also while workers start."""
    process, workers = busy(tmp_path)
    time.sleep(after_s)
    os.killpg(process.pid, number)
    code, said = ended(process, 10)
    assert code == 130, said
    assert not psutil.wait_procs(workers, timeout=5)[1]
    with Store(tmp_path / "library") as store:
        assert store.failures() == {}, "no file is to blame"
    report = run(tmp_path / "music", tmp_path / "library")
    assert report.indexed + report.reused == 6
    assert len(contents(tmp_path / "library")[0]) == 6


def test_a_second_signal_ends_at_once(tmp_path):
    process, workers = busy(tmp_path)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert ended(process, 4)[0] == 130
    assert not psutil.wait_procs(workers, timeout=5)[1]
    assert outcomes(run(tmp_path / "music", tmp_path / "library"))


@pytest.mark.parametrize("twice", [False, True])
def test_inside_a_library(twice):
    process = start("-c", DEAF)
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGTERM)
    if twice:
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
    assert ended(process, 4 if twice else 10)[0] == 130


def test_waiting_for_words(tmp_path):
    run_before = songs.song(tmp_path / "music" / "a.wav", 1)
    run(run_before, tmp_path / "library")
    process = start(
        "-m", "livi_index", "lyrics", "-", "--library", tmp_path / "library", stdin=subprocess.PIPE
    )
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    code, said = ended(process, 10)
    assert (code, "stopped" in said) == (130, True)


LOST = """
import os, signal, sys, time, weakref
from livi_index import cli

class Thing:
    pass

def slowly(*arguments, **options):
    # Nothing that is raised gets out of the end of a weak reference.
    thing = Thing()
    ended = weakref.ref(thing, lambda _: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(0.1)))
    del thing
    time.sleep(3)
    print("not stopped")

cli.app.command("slowly")(lambda: slowly())
sys.argv = ["livi-index", "slowly"]
cli.main()
"""


def test_a_signal_where_nothing_can_be_raised_stops_it_all_the_same():
    done = subprocess.run([sys.executable, "-c", LOST], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert "stopped" in done.stderr and "Traceback" not in done.stderr
