import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.endurance import faulty_decoders
from livi_index import scan
from livi_index.audio import Audio, decode
from livi_index.decode import DecodeFailure, DecodePool
from livi_index.errors import LiviError


def copies(source, folder, *names):
    return [Path(shutil.copy(source, folder / f"{name}{source.suffix}")) for name in names]


def workers():
    return [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def faulty_pool(**options):
    settings = {"time_limit_s": 2.0, "decode": faulty_decoders.by_name, **options}
    return DecodePool(2, **settings)


@pytest.fixture
def pool():
    with DecodePool(2) as shared:
        yield shared


def test_workers_decode_what_the_caller_would(pool, audio_file):
    paths = [audio_file(kind) for kind in ("wav", "mp3", "ogg", "opus", "m4a", "flac")]
    results = dict(pool.decode_all(paths))
    assert set(results) == set(paths)
    for path, result in results.items():
        alone = decode(path)
        np.testing.assert_array_equal(result.samples, alone.samples)
        assert result.samples.dtype == np.float32
        assert (result.duration_s, result.decoder) == (alone.duration_s, alone.decoder)
        result.samples[0] = 0.5


def test_bad_files_are_results(pool, audio_file, tmp_path):
    words = tmp_path / "words.mp3"
    words.write_text("no song")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp3"))
    results = dict(pool.decode_all([words, tmp_path / "gone.mp3", odd, audio_file("mp3")]))
    assert results[words] == DecodeFailure("not_audio", "this is not an audio file")
    assert results[tmp_path / "gone.mp3"].code == "not_found"
    assert results[odd].code == "not_found"
    assert isinstance(results[audio_file("mp3")], Audio)


def test_cap(audio_file):
    with DecodePool(1, max_s=2.0) as pool:
        ((_, result),) = pool.decode_all([audio_file("mp3")])
    assert result.duration_s == 2.0
    assert result.truncated


def test_nothing_to_do(pool):
    assert list(pool.decode_all([])) == []


def test_few_files_are_in_flight(audio_file):
    taken = []

    def paths():
        for number in range(12):
            taken.append(number)
            yield audio_file("wav")

    with DecodePool(1, in_flight=3) as pool:
        for done, _ in enumerate(pool.decode_all(paths()), start=1):
            assert len(taken) <= done + 3
    assert len(taken) == 12


def test_results_hold_no_descriptors(pool, audio_file):
    list(pool.decode_all([audio_file("wav")]))
    before = len(os.listdir("/dev/fd"))
    results = list(pool.decode_all([audio_file("wav")] * 20))
    assert len(results) == 20
    assert len(os.listdir("/dev/fd")) == before


def test_other_work_under_the_same_limits(pool, audio_file, tmp_path):
    words = tmp_path / "words.mp3"
    words.write_text("no song")
    results = dict(pool.map(scan.identify, [audio_file("mp3"), words]))
    assert results[audio_file("mp3")] == scan.identify(audio_file("mp3"))
    assert results[words].code == "not_audio"


def test_each_fault_costs_its_file_only(audio_file, tmp_path):
    faults = {
        "hang": "timeout",
        "spin": "timeout",
        "stubborn": "timeout",
        "crash": "worker_died",
        "killed": "worker_died",
        "leave": "worker_died",
        "eat": "out_of_memory",
        "bug": "undecodable",
    }
    good = copies(audio_file("ogg", 2.0), tmp_path, *(f"good-{n}" for n in range(8)))
    bad = copies(audio_file("ogg", 2.0), tmp_path, *faults)
    mixed = [path for pair in zip(good, bad, strict=True) for path in pair]
    descriptors = len(os.listdir("/dev/fd"))
    with faulty_pool(memory_bytes=1 << 28, time_limit_s=3.0) as pool:
        results = dict(pool.decode_all(mixed))
    assert all(isinstance(results[path], Audio) for path in good)
    assert {path.stem: results[path].code for path in bad} == faults
    assert "SIGSEGV" in results[bad[3]].reason
    assert not workers()
    assert len(os.listdir("/dev/fd")) <= descriptors + 1


def test_a_hang_costs_the_limit_and_little_more(audio_file, tmp_path):
    paths = copies(audio_file("ogg", 2.0), tmp_path, "stubborn")
    with DecodePool(1, time_limit_s=1.0, decode=faulty_decoders.by_name) as pool:
        list(pool.decode_all([audio_file("wav")]))
        started = time.monotonic()
        ((_, result),) = pool.decode_all(paths)
        assert time.monotonic() - started < 3.0
    assert result.code == "timeout"


def test_workers_killed_by_somebody_cost_nothing(audio_file, tmp_path):
    paths = copies(audio_file("ogg", 2.0), tmp_path, *(f"slow-{n}" for n in range(6)))
    with DecodePool(2, decode=faulty_decoders.by_name) as pool:
        results = {}
        for path, result in pool.decode_all(paths):
            if not results:
                workers()[0].kill()
            results[path] = result
    assert set(results) == set(paths)
    assert all(isinstance(result, Audio) for result in results.values())


def test_idle_workers_killed_by_somebody_are_replaced(audio_file):
    with DecodePool(1) as pool:
        list(pool.decode_all([audio_file("wav")]))
        for worker in workers():
            worker.kill()
        time.sleep(0.5)
        ((_, result),) = pool.decode_all([audio_file("mp3")])
    assert isinstance(result, Audio)


def test_leaving_early_stops_the_work(audio_file, tmp_path):
    paths = copies(audio_file("ogg", 2.0), tmp_path, "good", "hang-1", "hang-2", "hang-3")
    started = time.monotonic()
    with faulty_pool(time_limit_s=60.0) as pool:
        for _, result in pool.decode_all(paths):
            assert isinstance(result, Audio)
            break
    assert time.monotonic() - started < 10.0
    assert not workers()


def test_a_pool_can_be_closed_from_another_thread_than_it_is_used_in(audio_file):
    results = []
    with DecodePool(1) as pool:
        for _ in range(2):
            thread = threading.Thread(
                target=lambda: results.extend(pool.decode_all([audio_file("wav")]))
            )
            thread.start()
            thread.join()
    assert [type(result) for _, result in results] == [Audio, Audio]


SCRIPT = """
import signal
import sys
from pathlib import Path
from benchmarks.endurance import faulty_decoders
from livi_index.decode import DecodePool

if __name__ == "__main__":
    # A shell lets what it starts in the background ignore interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with DecodePool(2, decode=faulty_decoders.by_name) as pool:
        for path, result in pool.decode_all(map(Path, sys.argv[1:])):
            print(path.stem, flush=True)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(audio_file, tmp_path, end):
    if end == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent died")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = copies(audio_file("ogg", 2.0), tmp_path, "good", "hang-1", "hang-2", "hang-3")
    root = Path(__file__).parent
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with subprocess.Popen(
        [sys.executable, "-W", "error", script, *paths],
        env={
            **os.environ,
            "PYTHONPATH": f"{root}{os.pathsep}{root.parent}",
            "TMPDIR": str(temporary),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "good\n"
        time.sleep(0.3)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
        litter = set(os.listdir(temporary))
        process.send_signal(end)
        errors = process.communicate(timeout=60)[1]
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    assert set(os.listdir(temporary)) <= litter
    assert process.returncode in (-signal.SIGINT, -signal.SIGKILL, 1)
    if end == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
        assert "leaked" not in errors


def test_a_script_without_main_guard_is_told(audio_file, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom livi_index.decode import DecodePool\n"
        "with DecodePool(1) as pool:\n    print(list(pool.decode_all([Path(sys.argv[1])])))\n"
    )
    root = Path(__file__).parent.parent
    run = subprocess.run(
        [sys.executable, script, audio_file("wav")],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    assert LiviError.__name__ in run.stderr
    assert "__main__" in run.stderr.splitlines()[-1]
