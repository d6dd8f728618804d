"""The command line through its entry point, in processes of its own."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import audio_files
import numpy as np
import pytest
import songs

from livi_index import __version__, models
from livi_index.database import write_lock
from livi_index.display import clock, safe

ROOT = Path(__file__).parent.parent
SEEN = ("indexed", "instrumental", "reused", "duplicates", "failed", "known_failed")
HOSTILE = "a \x1b[31m[red]b[/red]\u202e \x9b1m c\u200b"
HEAVY = {"av", "duckdb", "numpy", "onnxruntime", "rich", "soundfile", "usearch"}

HAS_MODEL = (models.bundled_dir() / models.DEFAULT_MODEL / models.CARD).is_file()


def livi(*arguments, library=None, ok=True, **environment):
    """Run a command; ``ok`` False: it must fail, with one sentence and no traceback."""
    flags = [] if library is None else ["--library", os.fspath(library)]
    done = subprocess.run(
        [sys.executable, "-m", "livi_index", *map(os.fspath, arguments), *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LIVI_MODELS": str(ROOT / "none")}
        | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) == ok, done.stderr
    return done


@pytest.fixture(scope="session")
def music(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    songs.catalogue(folder, 3, 35.0, kinds=("ogg",))
    plain = songs.song(folder.parent / "plain.ogg", 9, 35.0)
    audio_files.retag(plain, folder / "tagged.ogg", "ogg", title=HOSTILE, artist="[/] Ann")
    shutil.copy(folder / "song-0.ogg", folder / "copy.ogg")
    songs.silence(folder / "quiet.wav")
    (folder / "odd \x1b[2J.mp3").write_text("no song")
    with open(os.fsencode(folder) + b"/\xff\xfe.wav", "wb") as file:
        file.write(songs.song(folder.parent / "other.wav", 5, 35.0).read_bytes())
    return folder


@pytest.fixture(scope="session")
def built(music, tmp_path_factory):
    """A library and what its build said, on a machine without a terminal."""
    library = tmp_path_factory.mktemp("cli") / "library"
    done = subprocess.run(
        [sys.executable, "-m", "livi_index", "build", music, "--library", library, "--json",
         "--model", songs.TINY, "--jobs", "1"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return library, done


def test_help_is_light_and_complete():
    for arguments in ((), ("--help",)):
        done = subprocess.run(
            [sys.executable, "-m", "livi_index", *arguments],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        told = done.stdout + done.stderr
        names = ("build", "query", "lyrics", "status", "models", "--version")
        assert all(name in told for name in names)
    script = "import sys, livi_index.cli; print(' '.join(sys.modules))"
    loaded = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True)
    assert not HEAVY & set(loaded.split())
    assert livi("--version").stdout == f"livi-index {__version__}\n"


def test_every_command_explains_its_options():
    told = livi("build", "--help").stdout
    for option in ("--list", "--exclude", "--jobs", "--follow-symlinks", "--max-minutes",
                   "--model", "--library", "--json", "--quiet", "--prune", "--force-prune",
                   "--until", "--max-hours", "--dry-run"):  # fmt: skip
        assert option in told
    told = livi("query", "--help").stdout
    for option in ("-k", "--min-score", "--json", "--all", "--include-self", "--library"):
        assert option in told


@pytest.mark.parametrize(
    "arguments",
    [("query",), ("nonsense",), ("build", ".", "--jobs", "x"), ("build", ".", "--until", "25:00")],
)
def test_usage(arguments):
    assert livi(*arguments, ok=False).returncode == 2


def test_build_json(built):
    library, done = built
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    required = {
        "schema", "seen", "indexed", "reused", "instrumental", "failed", "known_failed",
        "duplicates", "seconds", "audio_seconds", "model", "library", "generation",
    }  # fmt: skip
    assert required <= set(report)
    assert report["schema"] == 1
    assert report["seen"] == sum(report[name] for name in SEEN) == 8
    counts = {name: report[name] for name in SEEN if report[name]}
    assert counts == {"indexed": 5, "instrumental": 1, "duplicates": 1, "failed": 1}
    assert (report["model"], report["library"], report["generation"]) == ("tiny", str(library), 1)
    assert "odd \\x1b[2J.mp3: this is not an audio file" in done.stderr
    assert "\x1b" not in done.stderr


def test_build_again(built, music):
    library, _ = built
    done = livi("build", music, library=library)
    assert re.search(r"6 +known before", done.stdout)
    assert re.search(r"1 +failed before", done.stdout)
    assert str(library) in done.stdout
    assert f"livi-index query SONG --library {library}" in done.stdout
    assert done.stderr == ""
    assert livi("build", music, "--quiet", library=library).stdout == ""


def test_build_fails_in_one_sentence(built, music, tmp_path):
    library, _ = built
    done = livi("build", tmp_path / "nothing", library=library, ok=False)
    assert done.returncode == 1
    assert "no such file or folder" in done.stderr
    done = livi("build", music, "--model", "nonsense", library=tmp_path / "new", ok=False)
    assert "no model is called 'nonsense'" in done.stderr
    with write_lock(library):
        done = livi("build", music, library=library, ok=False)
    assert done.returncode == 11
    assert f"pid {os.getpid()}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_nights(music, tmp_path):
    library, folder = tmp_path / "library", tmp_path / "folder"
    done = livi("build", library=library, ok=False)
    assert done.returncode == 1
    assert "knows no folders yet" in done.stderr
    shutil.copytree(music, folder, ignore=shutil.ignore_patterns("*.mp3"))
    arguments = ("build", folder, "--model", songs.TINY, "--jobs", "1")
    told = livi(*arguments, "--dry-run", library=library).stdout
    assert re.search(r"7 +new or changed files", told)
    assert "unknown before a first build" in told
    assert not library.exists()
    livi(*arguments, library=library)
    found = json.loads(livi("build", "--dry-run", "--json", library=library).stdout)
    assert (found["schema"], found["unchanged"], found["new"], found["held"]) == (1, 7, 0, [])
    folder.rename(tmp_path / "away")
    done = livi("build", "--json", library=library, ok=False)
    assert done.returncode == 5
    assert "is not there; the 7 files known there are kept (--force-prune" in done.stderr
    report = json.loads(done.stdout)
    held = {"folder": str(folder), "reason": "missing", "known": 7, "gone": 7}
    assert (report["held"], report["missing"]) == ([held], 0)
    told = livi("build", "--force-prune", library=library).stdout
    assert re.search(r"7 +no longer there\n +6 +recordings deleted", told)


def test_query_for_people(built, music):
    library, _ = built
    done = livi("query", music / "song-1.ogg", "--min-score", "-1", library=library)
    first, head, *hits = done.stdout.splitlines()
    assert re.search(r"song-1.ogg  \(0:35, vocalness 1.00\)", first)
    assert head.split() == ["#", "prob.", "score", "recording"]
    assert len([line for line in hits if re.match(r" +\d+ +\d\.\d\d +-?\d\.\d\d  ", line)]) == 4
    assert any(re.search(r"matches \d:\d\d ↔ \d:\d\d", line) for line in hits)
    assert "and 1 more (--all)" in done.stdout
    assert "\\xff\\xfe.wav" in done.stdout
    assert "a \\x1b[31m[red]b[/red]\\u202e \\x9b1m c\\u200b – [/] Ann 0:35" in done.stdout
    assert not set("\x1b\x9b\u202e\u200b") & set(done.stdout)
    every = livi("query", music / "song-1.ogg", "--all", library=library).stdout
    assert "copy.ogg" in every and "song-0.ogg" in every


def test_query_json(built, music):
    library, _ = built
    odd = os.fsdecode(os.fsencode(music) + b"/\xff\xfe.wav")
    done = livi(
        "query", music / "song-0.ogg", odd, "--json", "--include-self", "-k", "2", "--all",
        library=library,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 2
    for answer in answers:
        assert set(answer) == {"schema", "query", "model", "library", "hits"}
        assert set(answer["query"]) == {
            *("path", "duration_s", "vocalness", "segments", "distance", "far", "doubted"),
            "speech",
        }
        assert set(answer["query"]["segments"][0]) == {"start_s", "end_s"}
        assert set(answer["library"]) == {"path", "generation", "recordings"}
        assert [hit["rank"] for hit in answer["hits"]] == [1, 2]
        for hit in answer["hits"]:
            assert set(hit) == {
                "rank", "score", "probability", "recording_id", "path", "title", "artist",
                "duration_s", "matches", "paths", "spaces",
            }  # fmt: skip
            assert set(hit["matches"][0]) == {"query_start_s", "hit_start_s", "score", "space"}
    assert len(answers[0]["hits"][0]["paths"]) == 2
    assert answers[1]["hits"][0]["path"] == odd
    assert answers[1]["hits"][0]["matches"][0]["score"] > 0.99
    done = livi("query", music / "song-0.ogg", "--json", library=library)
    assert "paths" not in json.loads(done.stdout)["hits"][0]


def test_query_fails_in_one_sentence(built, music, tmp_path):
    library, _ = built
    done = livi("query", music / "quiet.wav", music / "song-0.ogg", library=library, ok=False)
    assert done.returncode == 1
    assert "too little singing" in done.stderr
    assert "song-0.ogg" in done.stdout  # the others are answered
    done = livi("query", tmp_path / "none.mp3", library=library, ok=False)
    assert "no such file" in done.stderr
    done = livi("query", music / "song-0.ogg", LIVI_LIBRARY=str(tmp_path / "none"), ok=False)
    assert "livi-index build FOLDER" in done.stderr
    (tmp_path / "empty").mkdir()
    done = livi("query", music / "song-0.ogg", library=tmp_path / "empty", ok=False)
    assert "livi-index build FOLDER" in done.stderr
    for command in ("query", "status"):
        arguments = [music / "song-0.ogg"] if command == "query" else []
        done = livi(command, *arguments, library=tmp_path / "none", ok=False)
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1


def test_status(built, music):
    library, _ = built
    status = json.loads(livi("status", "--json", library=library).stdout)
    expected = {"schema": 1, "model": "tiny", "generation": 1, "files": 7, "recordings": 6,
                "indexed": 5, "instrumental": 1, "truncated": 0,
                "failures": {"not_audio": 1}, "library": str(library), "generations": [1],
                "folders": [str(music)]}  # fmt: skip
    assert expected.items() <= status.items()
    assert status["runs"][-1]["counts"]["indexed"] == 5
    assert status["bytes_on_disk"] > status["index_bytes"] > 0
    told = livi("status", LIVI_LIBRARY=str(library)).stdout
    assert "6 at 7 paths" in told
    assert re.search(r"not_audio +1\n", told)
    assert re.search(r"run +\d{4}-\d\d-\d\d \d\d:\d\d, .*5 indexed", told)


def test_failures(built, tmp_path):
    library, _ = built
    told = livi("failures", library=library).stdout
    assert re.fullmatch(
        r"not_audio +.*odd \\x1b\[2J.mp3: this is not an audio file"
        r" \(1×, last \d{4}-\d\d-\d\d \d\d:\d\d\)\n", told
    )  # fmt: skip
    (line,) = livi("failures", "--json", library=library).stdout.splitlines()
    failure = json.loads(line)
    assert set(failure) == {"path", "code", "message", "attempts", "quarantined", "first_at",
                            "last_at", "decoder"}  # fmt: skip
    assert livi("failures", "--code", "timeout", library=library).stdout == "nothing failed\n"
    assert "no library at" in livi("failures", library=tmp_path / "none", ok=False).stderr


def test_models(tmp_path):
    place = {"LIVI_MODELS": str(tmp_path / "models")}
    assert "installed" in livi("models", "install", songs.TINY, **place).stdout
    listed = json.loads(livi("models", "list", "--json", **place).stdout)
    (tiny,) = (model for model in listed if model["name"] == "tiny")
    assert (tiny["source"], tiny["usable"]) == ("installed", True)
    assert "every file is what its card says" in livi("models", "verify", "tiny", **place).stdout
    with (tmp_path / "models" / "tiny" / "audio.onnx").open("ab") as file:
        file.write(b"x")
    done = livi("models", "verify", "tiny", ok=False, **place)
    assert "damaged" in done.stderr
    assert "removed" in livi("models", "remove", "tiny", **place).stdout
    assert "tiny" not in livi("models", "list", **place).stdout


def test_a_bar_on_a_terminal(music, tmp_path):
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "livi_index", "build", music / "song-0.ogg", "--jobs", "1",
               "--library", tmp_path / "library", "--model", songs.TINY]  # fmt: skip
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=child, text=True
    ) as process:
        os.close(child)
        shown = b""
        # The terminal's end is told as an error on Linux and as no bytes elsewhere.
        while True:
            try:
                piece = os.read(parent, 4096)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        told = process.stdout.read()
    os.close(parent)
    assert process.returncode == 0
    assert b"indexing" in shown and b"Traceback" not in shown
    assert "newly indexed" in told and "\x1b" not in told


@pytest.mark.skipif(not HAS_MODEL, reason="the bundled model is not in this checkout yet")
def test_the_bundled_model_on_a_sung_song(tmp_path):
    demo = sorted((ROOT / "catalogs" / "demo").glob("*-[12].*"))[:4]
    done = livi("build", *demo, "--json", library=tmp_path / "library")
    report = json.loads(done.stdout)
    assert (report["indexed"], report["model"]) == (4, models.DEFAULT_MODEL)
    answer = json.loads(livi("query", demo[0], "--json", library=tmp_path / "library").stdout)
    assert answer["hits"][0]["path"] == str(demo[1])


def test_safe():
    assert safe("Straße – 愛 é 🎵") == "Straße – 愛 é 🎵"
    assert safe("a\nb\tc\x00") == "a\\nb\\tc\\x00"
    assert safe(os.fsdecode(b"\xff")) == "\\xff"
    assert safe("\ud800") == "\\ud800"
    assert safe("x" * 300, 200) == "x" * 199 + "…"
    every = "".join(map(chr, np.arange(0x110000).tolist()))
    shown = safe(every)
    assert not [c for c in shown if not c.isprintable() and c != " " and c not in "\xa0\u3000"
                and not c.isspace()]  # fmt: skip
    shown.encode()


def test_clock():
    assert [clock(s) for s in (0, 65.4, 3600)] == ["0:00", "1:05", "1:00:00"]
