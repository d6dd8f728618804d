"""A build every night: a systemd service and timer, or a line for cron.

The service is shut in: no network, the whole system read-only but for the library, no new rights,
no devices (but for a GPU, where one is asked for), a limit of memory, and the lowest priority. The
build ends by itself in the morning. Nothing is started here: what is written is plain text, and
whoever reads it decides.

https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Any

import platformdirs

from livi_index.errors import BadInput
from livi_index.status import existing

SYSTEM_UNITS = Path("/etc/systemd/system")
CRON_FILES = Path("/etc/cron.d")

_SANDBOX = """\
NoNewPrivileges=yes
PrivateNetwork=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
"""


@dataclass(frozen=True)
class ScheduleOptions:
    at: time = time(2, 0)  # local
    until: time | None = time(6, 0)
    name: str = "livi-index"  # of the unit files
    user: str | None = None  # whom the service runs as; None: who asks
    for_user: bool = False  # a service of the user's own systemd
    gpu: bool = False
    memory: str = "4G"
    prune: bool = False
    cron: bool = False


@dataclass(frozen=True)
class File:
    """A file to be written, and where."""

    path: Path
    content: str


@dataclass(frozen=True)
class Schedule:
    """What makes builds happen every night; ``then`` are commands that put it to work."""

    files: tuple[File, ...]
    then: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``livi-index schedule --json`` prints them."""
        files = [{"path": os.fspath(file.path), "content": file.content} for file in self.files]
        return {"schema": 1, "files": files, "then": list(self.then)}

    def install(self) -> None:
        """Write the files. BadInput where another one is there, or it cannot be written."""
        for file in self.files:
            try:
                if file.path.exists() and file.path.read_text("utf-8") != file.content:
                    raise BadInput(
                        f"{file.path} is there and says something else; remove it, or choose"
                        " another --name"
                    )
                file.path.parent.mkdir(parents=True, exist_ok=True)
                file.path.write_text(file.content, "utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise BadInput(
                    f"{file.path} cannot be written ({error}); run this as root, or with --user"
                    " for your own systemd"
                ) from error


def make_schedule(
    library: str | Path | None = None, options: ScheduleOptions | None = None
) -> Schedule:
    """What builds a library every night. Raises LibraryNotFound, and BadInput for names and paths
    that no unit file can hold."""
    options = options or ScheduleOptions()
    place = Path(os.path.abspath(existing(library)))
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", options.name):
        raise BadInput(f"{options.name!r} cannot be the name of a service: letters and digits can")
    if not re.fullmatch(r"\d+[KMGT%]?", options.memory):
        raise BadInput(f"{options.memory!r} is no amount of memory such as 4G")
    if not os.fspath(place).isprintable():
        raise BadInput(f"{place} has characters in its name that a unit file cannot hold")
    command = list(_command(place, options))
    if options.cron:
        return _cron(command, options)
    folder = SYSTEM_UNITS
    if options.for_user:
        folder = platformdirs.user_config_path("systemd") / "user"
    systemctl = "systemctl --user" if options.for_user else "systemctl"
    return Schedule(
        (
            File(folder / f"{options.name}.service", _service(place, command, options)),
            File(folder / f"{options.name}.timer", _timer(options)),
        ),
        (f"{systemctl} daemon-reload", f"{systemctl} enable --now {options.name}.timer"),
    )


def _command(place: Path, options: ScheduleOptions) -> Iterator[str]:
    # -P: nothing is imported from the folder it happens to run in.
    yield from (sys.executable, "-P", "-m", "livi_index", "build", "--library", os.fspath(place))
    if options.until is not None:
        yield from ("--until", f"{options.until:%H:%M}")
    if options.prune:
        yield "--prune"


def _service(place: Path, command: Sequence[str], options: ScheduleOptions) -> str:
    user = "" if options.for_user else f"User={options.user or _me()}\n"
    devices = "" if options.gpu else "PrivateDevices=yes\n"
    rights = "PrivateUsers=yes\n" if options.for_user else "CapabilityBoundingSet=\n"
    return f"""\
# livi-index: index what is new, every night (see {options.name}.timer)
[Unit]
Description=Index new songs into {_unit_text(os.fspath(place))}
RequiresMountsFor={_unit_word(os.fspath(place))}

[Service]
Type=oneshot
ExecStart={" ".join(map(_unit_argument, command))}
{user}Nice=19
IOSchedulingClass=idle
CPUSchedulingPolicy=batch
MemoryMax={options.memory}
TimeoutStopSec=30
ReadWritePaths={_unit_word(os.fspath(place))}
{devices}{rights}{_SANDBOX}"""


def _timer(options: ScheduleOptions) -> str:
    return f"""\
[Unit]
Description=Index new songs every night ({options.name}.service)

[Timer]
OnCalendar=*-*-* {options.at:%H:%M}:00
Persistent=yes

[Install]
WantedBy=timers.target
"""


def _cron(command: Sequence[str], options: ScheduleOptions) -> Schedule:
    # cron takes a % for the end of the line.
    line = shlex.join(command).replace("%", r"\%")
    when = f"{options.at.minute} {options.at.hour} * * *"
    content = f"{when} {options.user or _me()} nice -n 19 {line} --quiet\n"
    return Schedule((File(CRON_FILES / options.name.replace(".", "-"), content),), ())


def _me() -> str:
    import getpass

    return getpass.getuser()


def _unit_text(text: str) -> str:
    return text.replace("%", "%%")


def _unit_word(text: str) -> str:
    """A path in a list of paths."""
    escaped = _unit_text(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _unit_argument(text: str) -> str:
    """A word of a command line, in which systemd also replaces variables."""
    if re.fullmatch(r"[A-Za-z0-9_./:=+-]+", text):
        return text
    return _unit_word(text.replace("$", "$$"))
