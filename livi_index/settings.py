"""Defaults for the command line, from ``livi-index.toml`` and the environment.

    library = "/srv/songs/library"      for every command that takes --library
    model = "livi-mini"

    [build]                             by command, as its long options are called
    jobs = 4
    exclude = ["demos/", "*.part"]
    until = "06:00"

The file is ``$LIVI_CONFIG``, else ``livi-index.toml`` in the current folder, else that in the
user's configuration folder; only the first of these that is there is read. Paths in it count from
its own folder. ``LIVI_LIBRARY``, ``LIVI_MODEL`` and ``LIVI_BUILD_JOBS`` (lists: parted by ``:``)
go before the file, options on the command line before everything. What no command knows is an
error, so that a misspelt key is never a silent default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livi_index.errors import BadInput

NAME = "livi-index.toml"
SHARED = ("library", "model")  # that may stand above all tables
# Set for other purposes than an option: the file itself, where models lie.
_OTHER_VARIABLES = frozenset({"LIVI_CONFIG", "LIVI_MODELS"})


@dataclass(frozen=True)
class Key:
    """An option of a command, and the parameter behind it; ``default`` as people read it."""

    command: str  # "build", "models install"
    name: str  # "max-minutes"
    parameter: str  # "max_minutes"
    is_list: bool
    is_path: bool
    default: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "_".join(["LIVI", *re.split("[ -]", f"{self.command} {self.name}")]).upper()


@dataclass(frozen=True)
class Setting:
    """A key, what it is set to, and by what; ``value`` None: by nothing."""

    key: Key
    value: Any
    origin: str


def config_file(environment: Mapping[str, str], folder: Path) -> Path | None:
    """The file that is read; BadInput where one is named that is not there."""
    if chosen := environment.get("LIVI_CONFIG"):
        if not Path(chosen).is_file():
            raise BadInput(f"LIVI_CONFIG names {chosen}, and there is no such file")
        return Path(chosen)
    import platformdirs

    for path in (folder / NAME, platformdirs.user_config_path("livi-index") / NAME):
        if path.is_file():
            return path
    return None


def is_anything_set(environment: Mapping[str, str], folder: Path) -> bool:
    """Whether there is anything to load but what the library knows by itself."""
    known = {"LIVI_MODELS", "LIVI_LIBRARY"}
    named = any(name.startswith("LIVI_") and name not in known for name in environment)
    return named or config_file(environment, folder) is not None


def load(keys: Sequence[Key], environment: Mapping[str, str], folder: Path) -> tuple[Setting, ...]:
    """Every key with its value, in their order. Raises BadInput for what is unknown or damaged."""
    path = config_file(environment, folder)
    table = _read(path) if path else {}
    if path:
        _check(path, table, keys)
    _check_variables(environment, keys)
    return tuple(_setting(key, table, path, environment) for key in keys)


def as_defaults(settings: Sequence[Setting]) -> dict[str, Any]:
    """What is set, nested by command and parameter."""
    defaults: dict[str, Any] = {}
    for setting in settings:
        if setting.value is not None:
            place = defaults
            for word in setting.key.command.split():
                place = place.setdefault(word, {})
            place[setting.key.parameter] = setting.value
    return defaults


def _setting(
    key: Key, table: Mapping[str, Any], path: Path | None, environment: Mapping[str, str]
) -> Setting:
    shared = f"LIVI_{key.name.upper()}"
    for variable in (key.variable, *((shared,) if key.name in SHARED else ())):
        if value := environment.get(variable):
            return Setting(key, value.split(os.pathsep) if key.is_list else value, variable)
    place: Any = table
    for word in key.command.split():
        place = place.get(word, {})
    for where in (place, table if key.name in SHARED else {}):
        for name in (key.name, key.name.replace("-", "_")):
            if name in where and path:
                return Setting(key, _value(key, where[name], path), os.fspath(path))
    return Setting(key, None, "default")


def _value(key: Key, value: Any, path: Path) -> Any:
    if key.is_list != isinstance(value, list) or isinstance(value, dict):
        wanted = "a list" if key.is_list else "a single value"
        raise BadInput(f"{path}: {key.name} of {key.command} is {wanted}, not {value!r}")

    def plain(one: Any) -> Any:
        located = path.parent / Path(one).expanduser() if key.is_path else one
        # As it would be typed: the command line says what it makes of it.
        return one if isinstance(one, bool) else str(located)

    return [plain(one) for one in value] if key.is_list else plain(value)


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error})") from error


def _check(path: Path, table: Mapping[str, Any], keys: Sequence[Key]) -> None:
    commands: dict[str, set[str]] = {}
    for key in keys:
        commands.setdefault(key.command, set()).add(key.name)
    for where, name, value in _entries(table):
        known = commands.get(where, set()) if where else set(SHARED)
        if isinstance(value, dict):
            inside = f"{where} {name}".strip()
            if not any(f"{command} ".startswith(f"{inside} ") for command in commands):
                raise BadInput(f"{path}: no command is called {inside!r}: {_listed(commands)}")
        elif name.replace("_", "-") not in known:
            place = f"[{where}]" if where else "above all tables"
            raise BadInput(f"{path}: there is no {name!r} {place}: {_listed(known)}")


def _entries(table: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str, Any]]:
    for name, value in table.items():
        yield where, name, value
        if isinstance(value, dict):
            yield from _entries(value, f"{where} {name}".strip())


def _check_variables(environment: Mapping[str, str], keys: Sequence[Key]) -> None:
    """Only names that begin as a command's do are surely meant for it."""
    known = {key.variable for key in keys} | {f"LIVI_{name.upper()}" for name in SHARED}
    starts = tuple({f"LIVI_{key.command.split()[0]}_".upper() for key in keys})
    for name in sorted(environment):
        if name.startswith(starts) and name not in known | _OTHER_VARIABLES:
            alike = [variable for variable in known if variable.startswith(name.rsplit("_", 1)[0])]
            raise BadInput(f"{name} sets nothing: {_listed(alike)}")


def _listed(names: object) -> str:
    words = ", ".join(sorted(names)) if isinstance(names, set | dict | list) else ""
    return f"there are {words}" if words else "there is nothing to set here"
