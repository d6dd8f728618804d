"""Units and cron lines as systemd and cron read them."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import time

import pytest
import songs
from test_build import run
from test_cli import livi

from livi_index.errors import BadInput, LibraryNotFound
from livi_index.schedule import ScheduleOptions, make_schedule


@pytest.fixture
def library(tmp_path):
    place = tmp_path / 'my "songs" 100% $HOME'
    place.mkdir()
    return place


def settings(text):
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str
    parser.read_string(text)
    return parser


def test_a_service_is_shut_in(library):
    made = make_schedule(library, ScheduleOptions(user="radio", memory="3G"))
    service, timer = made.files
    assert (service.path.name, timer.path.name) == ("livi-index.service", "livi-index.timer")
    told = settings(service.content)["Service"]
    expected = {
        "Type": "oneshot", "User": "radio", "MemoryMax": "3G", "PrivateNetwork": "yes",
        "ProtectSystem": "strict", "NoNewPrivileges": "yes", "Nice": "19", "PrivateDevices": "yes",
        "SystemCallFilter": "@system-service", "CapabilityBoundingSet": "",
    }  # fmt: skip
    assert expected.items() <= dict(told).items()
    assert told["ReadWritePaths"].endswith('my \\"songs\\" 100%% $HOME"')
    command = told["ExecStart"]
    assert command.startswith(f"{sys.executable} -P -m livi_index build --library ")
    assert command.endswith('100%% $$HOME" --until 06:00')
    assert settings(timer.content)["Timer"]["OnCalendar"] == "*-*-* 02:00:00"
    assert made.then[1] == "systemctl enable --now livi-index.timer"


def test_choices(library):
    options = ScheduleOptions(
        at=time(23, 5), until=None, name="night", for_user=True, gpu=True, prune=True
    )
    service, timer = make_schedule(library, options).files
    told = settings(service.content)["Service"]
    assert "User" not in told and "PrivateDevices" not in told
    assert told["ExecStart"].endswith('" --prune')
    assert "23:05" in timer.content
    assert service.path.parts[-3:] == ("systemd", "user", "night.service")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("for_user", [False, True])
def test_systemd_takes_it(library, tmp_path, for_user):
    for file in make_schedule(library, ScheduleOptions(for_user=for_user)).files:
        (tmp_path / file.path.name).write_text(file.content)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "livi-index.service",
         tmp_path / "livi-index.timer"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    mine = [line for line in done.stderr.splitlines() if "livi-index" in line]
    assert (done.returncode, mine) == (0, [])


def test_a_line_for_cron(library):
    made = make_schedule(library, ScheduleOptions(cron=True, at=time(3, 30), user="radio"))
    (file,) = made.files
    assert str(file.path) == "/etc/cron.d/livi-index"
    minute, hour, *_, user, rest = file.content.split(" ", 6)
    assert (minute, hour, user) == ("30", "3", "radio")
    assert not re.search(r"(?<!\\)%", rest)
    words = shlex.split(rest.replace(r"\%", "%"))
    assert str(library) in words
    assert words[-1] == "--quiet"


def test_what_no_unit_can_hold(library, tmp_path):
    for options in (ScheduleOptions(name="../x"), ScheduleOptions(memory="lots")):
        with pytest.raises(BadInput):
            make_schedule(library, options)
    with pytest.raises(LibraryNotFound):
        make_schedule(tmp_path / "none")
    (tmp_path / "a\nb").mkdir()
    with pytest.raises(BadInput, match="characters"):
        make_schedule(tmp_path / "a\nb")


def test_installing_for_oneself(tmp_path):
    songs.song(tmp_path / "music" / "song.wav", 1)
    run(tmp_path / "music", tmp_path / "library")
    place = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    library = tmp_path / "library"
    assert "[Timer]" in livi("schedule", "--user", library=library, **place).stdout
    told = json.loads(livi("schedule", "--user", "--json", library=library, **place).stdout)
    assert [os.path.basename(file["path"]) for file in told["files"]] == [
        "livi-index.service", "livi-index.timer",
    ]  # fmt: skip
    assert not (tmp_path / "config").exists()
    told = livi("schedule", "--user", "--install", library=library, **place).stdout
    assert "systemctl --user enable --now livi-index.timer" in told
    unit = tmp_path / "config" / "systemd" / "user" / "livi-index.service"
    command = shlex.split(settings(unit.read_text())["Service"]["ExecStart"])
    # What the service runs, run as it would be.
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command.remove("-P")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1  known before" in done.stdout
    livi("schedule", "--user", "--install", library=library, **place)
    done = livi(
        "schedule", "--user", "--install", "--at", "04:00", library=library, ok=False, **place
    )
    assert "says something else" in done.stderr
