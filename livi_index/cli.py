"""The command line: a view. Every command parses, makes one call and prints.

Results go to standard output, everything else to standard error. Exit codes: 0 fine; 1 failed;
2 usage; 3 finished, but some files newly failed or something that was named was not there; 5 the
same where files are gone, but so many that they are kept; 7 nothing reaches the thresholds that
were given; 11 another build has the library; 130 stopped by a signal, with what was done kept.

Commands with many options or a table of their own lie in ``commands``, by noun.

Start-up is part of a query's time, and decoding processes of a build import this module again: so
whatever is heavy is imported in the command that needs it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from livi_index import __version__, display, settings
from livi_index.commands import building, configuring, evaluating, grouping, keeping, scheduling
from livi_index.commands.options import (
    FAILED,
    INTERRUPTED,
    LOCKED,
    NOTHING_FOUND,
    JsonOption,
    LibraryOption,
    LogOption,
    MinProbabilityOption,
    MinScoreOption,
    ModelOption,
)
from livi_index.errors import BadInput, LibraryLocked, LiviError

PATIENCE_S = 7.0  # with a command that was told to stop
AGAIN_S = 0.01  # after which a lost interrupt is raised again

app = typer.Typer(
    name="livi-index",
    help="Find every version of a song by what is sung in it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models_app, name="models", help="List, install, verify and remove models.")

app.command()(building.build)
app.command("eval")(evaluating.evaluate)
app.add_typer(keeping.app)
app.add_typer(grouping.app)
app.command()(scheduling.schedule)
app.add_typer(configuring.app)


def main() -> None:
    """The entry point: run a command, and tell in one sentence what goes wrong."""
    signals = _Signals()
    # A title in a script that the terminal's encoding lacks is no reason to end.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(**_defaults())
    except BaseException as error:
        if signals.received:
            signals.leave()
        # What the system refuses (a broken disk, too many open files) names its file itself.
        if not isinstance(error, LiviError | OSError):
            raise
        display.complain(str(error), "error")
        sys.exit(LOCKED if isinstance(error, LibraryLocked) else FAILED)


def _defaults() -> dict[str, Any]:
    """What a file or the environment puts in the place of the commands' own defaults."""
    here = Path.cwd()
    if not settings.is_anything_set(os.environ, here):
        return {}
    keys = list(configuring.keys_of(typer.main.get_command(app)))
    return {"default_map": settings.as_defaults(settings.load(keys, os.environ, here))}


class _Signals:
    """Ctrl-C and SIGTERM end the command by KeyboardInterrupt, a second one at once.

    Python hands out signals between two of its own steps, and there may be a long one inside a
    library. So a thread is told by the system at the same time, and ends what does not end itself.
    And where the step is the end of a weak reference, nothing that is raised gets out of it: then
    it is raised again a moment later.
    """

    def __init__(self) -> None:
        self.received = False
        told, tell = os.pipe()
        os.set_blocking(tell, False)
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(told,), daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)
        signal.signal(signal.SIGALRM, self._again)
        sys.unraisablehook = self._lost

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received = True
            raise KeyboardInterrupt

    def _again(self, number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def _lost(self, what: sys.UnraisableHookArgs) -> None:
        if what.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        else:
            sys.__unraisablehook__(what)

    def _watch(self, told: int) -> None:
        os.read(told, 1)
        end_s = time.monotonic() + PATIENCE_S
        while select.select([told], [], [], max(0.0, end_s - time.monotonic()))[0]:
            if os.read(told, 1)[0] != signal.SIGALRM:
                break
        os._exit(INTERRUPTED)

    def leave(self) -> NoReturn:
        """End the process without waiting for a thread that is inside the model."""
        display.complain(
            "stopped; what was done is kept, and the next build goes on from there", "stopped"
        )
        sys.stdout.flush()
        os._exit(INTERRUPTED)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    log: LogOption = None,
) -> None:
    display.log_as(log)
    if version:
        print(f"livi-index {__version__}")
        raise typer.Exit


@app.command()
def query(
    files: Annotated[list[Path], typer.Argument(help="Songs to find versions of.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Number of hits.")] = 10,
    min_score: MinScoreOption = None,
    min_probability: MinProbabilityOption = None,
    space: Annotated[
        str, typer.Option(help="What is compared: lyrics, harmony, or both as one.")
    ] = "both",
    library: LibraryOption = None,
    model: ModelOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every path of a hit.")] = False,
    include_self: Annotated[
        bool, typer.Option("--include-self", help="Offer the query itself if it is there.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find versions of songs in a library, and where they match.

    With --min-score or --min-probability, the exit code is 7 where none of the songs has a hit.
    """
    from livi_index.library import open_library
    from livi_index.models import find_model

    failed, found = False, min_score is None and min_probability is None
    with open_library(library, model=find_model(model) if model else None) as opened:
        for file in files:
            try:
                answer = opened.query(
                    file,
                    k=k,
                    space=space,
                    min_score=min_score,
                    min_probability=min_probability,
                    include_self=include_self,
                )
            except BadInput:  # the options, for any file
                raise
            except LiviError as error:
                failed = True
                display.complain(str(error))
            else:
                found = found or bool(answer.hits)
                display.print_answer(answer, every=every, as_json=as_json)
    if failed or not found:
        raise typer.Exit(FAILED if failed else NOTHING_FOUND)


@app.command()
def lyrics(
    text: Annotated[
        list[str], typer.Argument(help="Words of a song, any number; - reads them from a pipe.")
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="Number of hits.")] = 10,
    min_score: MinScoreOption = None,
    min_probability: MinProbabilityOption = None,
    library: LibraryOption = None,
    model: ModelOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every path of a hit.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find the songs in which words are sung, and where; spelling need not be right.

    With --min-score or --min-probability, the exit code is 7 where there is no hit.
    """
    from livi_index.library import open_library
    from livi_index.models import find_model

    words = display.read_standard_input() if text == ["-"] else " ".join(text)
    with open_library(library, model=find_model(model) if model else None) as opened:
        answer = opened.query_lyrics(
            words, k=k, min_score=min_score, min_probability=min_probability
        )
        display.print_answer(answer, every=every, as_json=as_json)
    if answer.missed:
        raise typer.Exit(NOTHING_FOUND)


@app.command()
def status(library: LibraryOption = None, as_json: JsonOption = False) -> None:
    """What is in a library."""
    from livi_index.status import read_status

    display.print_status(read_status(library), as_json=as_json)


@models_app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """The models that are at hand."""
    from livi_index.models import available_models

    display.print_models(available_models(), as_json=as_json)


@models_app.command("install")
def install(
    source: Annotated[str, typer.Argument(help="A folder, a .zip file, or its https:// address.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of its namesake.")
    ] = False,
) -> None:
    """Install a model bundle."""
    from livi_index.install import install_model

    count = display.counting("MB fetched")
    watch = count and (lambda done, total: count(done // 10**6, total // 10**6))
    bundle = install_model(source, replace=replace, watch=watch)
    display.say(f"{bundle.card.name} {bundle.card.version} is installed in {bundle.path}")


@models_app.command("verify")
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Models; else all.")] = None,
) -> None:
    """Compare every file of models with what their cards say."""
    from livi_index import models

    for name in names or [entry.name for entry in models.available_models()]:
        models.verify(models.find_model(name))
        display.say(f"{name}: every file is what its card says")


@models_app.command("remove")
def remove(name: str) -> None:
    """Delete an installed model."""
    from livi_index.install import remove_model

    remove_model(name)
    display.say(f"{name} is removed")
