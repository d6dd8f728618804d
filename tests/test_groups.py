"""Version groups and news: sounds that are nearly the same, and rules for what belongs together."""

import csv
import json
import re
import shutil

import audio_files
import pytest
import songs
from test_build import run
from test_cli import HOSTILE, livi

from livi_index.errors import BadInput
from livi_index.groups import Link, PairOptions, find_groups, find_news, join, mutual
from livi_index.library import open_library


def links(*pairs):
    found = {}
    for a, b, score in pairs:
        found.setdefault(a, {})[b] = Link(score, None)
        found.setdefault(b, {})[a] = Link(score, None)
    return found


def test_only_what_is_near_both_ways_is_a_pair():
    low, high = Link(0.7, 0.2), Link(0.9, 0.8)
    near = {1: {2: high, 3: high}, 2: {1: low}, 3: {}}
    assert mutual(near) == {1: {2: low}, 2: {1: low}, 3: {}}


def test_components():
    assert join({}) == []
    assert join({1: {}, 2: {}}) == []
    assert join(links((1, 2, 0.9), (3, 4, 0.95), (2, 5, 0.8), (1, 5, 0.7))) == [
        ([1, 2, 5], Link(0.8, None)), ([3, 4], Link(0.95, None)),
    ]  # fmt: skip


def test_a_medley_ties_nothing_together():
    one = [(1, 2, 0.95), (1, 3, 0.95), (2, 3, 0.95)]
    two = [(5, 6, 0.94), (5, 7, 0.94), (6, 7, 0.94)]
    medley = [(4, n, 0.9 - n / 100) for n in (1, 2, 3, 5, 6, 7)]
    assert [members for members, _ in join(links(*one, *two, *medley))] == [[1, 2, 3, 4], [5, 6, 7]]
    # A chain is cut where half of the pairs across are missing.
    chain = [(n, n + 1, 0.9) for n in range(1, 6)]
    assert [members for members, _ in join(links(*chain))] == [[1, 2, 3], [4, 5, 6]]


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Two songs of three and two versions (formats), and one of its own: do not change it."""
    folder = tmp_path_factory.mktemp("versions")
    for kind in ("wav", "ogg", "flac"):
        songs.song(folder / "music" / f"one.{kind}", 1, 40.0)
    for kind in ("wav", "mp3"):
        songs.song(folder / "music" / f"two.{kind}", 2, 40.0)
    songs.song(folder / "music" / "lonely.wav", 3, 40.0)
    plain = songs.song(folder / "plain.ogg", 2, 40.0)
    audio_files.retag(plain, folder / "music" / "two.ogg", "ogg", title=HOSTILE, artist="=1")
    songs.silence(folder / "music" / "quiet.wav")
    run(folder / "music", folder / "library")
    return folder


@pytest.fixture(scope="module")
def threshold(versions):
    """A score between those of versions and all others."""
    same, other = [], []
    with open_library(versions / "library", threads=1) as library:
        ids = library.generation.recording_ids("lyrics").tolist()
        stems = {n: info.path.stem for n, info in library.generation.metadata(ids).items()}
        for number in ids:
            found = library.score(library.stored(number))
            for hit, score in zip(found.recording_ids.tolist(), found.scores, strict=True):
                if hit != number:
                    (same if stems[hit] == stems[number] else other).append(score)
    assert min(same) > max(other)
    return float(min(same) + max(other)) / 2


def names(members):
    return sorted(member.path.rsplit("/", 1)[1] for member in members)


def test_groups_of_a_library(versions, threshold):
    told = []
    with open_library(versions / "library", threads=1) as library:
        found = find_groups(
            library, PairOptions(min_score=threshold), lambda *now: told.append(now)
        )
        assert find_groups(library, PairOptions(min_score=1.01)) == []
        with pytest.raises(BadInput, match="between 0 and 1"):
            find_groups(library, PairOptions(min_probability=1.0))
    assert sorted(names(group.members) for group in found) == [
        ["one.flac", "one.ogg", "one.wav"], ["two.mp3", "two.ogg", "two.wav"],
    ]  # fmt: skip
    assert [group.number for group in found] == [1, 2]
    assert all(threshold < group.score <= 1.001 for group in found)
    assert told == [(n, 7) for n in range(7)]


def test_news(versions, threshold, tmp_path):
    library = shutil.copytree(versions / "library", tmp_path / "library")

    def news(remember=True):
        with open_library(library, threads=1) as opened:
            found = find_news(opened, PairOptions(min_score=threshold))
        if remember:
            found.remember(library)
        return found.new_recordings, sorted(names((p.first, p.second)) for p in found.pairs)

    first = news(remember=False)
    assert first[0] == 7
    assert len(first[1]) == 6 and ["one.flac", "one.ogg"] in first[1]
    assert news() == first
    assert news() == (0, [])
    songs.song(tmp_path / "more" / "three.wav", 3, 41.0)
    songs.song(tmp_path / "more" / "three.flac", 3, 41.0)
    run(tmp_path / "more", library)
    assert news() == (2, [
        ["lonely.wav", "three.flac"], ["lonely.wav", "three.wav"], ["three.flac", "three.wav"],
    ])  # fmt: skip
    assert news() == (0, [])


def test_on_the_command_line(versions, threshold, tmp_path):
    library = shutil.copytree(versions / "library", tmp_path / "library")
    arguments = ("--min-score", str(threshold), "--quiet")
    told = livi("groups", *arguments, library=library).stdout
    assert "2 groups, 6 recordings" in told
    assert re.search(r"^1\.  3 recordings, prob\. \d\.\d\d$", told, re.MULTILINE)
    done = livi("groups", *arguments, "--json", library=library).stdout
    group = json.loads(done.splitlines()[0])
    assert set(group) == {"number", "score", "probability", "members"}
    assert set(group["members"][0]) == {"recording_id", "path", "title", "artist"}
    done = livi("groups", *arguments, "--csv", library=library).stdout
    rows = list(csv.DictReader(done.splitlines()))
    assert len(rows) == 6
    (odd,) = (row for row in rows if row["artist"])
    assert odd["artist"] == "'=1" and "\\x1b[31m" in odd["title"]
    assert not set("\x1b\u202e") & set(told + done)
    assert "6 new pairs, of 7 new recordings" in livi("news", *arguments, library=library).stdout
    assert livi("news", *arguments, "--json", library=library).stdout == ""
