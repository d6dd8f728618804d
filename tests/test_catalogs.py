"""Data sets: their lists as they are published, their audio on disk, and the way into a library."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import songs
from test_cli import livi

from catalogs import Entry, da_tacos, jamendo_lyrics
from catalogs.datasets import NAMES, Size, dataset, on_disk, report, size_of
from catalogs.lyrics import DEMO, lines_of
from livi_index.errors import BadInput

ROOT = Path(__file__).parent.parent
MADE = Path(__file__).parent / "data" / "catalogs"  # made-up lists of the real formats


def catalogs(*arguments: object, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """``python -m catalogs``; ``ok`` False: it must fail, with one sentence and no traceback."""
    command = [sys.executable, "-m", "catalogs", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) == ok, done.stderr
    return done


def read(name: str, root: Path, **options: object) -> list[Entry]:
    return dataset(name).read(root, **options)  # type: ignore[arg-type]


def audio(folder: Path, *names: str) -> None:
    """Files that are there; what is in them is no matter of a list."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"audio")


def facts(entry: Entry) -> tuple[str, ...]:
    return entry.recording_id, entry.work_id, entry.title, entry.artist, entry.split


# lists as they were published


def metadata() -> Path:
    """The samples of real lists; skip without them, fail where CI=true."""
    place = os.environ.get("LIVI_DATA")
    if place and Path(place, "metadata").is_dir():
        return Path(place, "metadata")
    reason = "LIVI_DATA does not name the development data"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.mark.parametrize("name", ["covers80_annotations.csv", "covers80_coverhunter.jsonl"])
def test_covers80_as_published(tmp_path: Path, name: str) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / name).write_bytes((metadata() / name).read_bytes())
    entries = read("covers80", tmp_path, metadata=lists)
    assert size_of(entries) == Size(80, 164)
    sizes = Counter(Counter(entry.work_id for entry in entries).values())
    assert sizes == {2: 77, 3: 2, 4: 1}
    by_id = {entry.recording_id: entry for entry in entries}
    entry = by_id["procol_harum+Greatest_Hits+2-A_Whiter_Shade_Of_Pale"]
    assert facts(entry)[1:4] == (
        "A_Whiter_Shade_Of_Pale", "A Whiter Shade Of Pale", "procol harum",
    )  # fmt: skip


def test_both_lists_of_covers80_are_one(tmp_path: Path) -> None:
    found = []
    for name in ("covers80_annotations.csv", "covers80_coverhunter.jsonl"):
        lists = tmp_path / name.partition(".")[0]
        lists.mkdir()
        (lists / name).write_bytes((metadata() / name).read_bytes())
        found.append({facts(entry) for entry in read("covers80", tmp_path, metadata=lists)})
    assert found[0] == found[1]


def test_shs100k_as_published(tmp_path: Path) -> None:
    entries = read("shs100k", tmp_path, metadata=metadata())
    val, test = ([e for e in entries if e.split == split] for split in ("val", "test"))
    assert (size_of(val), size_of(test)) == (Size(1842, 10884), Size(1692, 10547))
    # The published splits share one work.
    assert {e.work_id for e in val} & {e.work_id for e in test} == {"8110"}


def test_da_tacos_as_published(tmp_path: Path) -> None:
    entries = read("da_tacos", tmp_path, metadata=metadata())
    sizes = Counter(Counter(entry.work_id for entry in entries).values())
    assert sizes == {13: 1000, 1: 2000}
    assert facts(entries[0]) == ("P_546633", "0", "Under Control", "Beth", "test")


def test_a_clique_of_discogs_vi_as_published(tmp_path: Path) -> None:
    audio(tmp_path, "audio/kv/kv-jdTn_F3Q.mp4")
    entries = read("discogs_vi", tmp_path, metadata=metadata())
    assert size_of(entries) == Size(1, 80)
    assert [e.path.name for e in on_disk(entries)] == ["kv-jdTn_F3Q.mp4"]
    first = entries[0]
    assert (first.title, first.artist) == ("I Believe", "Les Humphries Singers")


# the same formats, made up


def test_covers80_pairs_before_folders(tmp_path: Path) -> None:
    folder = tmp_path / "covers32k"
    files = [
        "Blue_Door/ann_lee+First_Things+03-Blue_Door.mp3",
        "Blue_Door/bo+Covers+01-Blue_Door.mp3",
        "Slow_River/the_tides+Live_in_Town+11-Slow_River.mp3",
        "Slow_River/xx+Third+01-Slow_River.mp3",
    ]
    audio(folder, *files)
    entries = read("covers80", tmp_path, whole=False)
    assert {facts(e)[1:4] for e in entries} == {
        ("Blue_Door", "Blue Door", "ann lee"), ("Blue_Door", "Blue Door", "bo"),
        ("Slow_River", "Slow River", "the tides"), ("Slow_River", "Slow River", "xx"),
    }  # fmt: skip
    for name in ("list1.list", "list2.list"):
        (folder / name).write_bytes((MADE / "covers80" / name).read_bytes())
    listed = read("covers80", tmp_path, whole=False)
    assert [e.path.relative_to(folder).as_posix() for e in on_disk(listed)] == [
        files[0], files[2], files[1],
    ]  # fmt: skip
    (missing,) = {e.recording_id for e in listed} - {e.recording_id for e in on_disk(listed)}
    assert missing == "cara_dunn+Rivers+02-The_Slow_River"
    with pytest.raises(BadInput, match=r"4 recordings of 2 works, but 160 .* or 164 .*--part"):
        read("covers80", tmp_path)


def test_shs100k_by_every_name(tmp_path: Path) -> None:
    audio(tmp_path, "0_0.mp3", "x/0-1.opus", "7/0.m4a", "1_0", "ccccccccccc.webm", "7_10.mp3")
    entries = read("shs100k", tmp_path, metadata=MADE / "shs100k", whole=False)
    assert [e.split for e in entries] == ["train"] * 5 + ["test"] * 4
    found = {e.recording_id: e.path.relative_to(tmp_path).as_posix() for e in on_disk(entries)}
    assert found == {
        "0_0": "0_0.mp3", "0_1": "x/0-1.opus", "1_0": "1_0", "7_0": "7/0.m4a",
        "7_1": "ccccccccccc.webm",
    }  # fmt: skip
    by_id = {entry.recording_id: entry for entry in entries}
    assert facts(by_id["7_0"]) == ("7_0", "7", 'Slow "River', "The Tides", "test")
    assert facts(by_id["9_3"]) == ("9_3", "9", "", "", "test")


def test_discogs_vi_splits(tmp_path: Path) -> None:
    audio(tmp_path, "audio/-b/-bbbbbbbbbb.mp4", "audio/ee/eeeeeeeeeee.mp4")
    entries = read("discogs_vi", tmp_path, metadata=MADE / "discogs_vi", whole=False)
    assert Counter(e.split for e in entries) == {"train": 2, "val": 2, "test": 4}
    assert {e.recording_id for e in on_disk(entries)} == {"v2", "v5"}
    assert facts(entries[-1]) == ("v8", "clique-4", "Oak", "", "test")
    with pytest.raises(BadInput, match=r"8 recordings of 4 works, but 493,049 recordings"):
        read("discogs_vi", tmp_path, metadata=MADE / "discogs_vi")
    # A split alone has no published size to be held against.
    (tmp_path / "Discogs-VI-YT-20240701-light.json.test").write_bytes(
        (MADE / "discogs_vi" / "Discogs-VI-YT-20240701-light.json.test").read_bytes()
    )
    assert len(read("discogs_vi", tmp_path)) == 4


def test_discogs_vi_in_full(tmp_path: Path) -> None:
    audio(tmp_path, "bb/bbbbbbbbbbb.m4a")
    entries = read("discogs_vi", tmp_path, metadata=MADE / "discogs_vi_full")
    assert [facts(e)[1:4] for e in entries] == [
        ("clique-1", "Blue Door", "Ann Lee"), ("clique-1", "Blue Door", "Bo, Cara Dunn"),
        ("clique-2", "Kite", "The Tides"),
    ]  # fmt: skip
    assert [e.recording_id for e in on_disk(entries)] == ["v1"]  # by its second video


def test_da_tacos_marks_what_is_not_sung(tmp_path: Path) -> None:
    audio(tmp_path, "W_1/P_12.mp3")
    entries = read("da_tacos", tmp_path, metadata=MADE / "da_tacos", whole=False)
    kinds = {e.recording_id: e.kind for e in entries}
    assert kinds == {"P_11": "sung", "P_12": "instrumental", "P_21": "sung"}
    assert [e.path.name for e in on_disk(entries)] == ["P_12.mp3"]
    (tmp_path / da_tacos.METADATA).write_text("[1, 2]")
    with pytest.raises(BadInput, match="cannot be read as metadata of Da-TACOS"):
        read("da_tacos", tmp_path)


def test_jamendo_lyrics_have_words(tmp_path: Path) -> None:
    lists = MADE / "jamendo_lyrics"
    audio(tmp_path, "mp3/10._Fluß_-_Bo.mp3", "other/Ann_Lee_-_Blue_Door.mp3")
    blue, river = read("jamendo_lyrics", tmp_path, metadata=lists, whole=False)
    assert len(on_disk([blue, river])) == 2
    assert facts(river) == ("10._Fluß_-_Bo", "10._Fluß_-_Bo", "Fluß", "BO", "test")
    first, second = jamendo_lyrics.lines(lists, river)
    assert (first.start_s, first.end_s, first.text) == (1.5, 3.25, "am Fluß, am Fluß")
    assert second.text == "steht ein Haus"
    with pytest.raises(BadInput, match=r"Blue_Door.csv cannot be read"):
        jamendo_lyrics.lines(lists, blue)
    told = lines_of("jamendo_lyrics", tmp_path, [blue, river], lists)
    assert told == {river.recording_id: [first, second]}


def test_words_of_what_was_made_here_are_known_in_time() -> None:
    entries = read("plain", DEMO)
    told = lines_of("plain", DEMO, entries)
    assert set(told) == {entry.recording_id for entry in entries}
    lines = told["harbour-lights-1.ogg"]
    assert lines[0].text == "The evening ferry turns for home"
    assert all(0 < line.start_s < line.end_s < 65 for line in lines)
    assert [line.start_s for line in lines] == sorted(line.start_s for line in lines)
    assert lines_of("plain", MADE, entries) == {}


def test_lists_of_ones_own(tmp_path: Path) -> None:
    audio(tmp_path, "a.mp3", "b.mp3")
    (tmp_path / "works.csv").write_text("path,work,split\na.mp3,w,val\n../b.mp3,w,\n")
    first, second = read("plain", tmp_path)
    assert facts(first) == ("a.mp3", "w", "", "", "val")
    assert (second.split, second.path) == ("test", tmp_path.parent / "b.mp3")
    for text, message in (
        ("path,group\na,b\n", "row 1 .* no path, or no work"),
        ("work\nb\n", "no column path"),
        ("path,work,kind\na,b,loud\n", "row 1 is of split 'test' and kind 'loud'"),
        ("path,work\na,b\na,c\n", "1 recordings are listed twice, first a"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(BadInput, match=message):
            read("plain", tmp_path / "bad.csv")
    (tmp_path / "deep").mkdir()
    with pytest.raises(BadInput, match=r"holds no list of a CSV file: works.csv or entries.csv"):
        read("plain", tmp_path / "deep")


def test_the_demo_and_sung_catalogues_are_such_lists(tmp_path: Path) -> None:
    demo = read("plain", ROOT / "catalogs" / "demo")
    assert size_of(demo) == Size(12, 36) and on_disk(demo) == demo
    audio(tmp_path, "w-a.mp3", "w-b.mp3")
    (tmp_path / "entries.csv").write_text(
        "recording_id,work_id,path,title,artist,split,kind\n"
        "w-a,w,w-a.mp3,Title,Someone,train,sung\nw-b,w,w-b.mp3,Title,,train,instrumental\n"
    )
    entries = read("sung", tmp_path)
    assert [facts(e) for e in entries] == [
        ("w-a", "w", "Title", "Someone", "train"), ("w-b", "w", "Title", "", "train"),
    ]  # fmt: skip
    assert [e.kind for e in entries] == ["sung", "instrumental"]


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_has_the_shape(name: str, tmp_path: Path) -> None:
    about = dataset(name).ABOUT
    assert all((about.title, about.home, about.licence, about.citation, about.audio))
    told = catalogs("about", name).stdout
    assert about.licence in told and about.home in told
    with pytest.raises(BadInput, match="--metadata"):
        read(name, tmp_path)
    with pytest.raises(BadInput):
        read(name, tmp_path / "none")


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(BadInput, match="covers80, shs100k"):
        dataset("covers800")


# the way from a data set to its figures


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    audio(tmp_path, "0_0.mp3", "0_1.mp3", "7_0.mp3")
    entries = read("shs100k", tmp_path, metadata=MADE / "shs100k", whole=False)
    train, test = report(entries, on_disk(entries))
    assert train == (
        "train: 5 recordings of 2 works; 2 on disk (40.0%), of 1 works, 1 of them with two or more;"
        " 3 missing: 0_4, 1_0, 1_2"
    )
    assert test.endswith("of 1 works, 0 of them with two or more; 3 missing: 7_1, 9_0, 9_3")
    flags = (tmp_path, "--metadata", MADE / "shs100k", "--part")
    done = catalogs("shs100k", *flags, "--split", "train")
    assert "SHS100K, train: 5 recordings of 2 works; 2 on disk" in done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert len(catalogs("shs100k", *flags, "--all").stdout.splitlines()) == 10
    done = catalogs("shs100k", *flags[:3], ok=False)
    assert (
        done.stdout == "" and "but 87,091 recordings of 5,324 works were published" in done.stderr
    )
    (tmp_path / "deep").mkdir()
    done = catalogs("shs100k", tmp_path / "deep", *flags[1:], ok=False)
    assert "holds none of these recordings" in done.stderr and done.stdout == ""


def test_from_a_data_set_to_its_figures(tmp_path: Path) -> None:
    """Real audio: two versions of three works, one of them silent, one missing."""
    folder = tmp_path / "coversongs" / "covers32k"
    pairs = []
    for work in range(3):
        for version in range(2):
            name = f"Song_{work}/artist_{version}+Album+0{work}-Song_{work}"
            pairs.append((version, name))
            if (work, version) == (2, 1):
                songs.silence(folder / f"{name}.wav")
            elif (work, version) != (2, 0):
                songs.song(folder / f"{name}.mp3", seed=work, seconds=32.0 + version)
    for version in range(2):
        lines = [name for which, name in pairs if which == version]
        (folder / f"list{version + 1}.list").write_text("\n".join(lines) + "\n")
    done = catalogs("covers80", tmp_path / "coversongs", "--part", "--all")
    assert "6 recordings of 3 works; 5 on disk" in done.stderr
    everything = tmp_path / "works.csv"
    everything.write_text(done.stdout)
    files = tmp_path / "files.csv"
    files.write_text(catalogs("covers80", tmp_path / "coversongs", "--part").stdout)
    assert [row["work"] for row in csv.DictReader(files.read_text().splitlines())] == [
        "Song_0", "Song_1", "Song_0", "Song_1", "Song_2",
    ]  # fmt: skip
    library = tmp_path / "library"
    flags = ("--list", files, "--model", songs.TINY, "--jobs", "1", "--json")
    built = json.loads(livi("build", *flags, library=library).stdout)
    assert (built["indexed"], built["instrumental"], built["unseen"]) == (4, 1, [])
    query = folder / "Song_1" / "artist_0+Album+01-Song_1.mp3"
    hit = json.loads(livi("query", query, "--json", library=library).stdout)["hits"][0]
    assert (hit["title"], hit["artist"]) == ("Song 1", "artist 1")
    found = json.loads(livi("eval", library, "--works", everything, "--json").stdout)
    assert found["missing"] == {
        "unknown": 1, "unreadable": 0, "no_singing": 1, "two_works": 0,
    }  # fmt: skip
    assert (found["listed"], found["scores"]["coverage"]) == (6, pytest.approx(4 / 6))
    assert found["scores"]["answerable"]["hr1"] == 1
    assert found["scores"]["n_answerable"] == 4
