"""What a library survives, at small counts; ``benchmarks/endurance`` has the long forms."""

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import songs

from benchmarks.endurance import oddities

HERE = Path(__file__).parent
ROOT = HERE.parent

# Python tells its hooks of every file that it opens, renames, links or removes, before it does.
# Each run of a publication ends, or is refused by the system, at a later one of these moments.
AT_EVERY_POINT = """
    import errno, itertools, os, signal
    from test_generations import SMALL, WORDS
    from test_store import batch
    from livi_index.errors import LiviError
    from livi_index.generations import current
    from livi_index.publishing import publish
    from livi_index.store import Store

    EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"}
    library, ends, every = sys.argv[1], sys.argv[2] == "killed", int(sys.argv[3])

    def arm(n):
        numbers = itertools.count(1)
        def hook(event, arguments):
            if event in EVENTS and library in str(arguments[0]) and next(numbers) == n:
                if ends:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(arguments[0]))
        sys.addaudithook(hook)
        return lambda: next(numbers) > n > 0

    def step(n):
        was_met = arm(n)
        try:
            with Store(library) as store:
                number = max(store.recording_ids(), default=0)
                store.commit(batch(*range(number + 1, number + 6)))
                publish(store, library, WORDS, SMALL)
        except LiviError:
            return 0
        return 0 if was_met() else 42

    def look():
        with current(library, recheck=True) as generation:
            ids = generation.recording_ids("words")
            assert ids.tolist() == list(range(1, len(ids) + 1)) and len(ids) % 5 == 0, ids
            assert generation.counts["recordings"] == len(ids)
            vectors = generation.recording_vectors(ids, "words")
            assert (generation.search_recordings(vectors, 1, "words").keys[:, 0] == ids).all()
        with Store(library) as store:
            assert len(store.recording_ids()) % 5 == 0 and len(store.recording_ids()) >= len(ids)
        return 0

    def apart(act, *arguments):
        if (child := os.fork()) == 0:
            code = 99
            try:
                code = act(*arguments)
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    apart(step, 0)
    for n in itertools.count(1, every):
        code = apart(step, n)
        assert code in ((-signal.SIGKILL, 42) if ends else (0, 42)), (n, code)
        assert apart(look) == 0, n
        if code == 42:
            break
    assert apart(step, 0) == 42 and apart(look) == 0
    left = {name for name in os.listdir(f"{library}/published") if not name.isdigit()}
    assert n > 30 and not left, (n, left)
"""

# Every Python process of a command ends at once when it turns to a network.
ALONE = """
import os, socket, sys
def hook(event, arguments):
    family = arguments[1] if event == "socket.__new__" else None
    if family in (socket.AF_INET, socket.AF_INET6) or event in (
        "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"
    ):
        os._exit(99)
sys.addaudithook(hook)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded everything")
@pytest.mark.parametrize(("how", "every"), [("killed", 13), ("refused", 9)])
def test_a_publication_at_every_point(tmp_path, how, every):
    prelude = f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(ROOT)!r}]\n"
    script = prelude + textwrap.dedent(AT_EVERY_POINT)
    library = os.path.realpath(tmp_path / "library")
    done = subprocess.run(
        [sys.executable, "-c", script, library, how, str(every)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_no_process_turns_to_a_network(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(ALONE)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    song = songs.sung(tmp_path / "music" / "song.wav", songs.melody(1, 50))

    def ended(*words):
        words = [sys.executable, *map(str, words)]
        return subprocess.run(words, env=environment, capture_output=True, text=True)

    told = ended("-c", "import socket; socket.create_connection(('127.0.0.1', 9))")
    assert told.returncode == 99, "the hook is there"
    here = ("--library", tmp_path / "library")
    build = ("build", tmp_path / "music", "--model", songs.READER, "--jobs", "1")
    for words in (build, ("query", song, "--include-self"), ("lyrics", "a b c d"), ("doctor",)):
        told = ended("-m", "livi_index", *words, *here)
        assert told.returncode == 0, told


@pytest.mark.skipif(sys.platform != "linux", reason="its names need not be UTF-8")
def test_what_file_systems_hold(tmp_path):
    assert oddities.filesystems(tmp_path, 1, math.inf)["violations"] == []
