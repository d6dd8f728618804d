import contextlib
import os
import stat
import struct
import sys
import time
from pathlib import Path

import audio_files
import numpy as np
import pytest
import soundfile

from livi_index import scan
from livi_index.audio import decode
from livi_index.errors import BadInput, UnreadableAudio
from livi_index.scan import AudioFile, Skipped, Tags, content_hash, read_tags, walk


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(roots, **options):
    """Names of the files that were found, below the common folder."""
    return [item.path.name for item in walk(roots, **options) if isinstance(item, AudioFile)]


def skipped(roots, **options):
    return {s.path.name: s.reason for s in walk(roots, **options) if isinstance(s, Skipped)}


def test_walk_gives_stat_facts_in_a_stable_order(tmp_path):
    make(tmp_path, "b.mp3", "a/2.ogg", "a/1.flac", "a/z/3.wav", "B.MP3", "c/4", "ä.m4a")
    files = list(walk([tmp_path]))
    names = [str(file.path.relative_to(tmp_path)) for file in files]
    assert names == ["B.MP3", "b.mp3", "ä.m4a", "a/1.flac", "a/2.ogg", "a/z/3.wav", "c/4"]
    status = (tmp_path / "B.MP3").stat()
    assert files[0] == AudioFile(
        tmp_path / "B.MP3", tmp_path, 1, status.st_mtime_ns, status.st_ino, status.st_dev
    )
    assert files == list(walk([str(tmp_path)]))


def test_overlapping_roots_give_each_file_once(tmp_path):
    make(tmp_path, "a/1.mp3", "a/b/2.mp3", "3.mp3")
    single = tmp_path / "a" / "1.mp3"
    roots = [tmp_path / "a" / "b", tmp_path, single, tmp_path / "a", tmp_path, single]
    assert sorted(found(roots)) == ["1.mp3", "2.mp3", "3.mp3"]
    by_name = {file.path.name: file.root for file in walk(roots)}
    assert by_name["2.mp3"] == tmp_path / "a" / "b"


def test_relative_roots_become_absolute(tmp_path, monkeypatch):
    make(tmp_path, "a/1.mp3")
    monkeypatch.chdir(tmp_path)
    assert [file.path for file in walk(["a/../a"])] == [tmp_path / "a" / "1.mp3"]


def test_what_is_left_out_is_said(tmp_path):
    make(tmp_path, ".hidden/1.mp3", ".x.mp3", "cover.JPG", "list.m3u8", "a.mp3", "noext")
    os.mkfifo(tmp_path / "pipe.mp3")
    assert found([tmp_path]) == ["a.mp3", "noext"]
    assert skipped([tmp_path, tmp_path / "gone"]) == {
        ".hidden": "hidden",
        ".x.mp3": "hidden",
        "cover.JPG": "not_audio",
        "list.m3u8": "not_audio",
        "pipe.mp3": "not_regular",
        "gone": "missing",
    }


def test_a_hidden_folder_that_is_named_is_walked(tmp_path):
    make(tmp_path, ".hidden/1.mp3")
    assert found([tmp_path / ".hidden"]) == ["1.mp3"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folders_are_said(tmp_path):
    make(tmp_path, "closed/1.mp3", "open/2.mp3")
    (tmp_path / "closed").chmod(0)
    try:
        assert skipped([tmp_path]) == {"closed": "unreadable"}
        assert found([tmp_path]) == ["2.mp3"]
    finally:
        (tmp_path / "closed").chmod(stat.S_IRWXU)


def test_links(tmp_path):
    make(tmp_path, "music/a/1.mp3", "elsewhere/2.mp3")
    music = tmp_path / "music"
    (music / "a" / "loop").symlink_to(music, target_is_directory=True)
    (music / "out").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (music / "file.mp3").symlink_to(tmp_path / "elsewhere" / "2.mp3")
    (music / "broken.mp3").symlink_to(tmp_path / "nothing")
    (music / "self").symlink_to(music / "self")
    assert found([music]) == ["1.mp3"]
    assert skipped([music]) == dict.fromkeys(
        ("loop", "out", "file.mp3", "broken.mp3", "self"), "symlink"
    )
    assert found([music], follow_symlinks=True) == ["file.mp3", "1.mp3", "2.mp3"]
    assert skipped([music], follow_symlinks=True) == {
        "broken.mp3": "missing",
        "self": "unreadable",
    }


def test_a_root_may_be_a_link(tmp_path):
    make(tmp_path, "music/1.mp3")
    (tmp_path / "link").symlink_to(tmp_path / "music", target_is_directory=True)
    assert found([tmp_path / "link", tmp_path / "music"]) == ["1.mp3"]


@pytest.mark.parametrize(
    ("glob", "left"),
    [
        ("*.wav", ["1.mp3", "2.mp3", "3.mp3", "[x].mp3"]),
        ("live", ["1.mp3", "[x].mp3", "4.wav"]),
        ("live/", ["1.mp3", "[x].mp3", "4.wav"]),
        ("/live", ["1.mp3", "[x].mp3", "4.wav", "3.mp3"]),
        ("a/live", ["1.mp3", "2.mp3", "[x].mp3", "4.wav"]),
        ("a/**", ["1.mp3", "2.mp3", "[x].mp3"]),
        ("**/live/3*", ["1.mp3", "2.mp3", "[x].mp3", "4.wav"]),
        ("[12].mp3", ["3.mp3", "[x].mp3", "4.wav"]),
        ("[!12].mp3", ["1.mp3", "2.mp3", "[x].mp3", "4.wav"]),
        ("?.mp3", ["[x].mp3", "4.wav"]),
        ("[[]x].mp3", ["1.mp3", "2.mp3", "3.mp3", "4.wav"]),
        ("1.mp3/", ["1.mp3", "2.mp3", "3.mp3", "[x].mp3", "4.wav"]),
        ("# 1.mp3", ["1.mp3", "2.mp3", "3.mp3", "[x].mp3", "4.wav"]),
    ],
)
def test_globs(tmp_path, glob, left):
    make(tmp_path, "1.mp3", "[x].mp3", "a/4.wav", "a/live/3.mp3", "live/2.mp3")
    assert sorted(found([tmp_path], exclude=[glob])) == sorted(left)


def test_a_later_glob_takes_back(tmp_path):
    make(tmp_path, "1.wav", "2.wav", "3.mp3")
    assert found([tmp_path], exclude=["*.wav", "!2.*"]) == ["2.wav", "3.mp3"]


def test_a_glob_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInput, match=r"\[z-a\]"):
        found([tmp_path], exclude=["[z-a]"])


def test_ignore_files_count_from_their_folder(tmp_path):
    make(tmp_path, "1.mp3", "a/1.mp3", "a/2.mp3", "a/b/1.mp3", "a/b/2.mp3", "c/2.mp3")
    (tmp_path / "a" / ".liviignore").write_text("# not these\n\n/1.mp3\n2.mp3\n")
    (tmp_path / "a" / "b" / ".liviignore").write_text("!2.mp3\n")
    files = [item for item in walk([tmp_path]) if isinstance(item, AudioFile)]
    names = [str(file.path.relative_to(tmp_path)) for file in files]
    assert names == ["1.mp3", "a/b/1.mp3", "a/b/2.mp3", "c/2.mp3"]
    assert skipped([tmp_path]) == {"1.mp3": "excluded", "2.mp3": "excluded"}


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take only UTF-8 names")
def test_odd_names_survive(audio_file, tmp_path):
    data = audio_file("mp3").read_bytes()
    names = [b"caf\xe9.mp3", b"-rf\n.mp3", b"e\xcc\x81.mp3", b"\xc3\xa9.mp3", b"n" * 250 + b".mp3"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(data)
    files = list(walk([tmp_path], exclude=["*.wav"]))
    assert [os.fsencode(file.path.name) for file in files] == sorted(names)
    assert {content_hash(file.path) for file in files} == {content_hash(audio_file("mp3"))}
    assert all(scan.looks_like_audio(file.path) for file in files)


def test_deep_folders(tmp_path):
    deep = os.fspath(tmp_path)
    for _ in range(1010):
        deep += "/d"
        os.mkdir(deep)
    Path(deep, "1.mp3").touch()
    assert found([tmp_path]) == ["1.mp3"]
    # Python's own clean-up calls itself once a folder and would fail.
    Path(deep, "1.mp3").unlink()
    while len(deep) > len(os.fspath(tmp_path)):
        os.rmdir(deep)
        deep = deep[:-2]


def test_walking_is_cheap(tmp_path):
    for folder in range(20):
        make(tmp_path, *(f"{folder}/{number}.mp3" for number in range(250)))
    started = time.process_time()
    assert sum(1 for _ in walk([tmp_path], exclude=["*.wav"])) == 5000
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("kind", audio_files.KINDS)
def test_content_says_what_is_audio(audio_file, tmp_path, kind):
    path = tmp_path / "no-suffix"
    path.write_bytes(audio_file(kind).read_bytes())
    assert scan.looks_like_audio(path)


def test_what_does_not_look_like_audio(tmp_path):
    path = tmp_path / "x.mp3"
    for content in (b"", b"RIFF....AVI ", b"words " * 99, b"ffconcat version 1.0", b"\xff" * 9999):
        path.write_bytes(content)
        assert not scan.looks_like_audio(path)
    with pytest.raises(UnreadableAudio):
        scan.looks_like_audio(tmp_path / "gone.mp3")


def id3v2(title, picture=b""):
    def frame(name, body):
        return name + struct.pack(">I", len(body)) + b"\0\0" + body

    frames = frame(b"TIT2", b"\0" + title.encode("latin-1"))
    if picture:
        frames += frame(b"APIC", b"\0image/png\0\3\0" + picture)
    size = bytes(len(frames) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + frames


def id3v1(title):
    return b"TAG" + title.encode().ljust(30, b"\0") + bytes(94) + b"\xff"


def apev2(title):
    item = struct.pack("<II", len(title), 0) + b"Title\0" + title.encode()
    footer = b"APETAGEX" + struct.pack("<IIII", 2000, len(item) + 32, 1, 0) + bytes(8)
    return item + footer


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (id3v2("A"), b""),
        (id3v2("Longer title", b"\x89PNG" + b"\xff\xfb\x90\0" * 40_000), b""),
        (b"", id3v1("A")),
        (b"", apev2("A song")),
        (id3v2("B"), apev2("A song") + id3v1("B")),
    ],
)
def test_tags_do_not_change_the_hash_of_an_mp3(audio_file, tmp_path, before, after):
    path = tmp_path / "x.mp3"
    path.write_bytes(before + audio_file("mp3").read_bytes() + after)
    assert content_hash(path) == content_hash(audio_file("mp3"))


@pytest.mark.parametrize(
    ("kind", "container"),
    [
        ("flac", "flac"),
        ("ogg", "ogg"),
        ("opus", "ogg"),
        ("m4a", "mp4"),
        ("wma", "asf"),
        ("mp3", "mp3"),
    ],
)
def test_tags_do_not_change_the_hash(audio_file, tmp_path, kind, container):
    path = audio_files.retag(
        audio_file(kind), tmp_path / f"x.{kind}", container, title=" A song ", artist="Somebody"
    )
    assert path.read_bytes() != audio_file(kind).read_bytes()
    assert content_hash(path) == content_hash(audio_file(kind))
    assert read_tags(path) == Tags(title="A song", artist="Somebody")


def test_a_list_chunk_does_not_change_the_hash_of_a_wav(audio_file, tmp_path):
    data = audio_file("wav").read_bytes()
    text = b"LIST" + struct.pack("<I", 20) + b"INFOINAM" + struct.pack("<I", 8) + b"A song\0\0"
    path = tmp_path / "x.wav"
    path.write_bytes(data[:4] + struct.pack("<I", len(data) + len(text) - 8) + data[8:] + text)
    assert content_hash(path) == content_hash(audio_file("wav"))
    assert read_tags(path).title == "A song"


def test_a_flac_picture_does_not_change_the_hash(audio_file, tmp_path):
    data = audio_file("flac").read_bytes()
    streaminfo = data[:42]
    assert streaminfo[:5] == b"fLaC\0" and not streaminfo[4] & 128
    picture = b"\6" + (5000).to_bytes(3, "big") + b"\xff\xf8" * 2500
    path = tmp_path / "x.flac"
    path.write_bytes(streaminfo + picture + data[42:])
    assert content_hash(path) == content_hash(audio_file("flac"))


def test_another_sound_is_another_hash(audio_file, tmp_path):
    hashes = {content_hash(audio_file(kind)) for kind in audio_files.KINDS}
    assert len(hashes) == len(audio_files.KINDS)
    for rate, channels in ((44_100, 2), (48_000, 2), (44_100, 1)):
        path = tmp_path / f"{rate}-{channels}.wav"
        soundfile.write(path, np.zeros((88_200 // channels, channels), np.int16), rate)
        hashes.add(content_hash(path))
    assert len(hashes) == len(audio_files.KINDS) + 3
    assert {len(digest) for digest in hashes} == {32}


def test_what_ffmpeg_cannot_take_apart_is_hashed_whole(tmp_path):
    one, two = tmp_path / "one.mp3", tmp_path / "two.mp3"
    one.write_bytes(b"no audio")
    two.write_bytes(b"no audio")
    assert content_hash(one) == content_hash(two)
    two.write_bytes(b"No audio")
    assert content_hash(one) != content_hash(two)
    with pytest.raises(UnreadableAudio):
        content_hash(tmp_path)


def test_identify(audio_file, tmp_path):
    identity = scan.identify(audio_file("mp3"))
    assert identity.content_hash == content_hash(audio_file("mp3"))
    (tmp_path / "x.mp3").write_bytes(b"words")
    with pytest.raises(UnreadableAudio) as caught:
        scan.identify(tmp_path / "x.mp3")
    assert caught.value.code == "not_audio"


def test_recording_ids():
    assert scan.recording_id(bytes(32)) == 1
    assert scan.recording_id(b"\xff" * 32) == 2**63 - 1
    number = scan.recording_id(bytes(range(32)))
    assert scan.format_id(number) == "0001020304050607"
    assert scan.parse_id(scan.format_id(number)) == number
    for text in ("", "xyz", "0" * 16, "f" * 16, "1" * 17, " 001020304050607"):
        with pytest.raises(ValueError, match="not a recording id"):
            scan.parse_id(text)


def test_tags_of_every_field(audio_file, tmp_path):
    path = audio_files.retag(
        audio_file("ogg"), tmp_path / "x.ogg", "ogg",
        title="One \n two", artist="Å", album="  ", ISRC="GBAYE0601498", date="1999-12-31",
    )  # fmt: skip
    tags = read_tags(path)
    assert tags.title == "One two"
    assert tags.artist == "Å"
    assert tags.album is None
    assert tags.isrc == "GBAYE0601498"
    assert tags.year == 1999


def test_tags_of_damaged_files_are_empty_or_text(audio_file, tmp_path):
    for path in (tmp_path / "gone.mp3", tmp_path):
        with pytest.raises(UnreadableAudio):
            read_tags(path)
    rng = np.random.default_rng(5)
    path = tmp_path / "x"
    for kind in audio_files.KINDS:
        good = np.frombuffer(audio_file(kind).read_bytes(), np.uint8)
        for _ in range(20):
            data = good.copy()
            data[rng.integers(0, 300, 8)] = rng.integers(0, 256, 8)
            path.write_bytes(data.tobytes())
            assert isinstance(read_tags(path), Tags)
            assert len(content_hash(path)) == 32


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_what_the_system_refuses_to_read_is_no_damage():
    refused = "/proc/self/mem"  # a regular file whose first page cannot be read
    for read in (scan.looks_like_audio, content_hash, read_tags, decode):
        with pytest.raises(UnreadableAudio, match="Input/output error") as caught:
            read(refused)
        assert caught.value.code == "io_error"
    # Also where somebody takes it for the end of the file.
    with (
        pytest.raises(UnreadableAudio),
        scan.open_regular(refused) as file,
        contextlib.suppress(OSError),
    ):
        file.read(10)
