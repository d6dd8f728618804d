"""The README's table of figures, from the result files: ``python -m benchmarks.table``

``--write README.md`` puts it between ``<!-- figures -->`` and ``<!-- /figures -->``, and the
systems that ``benchmarks.run`` measured between ``<!-- systems -->`` and its end. A figure that was
not measured yet says so; figures are never typed by hand. ``--paper`` prints the paper's own table
with our figures beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.layout import paper, systems
from benchmarks.results import RESULTS, read_result

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
SYSTEMS, SYSTEMS_END = "<!-- systems -->", "<!-- /systems -->"
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One line: what is measured, its bar, the result file, and how its figures are written."""

    what: str
    bar: str
    result: str
    write: Callable[[Figures], str]


def _versions(figures: Figures) -> str:
    mean = figures["rankings"]["default"]["answerable"]
    size = f"{figures['works']} works, {figures['without_singing']} without singing"
    return f"{mean['hr1']:.3f} / {mean['map10']:.3f} / {mean['mr1_mean']:.1f} ({size})"


def _anthems(figures: Figures) -> str:
    kept = f"{figures['songs_kept']} of {figures['songs']}"
    aside = f"{figures['anthems_set_aside']} of {figures['anthems']}"
    share = figures["anthems_set_aside"] / figures["anthems"]
    return f"{figures['auc_sung_against_anthems']:.3f}; {kept} / {aside} ({share:.0%})"


def _speed(figures: Figures) -> str:
    return f"{figures['sung']['audio_s_per_s']:.0f} / {_both(figures)['audio_s_per_s']:.0f}"


def _window(figures: Figures) -> str:
    return f"{figures['window_s'] * 1e3:.0f} ms"


def _both(figures: Figures) -> Figures:
    both: Figures = figures["sung_and_instrumental"]
    return both


def _memory(figures: Figures) -> str:
    peak = max(figures["sung"]["peak_pss_bytes"], _both(figures)["peak_pss_bytes"])
    return f"{peak / 1e9:.2f} GB"


def _second(figures: Figures) -> str:
    return f"{_both(figures)['second_run_decodes']} decodes, {_both(figures)['second_run_s']:.1f} s"


def _metrics(figures: Figures) -> str:
    seconds = f"{figures['metrics_s']:.0f} s for {figures['product_s']:.0f} s"
    return f"{figures['ratio']:.2f} × ({seconds}); {figures['peak_bytes'] / 1e9:.2f} GB"


def _beside_the_published_way(figures: Figures) -> str:
    few = figures["published_way"]
    return f"{few['ours_s']:.1f} s / {few['published_s']:.0f} s"


def _heads(figures: Figures) -> str:
    rows = figures["rows"].items()
    found = [f"{name} {row['hr1']:.3f} / {row['words_hr1']:.3f}" for name, row in rows]
    windows = f"{figures['training_rows']:,} windows"
    taught = f"heads taught on {windows}, {figures['training_epochs']:g} times"
    size = f"{figures['works']} works, {taught}"
    model = figures["model"]
    return f"{'; '.join(found)} ({model['name']} {model['version']}, {size})"


def _typed(figures: Figures) -> str:
    typed = figures["rendered"]
    plain, misspelt = typed["plain"], typed["misspelt"]
    found = f"{plain['hr1']:.3f} / {plain['hr10']:.3f}; {misspelt['hr10']:.3f}"
    return f"{found} ({typed['works']} works)"


def _real_words(figures: Figures) -> str:
    english, others = figures["real"]["english"], figures["real"]["others"]
    told = f"{english['hr1']:.3f} / {english['hr3']:.3f}"
    return f"{told} (other languages {others['hr1']:.3f} / {others['hr3']:.3f})"


def _calibration(figures: Figures) -> str:
    kinds = [
        figures[name]["held_out"]
        for name in ("lyrics", "harmony", "both", "words")
        if name in figures
    ]
    return "; ".join(f"{kind['brier']:.4f} / {kind['ece']:.3f}" for kind in kinds)


UNMEASURED = "not measured yet"


def _in_spaces(found: Figures | None, *names: str) -> str:
    """These figures of the three ways to ask, such as HR@1 and MAP@10 of each."""
    if found is None:
        return UNMEASURED
    spaces = [found[space] for space in ("lyrics", "harmony", "both")]
    told = "; ".join(" / ".join(f"{space[name]:.3f}" for name in names) for space in spaces)
    return f"{told} ({found['queries']:,} ask)"


def _asked(name: str, *figures: str) -> Callable[[Figures], str]:
    return lambda result: _in_spaces(result["asked"].get(name), *figures)


def _whole_songs(figures: Figures) -> str:
    songs = figures["asked"]["songs"]
    counts = [songs[space]["works_first"] for space in ("lyrics", "harmony", "both")]
    return f"{'; '.join(map(str, counts))} of {songs['works']}"


def _alarms(figures: Figures) -> str:
    highest = figures["highest_probability"]
    told = [highest.get(space) for space in ("lyrics", "harmony", "both")]
    return "; ".join("-" if likely is None else f"{likely:.2f}" for likely in told)


def _beside(figures: Figures) -> str:
    other = figures.get("beside")
    if other is None:
        return UNMEASURED
    columns = (figures, figures.get("alone", figures), other)
    keys = ("auc_inside_songs_mean", "auc_sung_against_anthems", "f1")
    rows = [" / ".join(f"{column[key]:.3f}" for column in columns) for key in keys]
    cost = " / ".join(f"{column['cost_s_per_minute']:.3f}" for column in (figures, other))
    return "; ".join([*rows, cost])


def _easily_taken(figures: Figures) -> str:
    noise = max(figures["noise_called_sung"].values())
    return f"{noise:.0%}; {figures['ends_called_sung']:.1%} of {figures['ends']:,}"


def _spoken(figures: Figures) -> str:
    kinds = (figures["spoken"][kind] for kind in ("readings", "songs"))
    return "; ".join(f"{kind['told_as_speech']} of {kind['recordings']}" for kind in kinds)


_VERSIONS_ASKED = "asked by words; by harmony; by both"


def _gpu(figures: Figures) -> str:
    rate = f"{figures['ours_windows_per_s']:.0f} in {figures['ours_in']}"
    return f"{rate}, {figures['share_of_ceiling']:.0%}, {figures['times_published']:.1f} ×"


def _runtime(figures: Figures) -> str:
    ways = figures["ways"]
    seconds = " / ".join(f"{ways[name]['total_s']:.2f}" for name in RUNTIME_WAYS)
    ratio = f"{figures['published_against_ours']:.2f} × of the published way"
    size = f"Whisper {figures['whisper']}, {figures['seconds_of_a_track']:.0f} s of a track"
    return f"{seconds} s; {ratio} ({size})"


def _other_graphs(figures: Figures) -> str:
    """What the other graphs of the last look found at most, and how long they took to build."""
    systems = figures["looks"][max(figures["looks"], key=int)]["systems"]
    ours = systems["usearch-f16"]["build_cpu_s"]
    return "".join(
        f"; {name} {max(found['recall10'] for found in system['efforts'].values()):.3f},"
        f" built in {system['build_cpu_s'] / ours:.2f} × the time"
        for name, system in systems.items()
        if "hnsw" in name
    )


def _scale(figures: Figures) -> str:
    bars = figures["bars"]
    told = f"{bars['recall10']:.3f}; "
    if bars["cpu_ms_at_recall"] is not None:
        told += (
            f"{bars['p50_ms_at_recall']:.1f} ms ({bars['cpu_ms_at_recall']:.2f} ms of processor)"
        )
    else:
        told += "0.98 not reached"
    if bars["fastest_other"] is None:
        told += _other_graphs(figures)
    else:
        told += f"; {bars['build_against_it']:.2f} × {bars['fastest_other']}"
    return f"{told} ({figures['count']:,} vectors)"


def _instrumental(figures: Figures) -> str:
    as_built, overruled, chroma = (way["instrumental"] for way in figures["ways"].values())
    lost = overruled["scores"]["answerable"]["hr1"]
    by_chance = f"{lost:.3f} (chance {overruled['hr1_by_chance']:.3f})"
    found = chroma["scores"]["answerable"]["hr1"]
    aside = f"{as_built['set_aside']} of {as_built['queries']}"
    return f"{aside}; {by_chance}; {found:.3f} ({figures['works']} works)"


def _took(told: Figures) -> str:
    load = f"at load {told['load_1min']:.0f}"
    return f"{told['cpu_s']:.1f} s of processor, {told['seconds']:.1f} s {load}"


def _size(found: Figures) -> str:
    return f"{found['recordings']:,} × {found['segments_of_a_recording']} segments"


def _night(found: Figures) -> str:
    beyond = {
        **found,
        "cpu_s": found["cpu_s"] - found["own_cpu_s"],
        "seconds": found["beyond_own_s"],
    }
    return f"{_took(beyond)}; {found['peak_pss_bytes'] / 1e9:.2f} GB ({_size(found)})"


def _long(found: Figures) -> str:
    slopes, ranges = found["bytes_for_1000_tracks"], found["least_and_most"]
    told = " / ".join(f"{slopes[f'{who}_bytes'] / 1e6:.2f}" for who in ("main", "worker"))
    files = " / ".join("–".join(map(str, ranges[f"{who}_files"])) for who in ("main", "worker"))
    return f"{told} MB; {files} ({found['seen']:,} tracks)"


def _broken(figures: Figures) -> str:
    n = len(figures["violations"])
    return f"{n} promises broken" if n else "no promise broken"


def _slow_decoders(figures: Figures) -> str:
    worst = max(figures["worst_s"].values()) - figures["limit_s"]
    return f"{figures['files']} files, {worst:.1f} s beyond the limit at most; {_broken(figures)}"


def _alignment(figures: Figures) -> str:
    told = []
    for name, row in figures["rows"].items():
        parts, others = row["segments"], f"{row['segments']['other_mean']:.2f}"
        told.append(f"{name} {parts['mean']:.3f} ± {parts['std']:.3f}, {others},"
                    f" {parts['d_prime']:.2f} ({parts['n']} segments)")  # fmt: skip
    return "; ".join(told)


def _lambda(figures: Figures) -> str:
    rows = {least: figures["rows"][least] for least in (str(figures["ours"]), "0.5")}
    return "; ".join(
        f"{least}: {row['sung_kept']:.0%}, {row['others_set_aside']:.0%}, {row['hr1']:.3f}"
        f" / {row['hr1_of_all']:.3f}"
        for least, row in rows.items()
    )


RUNTIME_WAYS = ("published", "same windows", "transcription")


def _lines(figures: Figures) -> str:
    mrr, by = figures["places"]["mrr"], figures["repeats"]["map"]
    found = ", ".join(f"{name} {value:.3f}" for name, value in by.items())
    places = f"{mrr['english']:.3f} / {mrr['others']:.3f}"
    return f"{places}; {figures['phones']['error_rate']:.0%}; {found}"


def _unfamiliar(figures: Figures) -> str:
    groups = figures["groups"]
    found = [
        f"{name} {row['far']}, {row['doubted']} of {row['told']}" for name, row in groups.items()
    ]
    return f"{', '.join(found)}; AUC {figures['auc_language']:.2f}"


def _false_hits(figures: Figures) -> str:
    told = []
    for kind in ("synthetic", "real"):
        spaces = figures[kind]
        sizes = (spaces.get("both") or spaces["lyrics"])["sizes"]
        shares = [sizes[size]["false_hits"]["0.9"] for size in ("600", "10000", "200000")]
        told.append(f"{' / '.join(f'{share:.2%}' for share in shares)} ({kind})")
    return "; ".join(told)


LINES = (
    Line(
        "sung test split, 500 works × 3 versions and 500 recordings without singing, by words:"
        " HR@1 / MAP@10 / MR1",
        "≥ 0.95 / 0.92 / ≤ 3", "sung", _versions,
    ),
    Line(
        "the demonstration's songs, clear voices and new words: HR@1 / MAP@10 / MR1",
        "", "demo", _versions,
    ),
    Line(
        "a typed line of five words and more finds its work: HR@1 / HR@10; with one word in five"
        " misspelt: HR@10",
        "≥ 0.60 / 0.85; ≥ 0.75 (500 works)", "words", _typed,
    ),
    Line(
        "three lines of a real English song find it among 14: HR@1 / HR@3",
        "≥ 0.60 / 0.80", "words", _real_words,
    ),
    Line(
        "real singing: a typed line finds its place among all windows, MRR, English / others;"
        " phones misread; three lines find where they return, MAP by",
        "; ; by what is read ≥ by chroma and MFCC + 0.1", "lines", _lines,
    ),
    Line(
        "probabilities on works they were not fitted on, by words; harmony; both; typed lines:"
        " Brier / ECE",
        "", "calibration", _calibration,
    ),
    Line(
        "queries with a false hit at probability 0.9 among 600 / 10,000 / 200,000 recordings, by"
        " both spaces (the tail beyond what was met is extrapolated)",
        "", "accepts", _false_hits,
    ),
    Line(
        "far from what the model was trained on, and farther than all of it, of those with enough"
        " to tell; English told from other languages",
        "", "unfamiliar", _unfamiliar,
    ),
    Line(
        "ways from the reader to a vector, tracks by their mean: HR@1 / words → audio HR@1",
        "", "heads", _heads,
    ),
    Line(
        "sung segments with their words: cosine; of other words; d′",
        "≥ 0.70; ≤ 0.1", "experiments-alignment", _alignment,
    ),
    Line(
        "λ of vocalness, ours and the paper's: singing kept, other music set aside; HR@1 by track"
        " vectors of what is kept / of all that is sung",
        "", "experiments-lambda", _lambda,
    ),
    Line(
        f"the same test split, {_VERSIONS_ASKED}: HR@1 / MAP@10",
        "both ≥ the better one", "harmony-versions", _asked("sung", "hr1", "map10"),
    ),
    Line(
        f"its recordings with the voice at −5 dB ask, {_VERSIONS_ASKED}: HR@1 / MAP@10",
        "≥ 0.85", "harmony-versions", _asked("voice at -5 dB", "hr1", "map10"),
    ),
    Line(
        f"its recordings with the voice at −10 dB ask, {_VERSIONS_ASKED}: HR@1 / MAP@10",
        "both ≥ the better one", "harmony-versions", _asked("voice at -10 dB", "hr1", "map10"),
    ),
    Line(
        f"its works played anew without a voice ask among all of it, {_VERSIONS_ASKED}: HR@1",
        "≥ 0.70", "harmony-versions", _asked("instrumental", "hr1"),
    ),
    Line(
        "altered copies of anthems (pitch, tempo, equaliser, cut, mp3, all of it) find them first"
        f" among 165, {_VERSIONS_ASKED}: HR@1",
        "≥ 0.98", "harmony-copies", _asked("anthems", "hr1"),
    ),
    Line(
        f"real songs that all their altered copies find first, {_VERSIONS_ASKED}",
        "14 of 14", "harmony-copies", _whole_songs,
    ),
    Line(
        "first half of a real song finds its second half first among all 28,"
        f" {_VERSIONS_ASKED}: HR@1",
        "", "harmony-halves", lambda figures: _in_spaces(figures["asked"], "hr1"),
    ),
    Line(
        "likeliest of all wrong pairs among 14 real songs and 75 anthems,"
        f" {_VERSIONS_ASKED}: probability",
        "< 0.5", "harmony-alarms", _alarms,
    ),
    Line(
        "what harmony adds to the time of a build of songs and anthems",
        "≤ 25 %", "harmony-cost", lambda figures: f"{figures['added']:.0%}",
    ),
    Line(
        "singing inside real songs, by the detector and what is read: AUC, mean over songs",
        "≥ 0.85", "detector", lambda figures: f"{figures['auc_inside_songs_mean']:.3f}",
    ),
    Line(
        "real singing against anthems, by both: AUC; songs kept / anthems set aside",
        "≥ 0.95; 14 of 14 / ≥ 95 %", "detector", _anthems,
    ),
    Line(
        "both / our detector alone / MusiCNN's: AUC inside songs; against anthems; F1 of windows;"
        " seconds of the detector for a minute, ours / MusiCNN's",
        "", "detector", _beside,
    ),
    Line(
        "noise called singing, the worst of three colours; ends of anthems cut off and filled up",
        "", "detector", _easily_taken,
    ),
    Line(
        "readings told as plain speech, by readers nobody trained on; real songs told so",
        "", "detector", _spoken,
    ),
    Line(
        "build, seconds of audio per second: songs / songs and anthems",
        "≥ 200 / 300", "speed", _speed,
    ),
    Line("one window of 30 s, on one processor", "≤ 120 ms", "speed", _window),
    Line("memory of that build, all processes (PSS)", "≤ 1.5 GB", "speed", _memory),
    Line("second run over the same folders", "0 decodes, < 2 s", "speed", _second),
    Line(
        "the paper's model on a GPU, random weights: windows a second, of the ceiling, against the"
        " published way",
        "≥ 40 % / 5 ×", "gpu", _gpu,
    ),
    Line(
        "answer from 10,000 recordings to a query that is encoded: median (95th percentile)",
        "< 20 ms", "query",
        lambda figures: f"{figures['answer']['median_ms']:.1f} ms"
        f" ({figures['answer']['p95_ms']:.1f} ms)",
    ),
    Line(
        "`livi-index query` of a 3-minute file there, whole process",
        "≤ 2.5 s", "query", lambda figures: f"{figures['cold']['median_s']:.1f} s",
    ),
    Line(
        "100 new songs in a library of 200,000 recordings, beyond their own decoding and encoding;"
        " memory", "≤ 60 s; ≤ 4 GB", "nights-night", _night,
    ),
    Line(
        "`livi-index query` of a 3-minute file there, whole process: as left / after a restart of"
        " the machine", "≤ 3 s", "nights-cold",
        lambda f: f"{_took(f['warm_pages'][-1])} / {_took(f['cold_pages'])}",
    ),
    Line(
        "many short tracks in one build: memory for 1,000 more, build / worker; files open, least"
        "–most", "< 1 MB; constant", "nights-long", _long,
    ),
    Line(
        "a night over known files", "0 decodes, < 10 s (10,000)", "nights-unchanged",
        lambda f: f"{f['decodes']} decodes, {_took(f)} ({f['seen']:,} files)",
    ),
    Line(
        "seconds of a track on one thread, random weights: LIVI as published / our way, the same"
        " weights and windows / with transcription",
        "≥ 1.5 ×", "runtime", _runtime,
    ),
    Line(
        "vocal detection, share of the bundled model's seconds of a track",
        "≤ 5 %", "runtime", lambda figures: f"{figures['vocals_share_of_build']:.1%}",
    ),
    Line(
        "usearch, half precision, 768 numbers: recall@10; one answer where that is 0.98; build"
        " against the fastest other graph",
        "≥ 0.98; ≤ 2 ms; ≥ 1.0 × (1,000,000 vectors)", "scale-1000000", _scale,
    ),
    Line(
        "usearch, half precision, 768 numbers: recall@10; one answer where that is 0.98; build"
        " against the fastest other graph",
        "", "scale-100000", _scale,
    ),
    Line(
        "instrumental versions ask for sung ones: set aside; HR@1 where the detector is overruled;"
        " by chroma",
        "", "instrumental", _instrumental,
    ),
    Line(
        "all metrics of 72,316 × 768 vectors, against their bare product: time; peak of memory",
        "≤ 1.5 ×; ≤ 2 GB", "metrics", _metrics,
    ),
    Line(
        "all metrics of 5,000 × 768 vectors: ours / the published evaluator's way",
        "", "metrics", _beside_the_published_way,
    ),
    Line(
        "builds killed at random moments and at named points, resumed and compared",
        "200; 0", "endurance-kills",
        lambda f: f"{f['kills']}, {f['most_recomputed']} songs heard twice at most; {_broken(f)}",
    ),
    Line(
        "calls to the system refused, one in each run of a build or query, for every call there is",
        "every; 0", "endurance-io-errors",
        lambda f: f"{f['tried']:,} of {f['points']:,} calls; {_broken(f)}",
    ),
    Line(
        "damaged files, bombs and playlists among good ones; the largest worker",
        "2,000; 0 crashes; ≤ 1.5 GB", "endurance-audio",
        lambda f: f"{f['files']:,}; {f['worker_peak_bytes'] / 1e9:.2f} GB; {_broken(f)}",
    ),
    Line(
        "decoders that sleep, spin, ignore signals or die",
        "≤ limit + 2 s", "endurance-decoders", _slow_decoders,
    ),
    Line(
        "a disk that is full after so many bytes, for builds of every stage",
        "a sentence; reruns complete", "endurance-disk-full",
        lambda f: f"{f['sizes']} sizes, {f['full']} of them too small; {_broken(f)}",
    ),
    Line(
        "questions without a pause while builds publish",
        "20 builds; 0 errors", "endurance-readers",
        lambda f: f"{f['builds']} builds, {f['answers']:,} answers; {_broken(f)}",
    ),
    Line(
        "damage to what is published, found before it is searched; to a database, wrong answers",
        "all; 0", "endurance-damage",
        lambda figures: f"{figures['found_published']} of {figures['damaged_published']};"
        f" {figures['silent_wrong_answers']} in {figures['damaged_database']}",
    ),
)  # fmt: skip


def table(folder: Path = RESULTS) -> str:
    """The table as Markdown, from the result files in a folder, with where they were measured."""
    lines = ["| what | bar | measured | command |", "|---|---|---|---|"]
    machines: dict[str, list[str]] = {}
    for line in LINES:
        result = read_result(line.result, folder)
        if result is None:
            measured, command = UNMEASURED, f"python -m benchmarks.{line.result.replace('-', ' ')}"
        else:
            measured, command = line.write(result["figures"]), result["command"]
            place = f"{result['machine']['cores']} cores of {result['machine']['cpu']}"
            machines.setdefault(place, []).append(line.result)
        lines.append(f"| {line.what} | {line.bar} | {measured} | `{command}` |")
    notes = [f"{', '.join(dict.fromkeys(names))} on {place}" for place, names in machines.items()]
    return "\n".join([*lines, *(["", f"Measured: {'; '.join(notes)}."] if notes else [])])


def filled(readme: str, folder: Path = RESULTS) -> str:
    """A README with the tables between their marks; ValueError where those are not there."""
    readme = _between(readme, BEGIN, END, table(folder))
    return _between(readme, SYSTEMS, SYSTEMS_END, systems(folder))


def _between(readme: str, begin: str, end: str, text: str) -> str:
    before, found_begin, rest = readme.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"the table belongs between {begin} and {end}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the README to fill")
    parser.add_argument("--paper", action="store_true", help="the paper's table, ours beside it")
    options = parser.parse_args()
    if options.write is not None:
        options.write.write_text(filled(options.write.read_text()))
    else:
        print(paper() if options.paper else f"{table()}\n\n{systems()}")


if __name__ == "__main__":
    main()
