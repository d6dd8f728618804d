"""A library whose model reads: songs of tones on a real disk, found by what is read in them."""

import json
import math
import re
import shutil

import numpy as np
import pytest
import songs
from test_build import run
from test_check import parts, write
from test_cli import livi

from livi_index.alignment import Aligner, read_scoring
from livi_index.audio import decode
from livi_index.check import check
from livi_index.encoders import pool
from livi_index.errors import BadModel, NoSinging
from livi_index.generations import current
from livi_index.groups import find_groups, find_news
from livi_index.library import open_library
from livi_index.publishing import PublishedModel, Space, publish
from livi_index.ranking import RELAYED, Heard, RankOptions
from livi_index.records import Analysis, Batch, FileRow, Recording
from livi_index.store import Store
from livi_index.transcripts import PHONE_DTYPE

N_TONES = 225  # of a song, in 90 s
VERSIONS = {"turned": "song-0", "part": "song-1", "slow": "song-2"}
UNREAD = ("hum", "held", "still")


def phones_of(name):
    """What is sung in a song or version, and for how long a tone is held."""
    if name in VERSIONS:
        whole = songs.melody(int(VERSIONS[name][-1]), N_TONES)
    if name == "turned":  # its last 30 s first
        return np.roll(whole, 75), 0.4
    if name == "part":  # 20 s of another song, then 30 s to 70 s of this one
        return np.concatenate([songs.melody(50, 50), whole[75:175]]), 0.4
    if name == "slow":
        return whole, 0.44
    return songs.melody(int(name[-1]), N_TONES), 0.4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Five songs, three versions, and three files without words; with a library: do not change."""
    folder = tmp_path_factory.mktemp("read")
    names = [f"song-{n}" for n in range(5)] + [*VERSIONS]
    for name in names:
        songs.sung(folder / "music" / f"{name}.wav", *phones_of(name))
    songs.hum(folder / "music" / "hum.wav")
    songs.sung(folder / "music" / "held.wav", np.full(100, 7))
    songs.silence(folder / "music" / "still.wav")
    report = run(folder / "music", folder / "library", model=str(songs.READER))
    assert (report.indexed, report.instrumental, report.seen) == (8, 3, 11)
    return folder


@pytest.fixture(scope="module")
def library(place):
    with open_library(place / "library", threads=1) as opened:
        yield opened


def stem(hit):
    return re.sub(r".*/|\.\w+$", "", hit.path)


def path_of(place, name):
    return place / "music" / f"{name}.wav"


def read_in(library):
    """Everything that was read, by file name."""
    with current(library) as generation:
        ids = generation.recording_ids("lyrics")
        transcripts = generation.transcripts_of(ids, "lyrics")
        known = generation.metadata(ids.tolist())
        return {
            known[n].path.stem: t.copy() for n, t in zip(ids.tolist(), transcripts, strict=True)
        }


def test_what_is_published_is_what_is_sung(place):
    found = read_in(place / "library")
    assert set(found) == {*VERSIONS, *(f"song-{n}" for n in range(5))}
    for name, transcript in found.items():
        phones, tone_s = phones_of(name)
        new = np.flatnonzero(np.diff(phones, prepend=0))  # a tone twice in a row is held
        assert transcript["phone"].tolist() == phones[new].tolist(), name
        late_s = transcript["time_s"] - tone_s * new
        assert late_s.min() > -0.001 and late_s.max() < 0.1


@pytest.mark.parametrize("name", VERSIONS)
def test_a_version_is_found_both_ways(place, library, name):
    for asked, wanted in ((name, VERSIONS[name]), (VERSIONS[name], name)):
        hits = library.query(path_of(place, asked), k=10).hits
        assert stem(hits[0]) == wanted and stem(hits[0]) != asked
        assert len(hits) == 7 and hits[0].score > 100 > 25 > hits[1].score
        assert hits[0].probability > 0.99 and hits[1].probability < 0.8


def test_heard_anew_the_answer_is_that_of_what_is_stored(place, library):
    stored = library.query(path_of(place, "part"), include_self=True)
    heard = library.query(decode(path_of(place, "part")).samples)
    assert stem(heard.hits[0]) == "part" and stem(heard.hits[1]) == "song-1"
    assert heard.query.segments == stored.query.segments
    assert [hit.score for hit in heard.hits] == [hit.score for hit in stored.hits]
    assert [hit.matches for hit in heard.hits] == [hit.matches for hit in stored.hits]


def test_a_match_says_where_in_both(place, library):
    def pairs(asked):
        hit = library.query(path_of(place, asked), k=1).hits[0]
        assert [m.score for m in hit.matches] == sorted(m.score for m in hit.matches)[::-1]
        return [(m.query_start_s, m.hit_start_s) for m in hit.matches]

    turned = pairs("turned")
    assert {hit_s - query_s for query_s, hit_s in turned} == {60, -30}
    assert pairs("part") and {hit_s - query_s for query_s, hit_s in pairs("part")} == {10}
    assert {hit_s - query_s for query_s, hit_s in pairs("song-1")} == {-10}
    slow = pairs("slow")
    assert len(slow) >= 2 and all(abs(hit_s - query_s / 1.1) <= 10 for query_s, hit_s in slow)


def test_where_nothing_can_be_read_nothing_is_sung(place, library):
    for name in UNREAD:
        assert name not in {stem(hit) for hit in library.query(path_of(place, "part")).hits}
    for name in ("hum", "held"):
        with pytest.raises(NoSinging, match=rf"{name}\.wav: no words can be heard in it"):
            library.query(path_of(place, name))
    with pytest.raises(NoSinging, match="too little singing"):
        library.query(path_of(place, "still"))
    (counts,) = library.generation.ask("SELECT count(*) FROM analyses WHERE NOT sung")
    assert counts == (3,)


def test_query_on_the_command_line(place):
    library = place / "library"
    done = livi("query", path_of(place, "hum"), library=library, ok=False)
    assert (done.returncode, done.stdout) == (1, "")
    (sentence,) = done.stderr.splitlines()
    assert "hum.wav: no words can be heard in it" in sentence and "ask with" in sentence
    done = livi("query", path_of(place, "slow"), "-k", "5", "--json", library=library)
    answer = json.loads(done.stdout)
    assert set(answer) == {"schema", "query", "model", "library", "hits"}
    assert (answer["schema"], answer["model"], len(answer["hits"])) == (1, "tiny-reader", 5)
    for hit in answer["hits"]:
        assert set(hit) == {
            "rank", "score", "probability", "recording_id", "path", "title", "artist",
            "duration_s", "matches", "spaces",
        }  # fmt: skip
        for match in hit["matches"]:
            assert set(match) == {"query_start_s", "hit_start_s", "score", "space"}
    assert answer["hits"][0]["matches"]
    told = livi("query", path_of(place, "slow"), library=library).stdout
    assert re.search(r"1 +1\.00 +\d{3}\.\d{2} .*\n.*song-2\.wav\n +matches \d:\d\d ↔ ", told)


def test_groups_and_news(place, library, tmp_path):
    pairs = sorted(sorted(pair) for pair in VERSIONS.items())
    found = find_groups(library)
    assert sorted([stem(m) for m in group.members] for group in found) == pairs
    news = find_news(library)
    assert sorted(sorted([stem(p.first), stem(p.second)]) for p in news.pairs) == pairs
    copy = shutil.copytree(place / "library", tmp_path / "library")
    told = livi("groups", "--json", "--quiet", library=copy).stdout
    groups = [json.loads(line) for line in told.splitlines()]
    assert [len(group["members"]) for group in groups] == [2, 2, 2]
    assert all(group["score"] > 100 and group["probability"] > 0.99 for group in groups)
    assert "3 new pairs, of 8 new recordings" in livi("news", "--quiet", library=copy).stdout
    songs.sung(tmp_path / "more" / "again.wav", songs.melody(3, N_TONES), 0.37)
    before = read_in(copy)
    run(tmp_path / "more", copy, model=None)  # by the model that is kept with the library
    (line,) = livi("news", "--json", "--quiet", library=copy).stdout.splitlines()
    assert stem_of(json.loads(line)) == ("again", "song-3")
    after = read_in(copy)
    assert after.keys() - before.keys() == {"again"}
    assert all(np.array_equal(after[name], before[name]) for name in before)


def stem_of(pair):
    names = (re.sub(r".*/|\.\w+$", "", pair[part]["path"]) for part in ("first", "second"))
    return tuple(names)


def test_stages_in_a_row_read_the_same(place, tmp_path):
    run(place / "music", tmp_path / "library", model=str(songs.READER), in_a_row=True)
    found, expected = read_in(tmp_path / "library"), read_in(place / "library")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in found)


def test_segments_count_by_what_was_read_in_them(library):
    ids = library.generation.recording_ids("lyrics")
    assert len(ids) == 8
    for number in ids.tolist():
        stored = library.stored(number)["lyrics"]
        for start_s, end_s, weight in zip(
            stored.start_s, stored.end_s, stored.weights, strict=True
        ):
            times_s = stored.transcript["time_s"]
            assert weight == ((times_s >= start_s) & (times_s < end_s)).sum() > 0


# what damage does


@pytest.fixture
def own(place, tmp_path):
    return shutil.copytree(place / "library", tmp_path / "own")


def same_transcripts(one, other):
    found, expected = read_in(one), read_in(other)
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_restored_database_has_what_was_read(place, own):
    (own / "library.duckdb").unlink()
    report = check(own, repair=True)
    assert report.problems == () and "restored from generation 1" in report.repaired[0]
    same_transcripts(own, place / "library")
    assert check(own, read_percent=100).problems == ()
    with open_library(own, threads=1) as opened:
        hits = opened.query(path_of(place, "slow")).hits
    with open_library(place / "library", threads=1) as opened:
        assert [hit.score for hit in opened.query(path_of(place, "slow")).hits] == [
            hit.score for hit in hits
        ]


def test_damaged_transcripts_are_made_again(place, own):
    path = own / "published" / "000001" / "transcripts.lyrics.npy"
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 64
    path.write_bytes(damaged)
    done = livi("query", path_of(place, "slow"), library=own, ok=False)
    assert "transcripts.lyrics.npy is not what was published" in done.stderr
    assert parts(check(own)) == {"published"}
    report = check(own, repair=True)
    assert (report.problems, report.generation) == ((), 2)
    same_transcripts(own, place / "library")


def test_transcripts_that_are_others_than_published_are_found(own):
    sung = "SELECT transcript FROM analyses WHERE sung ORDER BY octet_length(transcript) LIMIT 1"
    write(own, f"UPDATE analyses SET transcript = ({sung}) WHERE sung")
    assert check(own).problems == ()
    (problem,) = check(own, read_percent=100).problems
    assert problem.part == "published"
    assert problem.what == "7 transcripts are others than the database holds"
    write(own, "UPDATE analyses SET transcript = 'abc'::BLOB WHERE sung")
    assert [p.what for p in check(own).problems] == ["8 transcripts are cut off"]


def test_a_damaged_alignment_is_told(place, own):
    (model,) = (own / "models").iterdir()
    with (model / "alignment.json").open("ab") as file:
        file.write(b" ")
    with open_library(own, threads=1) as opened, pytest.raises(BadModel, match=r"alignment\.json"):
        opened.query(path_of(place, "slow"))
    done = livi("query", path_of(place, "slow"), library=own, ok=False)
    assert len(done.stderr.splitlines()) == 1 and "alignment.json" in done.stderr
    assert parts(check(own)) == {"models"}


# scores, with made vectors and transcripts

BUNDLE = songs.reader_bundle()
DIM = BUNDLE.card.space("lyrics").dim


def made_song(seed, phones):
    """A song of some phones, whose vectors say nothing."""
    n = max(1, len(phones) // 60)
    vectors = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    transcript = np.zeros(len(phones), PHONE_DTYPE)
    transcript["time_s"], transcript["phone"] = 0.5 * np.arange(len(phones)), phones
    start_s = np.arange(n, dtype=np.float32) * 30
    return Heard(vectors, start_s, start_s + 30, np.ones(n, np.float32), transcript)


def made(folder, recordings, reads=True):
    """A library of songs by number; ``reads`` False: nobody kept what was read."""
    model_id = BUNDLE.card.model_id
    rows = []
    for number, of in recordings.items():
        rows.append(
            Analysis(
                number, model_id, "lyrics", 0.9, True, False, "made",
                pool(of.vectors, of.weights), of.start_s, of.end_s, of.weights, of.weights,
                of.vectors, of.transcript if reads else None,
            )
        )  # fmt: skip
    paths = {n: folder / f"{n}.mp3" for n in recordings}
    batch = Batch(
        files=[FileRow(path, folder, 1, 1, n, 1, n) for n, path in paths.items()],
        recordings=[Recording(n, n.to_bytes(32, "big"), 300.0) for n in recordings],
        analyses=rows,
    )
    with Store(folder) as store:
        store.commit(batch)
        model = PublishedModel(model_id, "tiny-reader", "1", (Space("lyrics", DIM),))
        publish(store, folder, model)
    return open_library(folder, model=BUNDLE, threads=1)


def alignments(asked, others):
    aligner = Aligner(read_scoring(BUNDLE, "alignment.json"))
    return aligner.scores([asked.transcript], [other.transcript for other in others])[0]


def scores_of(library, query, options, **more):
    found = library.score({"lyrics": query}, options, **more)
    return dict(zip(found.recording_ids.tolist(), found.scores.tolist(), strict=True))


def test_scores_are_those_of_the_alignments(tmp_path):
    recordings = {n: made_song(n, songs.melody(n, 20 * n)) for n in range(1, 12)}
    query = made_song(100, np.concatenate([songs.melody(90, 50), songs.melody(7, 140)[20:80]]))
    direct = RankOptions(relay_from=math.inf)
    with made(tmp_path, recordings) as library:
        found = library.score({"lyrics": query}, direct)
        assert found.recording_ids[0] == 7
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        expected = alignments(query, recordings.values())
        by_number = dict(zip(recordings, expected.tolist(), strict=True))
        assert scores_of(library, query, direct) == pytest.approx(by_number)
        assert 7 not in scores_of(library, query, direct, without=(7,))
        cosines = scores_of(library, query, RankOptions(align=False, track_weight=1, crowding=0))
        track = pool(query.vectors)
        assert cosines == pytest.approx(
            {n: float(pool(of.vectors) @ track) for n, of in recordings.items()}, abs=2e-3
        )


def test_a_version_is_found_through_another_one(tmp_path):
    plain, other = songs.melody(1, 200), songs.melody(2, 200)
    recordings = {n: made_song(n, songs.melody(n, 150)) for n in range(10, 20)}
    # The query has one half of 5, and 6 the other: nothing in common, but for 5.
    recordings |= {5: made_song(5, plain), 6: made_song(6, [*other[:50], *plain[100:]])}
    query = made_song(100, [*plain[:100], *other[100:]])
    with made(tmp_path, recordings) as library:
        direct = scores_of(library, query, RankOptions(relay_from=math.inf))
        relayed = scores_of(library, query, RankOptions())
        through = alignments(recordings[5], [recordings[6]])[0]
        assert direct[6] < 15
        assert relayed[6] == pytest.approx(min(direct[5], through) - RELAYED)
        assert relayed[5] == direct[5] == max(relayed.values())
        assert all(relayed[n] >= direct[n] for n in direct)
        hits = library.rank({"lyrics": query}, k=2)
        assert [int(hit.recording_id, 16) for hit in hits] == [5, 6]
        # A best hit that is doubtful says nothing of others.
        assert scores_of(library, query, RankOptions(relay_from=1e4)) == direct


def test_as_many_are_compared_as_there_is_time_for(tmp_path):
    recordings = {n: made_song(n, songs.melody(n, 60)) for n in range(1, 41)}
    query = made_song(100, songs.melody(100, 60))
    with made(tmp_path, recordings) as library:
        every = scores_of(library, query, RankOptions(candidates=5))
        assert len(every) == 40
        at_once = {"candidates": 2, "cohort": 0, "all_below": 0, "certain_from": -math.inf}
        few = scores_of(library, query, RankOptions(**at_once, cells=60 * 60 * 12))
        assert 12 <= len(few) <= 12 + 2
        assert 2 <= len(scores_of(library, query, RankOptions(**at_once, cells=1))) <= 4
        assert few.items() <= every.items()
        # Where nothing is certain among them, more are compared, and where something is, not.
        more = scores_of(library, query, RankOptions(2, 0, all_below=0, cells=1))
        assert 20 <= len(more) <= 22
        found = scores_of(library, recordings[8], RankOptions(2, 0, all_below=0, cells=1))
        assert len(found) <= 4 and max(found, key=found.get) == 8


def test_recordings_in_which_nothing_was_read_come_last(tmp_path):
    phones = songs.melody(1, 60)
    recordings = {n: made_song(n, some) for n, some in ((1, phones), (2, []), (3, phones[30:31]))}
    with made(tmp_path, recordings) as library:
        hits = library.rank({"lyrics": recordings[1]})
        assert [int(hit.recording_id, 16) for hit in hits] == [1, 3, 2]
        assert all(math.isfinite(hit.score) for hit in hits)
        nothing = library.rank({"lyrics": recordings[2]})
        assert len(nothing) == 3 and nothing[0].score < 5


def test_where_no_transcript_was_kept_all_have_nothing_in_common(tmp_path):
    recordings = {n: made_song(n, songs.melody(n, 60)) for n in range(1, 5)}
    with made(tmp_path, recordings, reads=False) as library:
        assert len(library.stored(1)["lyrics"].transcript) == 0
        assert max(scores_of(library, recordings[1], RankOptions()).values()) < 5
        best = library.score({"lyrics": recordings[1]}, RankOptions(align=False))
        assert best.recording_ids[0] == 1


def test_a_model_that_does_not_read_is_ranked_by_vectors(tmp_path):
    music = tmp_path / "music"
    for n in range(3):
        songs.song(music / f"{n}.wav", n, 40.0)
    run(music, tmp_path / "library")
    with open_library(tmp_path / "library", threads=1) as library:
        number = int(library.generation.recording_ids("lyrics")[0])
        stored = library.stored(number)["lyrics"]
        assert len(stored.transcript) == 0
        assert scores_of(library, stored, None) == scores_of(
            library, stored, RankOptions(align=False)
        )
