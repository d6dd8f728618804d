"""Defaults from a file and the environment, what they do, and what the log says."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import songs
from test_cli import ROOT

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("LIVI_")}


def livi(folder, *arguments, code=0, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "livi_index", *map(str, arguments)],
        env=CLEAN | {"PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(folder / "config")}
        | {name: str(value) for name, value in environment.items()},
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    return done


def shown(folder, **environment):
    lines = livi(folder, "config", "show", "--json", **environment).stdout.splitlines()
    found = {line["name"]: (line["value"], line["origin"]) for line in map(json.loads, lines)}
    assert len(found) == len(lines)
    return found


def test_where_values_come_from(tmp_path):
    assert set(origin for _, origin in shown(tmp_path).values()) == {"default"}
    file = tmp_path / "livi-index.toml"
    file.write_text(
        'library = "songs/library"\n[build]\njobs = 3\nexclude = ["a", "b"]\nmax_hours = 1.5\n'
        "prune = true\n[query]\nk = 4\n[models.list]\njson = true\n"
    )
    found = shown(tmp_path, LIVI_BUILD_JOBS=2, LIVI_BUILD_RETRY="timeout:changed")
    here = str(file)
    assert found["build.library"] == found["query.library"]
    assert found["query.library"] == (str(tmp_path / "songs" / "library"), here)
    assert found["build.jobs"] == ("2", "LIVI_BUILD_JOBS")
    assert found["build.exclude"] == (["a", "b"], here)
    assert found["build.retry"] == (["timeout", "changed"], "LIVI_BUILD_RETRY")
    assert found["build.max-hours"] == ("1.5", here)
    assert found["models list.json"] == (True, here)
    assert found["schedule.until"] == ("06:00", "default")
    found = shown(tmp_path, LIVI_LIBRARY="/else", LIVI_QUERY_LIBRARY="/own")
    assert found["build.library"] == ("/else", "LIVI_LIBRARY")
    assert found["query.library"] == ("/own", "LIVI_QUERY_LIBRARY")
    told = livi(tmp_path, "config", "show").stdout
    assert re.search(r"^build.jobs +3 +.*livi-index.toml$", told, re.MULTILINE)


def test_which_file_is_read(tmp_path):
    for n, place in enumerate(("config/livi-index", ".", "named")):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "livi-index.toml").write_text(f"[build]\njobs = {n}\n")
        named = {"LIVI_CONFIG": tmp_path / "named" / "livi-index.toml"} if n == 2 else {}
        assert shown(tmp_path, **named)["build.jobs"][0] == str(n)
    done = livi(tmp_path, "status", code=1, LIVI_CONFIG=tmp_path / "none")
    assert "no such file" in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("libary = 'x'", "there is no 'libary' above all tables: there are library, model"),
        ("[biuld]\njobs = 1", "no command is called 'biuld': there are build,"),
        ("[build]\njobz = 1", "there is no 'jobz' [build]: there are dry-run,"),
        ("[build]\nexclude = 'x'", "exclude of build is a list, not 'x'"),
        ("[build]\njobs = [1]", "jobs of build is a single value, not [1]"),
        ("[models.listt]\njson = true", "no command is called 'models listt'"),
        ("[build", "cannot be read"),
    ],
)
def test_what_no_command_knows(tmp_path, text, told):
    (tmp_path / "livi-index.toml").write_text(text)
    done = livi(tmp_path, "status", code=1)
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_variables_that_no_command_knows(tmp_path):
    done = livi(tmp_path, "status", code=1, LIVI_BUILD_JOBZ=1)
    assert "LIVI_BUILD_JOBZ sets nothing: there are" in done.stderr
    assert "LIVI_BUILD_JOBS" in done.stderr
    livi(tmp_path, "config", "show", LIVI_DATA="/somewhere", LIVI_MODELS="/models")
    done = livi(tmp_path, "build", ".", code=2, LIVI_BUILD_JOBS="many")
    assert "--jobs" in done.stderr


def test_a_build_goes_by_them(tmp_path):
    music = tmp_path / "music"
    songs.song(music / "one.wav", 1)
    songs.song(music / "demo" / "two.wav", 2)
    (music / "odd \x1b[2J\n.mp3").write_text("no song")
    (tmp_path / "livi-index.toml").write_text(
        f'library = "library"\n[build]\nmodel = "{songs.TINY}"\njobs = 1\nlog = "json"\n'
        'exclude = ["demo/"]\njson = true\n'
    )
    done = livi(tmp_path, "build", "music", code=3)
    report = json.loads(done.stdout)
    assert (report["indexed"], report["failed"]) == (1, 1)
    assert report["library"] == str(tmp_path / "library")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"progress", "failure", "done"} <= {event["event"] for event in events}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", event["at"]) for event in events)
    (failure,) = (event for event in events if event["event"] == "failure")
    assert (failure["code"], failure["path"]) == ("not_audio", str(music / "odd \x1b[2J\n.mp3"))
    assert "\x1b" not in done.stderr
    done_event = events[-1]
    assert (done_event["indexed"], done_event["generation"]) == (1, 1)
    assert livi(tmp_path, "build", "--exclude", "none", LIVI_BUILD_QUIET="1").stderr == ""
    assert json.loads(livi(tmp_path, "status", "--json").stdout)["recordings"] == 2
    done = livi(tmp_path, "--log", "json", "query", "none.mp3", code=1)
    assert json.loads(done.stderr)["event"] == "problem"
    done = livi(tmp_path, "--log", "json", "status", "--library", "none", code=1)
    assert json.loads(done.stderr)["event"] == "error"


def test_completion(tmp_path):
    told = livi(
        tmp_path, "--show-completion", "bash", code=0, _TYPER_COMPLETE_TEST="1", SHELL="/bin/bash"
    )
    assert "complete" in told.stdout


def test_doctor(tmp_path):
    models = {"LIVI_MODELS": tmp_path / "models"}
    livi(tmp_path, "models", "install", songs.TINY, **models)
    lines = livi(tmp_path, "doctor", "--json", **models).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert all(set(line) == {"name", "state", "what"} for line in found)
    states = {line["name"]: line["state"] for line in found}
    assert set(states) >= {
        "program", "machine", "decoders", "inference", "model", "library", "locks", "disk",
        "memory",
    }  # fmt: skip
    assert (states["decoders"], states["library"]) == ("ok", "warning")
    assert any(line["what"] == "tiny, installed, whole" for line in found)
    with (tmp_path / "models" / "tiny" / "audio.onnx").open("ab") as file:
        file.write(b"x")
    done = livi(tmp_path, "doctor", code=1, **models)
    assert re.search(r"^! model +tiny: .*damaged", done.stdout, re.MULTILINE)


def test_doctor_looks_at_the_library(tmp_path):
    songs.song(tmp_path / "music" / "one.wav", 1)
    library = tmp_path / "library"
    arguments = ("--library", library)
    livi(tmp_path, "build", "music", "--model", songs.TINY, "--jobs", "1", *arguments)
    told = livi(tmp_path, "doctor", *arguments).stdout
    assert re.search(r"^  library +.*generation 1, 1 recordings$", told, re.MULTILINE)
    shutil.rmtree(library / "published" / "000001")
    told = livi(tmp_path, "doctor", *arguments, code=1).stdout
    assert re.search(r"^! library +.*is missing", told, re.MULTILINE)
