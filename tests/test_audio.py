import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import audio_files
import av
import numpy as np
import pytest
import soundfile

from livi_index import audio, containers
from livi_index.audio import SAMPLE_RATE, decode, load_audio
from livi_index.errors import UnreadableAudio


def code_of(path, **options):
    with pytest.raises(UnreadableAudio) as caught:
        decode(path, **options)
    assert str(path) in str(caught.value)
    return caught.value.code


def reference(seconds):
    """The test tones as mono at 16 kHz, made there and not resampled."""
    return audio_files.tones(seconds, SAMPLE_RATE).mean(axis=1)


def delay_and_error(samples, expected):
    """The lag in samples that fits best within 100 ms, and the relative error at that lag."""
    n = min(len(samples), len(expected)) - 3200
    middle = expected[1600 : 1600 + n]
    lags = range(-1600, 1601)
    spectrum = np.fft.rfft(samples[: n + 3200], 2 * (n + 3200))
    correlation = np.fft.irfft(spectrum * np.conj(np.fft.rfft(middle, 2 * (n + 3200))))
    lag = max(lags, key=lambda shift: correlation[1600 + shift])
    found = samples[1600 + lag : 1600 + lag + n]
    return lag, float(np.linalg.norm(found - middle) / np.linalg.norm(middle))


@pytest.mark.parametrize("kind", audio_files.KINDS)
def test_every_format_gives_the_same_song(audio_file, kind):
    decoded = decode(audio_file(kind))
    assert decoded.samples.dtype == np.float32
    assert decoded.samples.ndim == 1
    assert decoded.duration_s == len(decoded.samples) / SAMPLE_RATE
    assert decoded.duration_s == pytest.approx(6.0, abs=0.1)
    assert not decoded.truncated
    lag, error = delay_and_error(decoded.samples, reference(6.0))
    lossless = kind in ("wav", "flac", "aiff", "alac.m4a")
    # Encoder delay that a container does not state (bare AAC, WMA) stays.
    assert abs(lag) <= (1 if kind not in ("aac", "wma") else 2048)
    assert error < (0.02 if lossless else 0.25)


@pytest.mark.parametrize("kind", ["m4a", "wma", "aac", "mp3", "opus"])
def test_pyav_decodes_what_soundfile_cannot_or_not_well(audio_file, kind):
    assert decode(audio_file(kind)).decoder == f"av {av.__version__}"


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "aiff"])
def test_soundfile_comes_first(audio_file, kind):
    assert decode(audio_file(kind)).decoder == f"soundfile {soundfile.__version__}"


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "opus", "m4a", "aac", "wma"])
def test_a_long_file_is_as_long_as_it_is(audio_file, kind):
    assert decode(audio_file(kind, 40.0)).duration_s == pytest.approx(40.0, abs=0.2)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "opus", "aiff"])
def test_both_decoders_mix_down_alike(audio_file, kind):
    with containers.open_regular(audio_file(kind)) as file:
        takes = [
            audio._take(name, file, containers.sniff(file), None) for name in ("soundfile", "av")
        ]
    one, other = (take.samples for take in takes)
    n = min(len(one), len(other))
    assert abs(len(one) - len(other)) <= SAMPLE_RATE * 0.05
    difference = np.linalg.norm(one[:n] - other[:n]) / np.linalg.norm(one[:n])
    # Their mp3 decoders differ in the short blocks of sudden beginnings.
    assert difference < (0.03 if kind == "mp3" else 1e-3)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_sample_formats_have_one_scale(tmp_path, subtype):
    path = tmp_path / "x.wav"
    soundfile.write(path, audio_files.tones(1.0, SAMPLE_RATE), SAMPLE_RATE, subtype=subtype)
    with containers.open_regular(path) as file:
        takes = [audio._take(name, file, "wav", None) for name in ("soundfile", "av")]
    for take in takes:
        np.testing.assert_allclose(take.samples, reference(1.0), atol=0.02)
    np.testing.assert_allclose(takes[0].samples, takes[1].samples, atol=1e-6)


def test_eight_channels_at_192_khz(tmp_path):
    path = tmp_path / "x.wav"
    one = audio_files.tones(3.0, 192_000, 1)
    soundfile.write(path, np.tile(one, 8), 192_000, subtype="PCM_24")
    _, error = delay_and_error(load_audio(path), audio_files.tones(3.0, SAMPLE_RATE, 1)[:, 0])
    assert error < 0.01


def test_suffix_does_not_matter(audio_file, tmp_path):
    path = tmp_path / "cover.jpg"
    path.write_bytes(audio_file("m4a").read_bytes())
    assert decode(path).duration_s == pytest.approx(6.0, abs=0.1)


def test_cap(audio_file):
    for kind in ("mp3", "m4a"):
        decoded = decode(audio_file(kind), max_s=2.5)
        assert len(decoded.samples) == 40_000
        assert decoded.truncated
    whole = decode(audio_file("wav"))
    np.testing.assert_array_equal(
        decode(audio_file("wav"), max_s=2.5).samples, whole.samples[:40_000]
    )


def test_hours_of_silence_cost_only_the_cap(tmp_path):
    path = tmp_path / "silence.flac"
    with soundfile.SoundFile(path, "w", 44_100, 2) as file:
        hour_in_part = np.zeros((44_100 * 60, 2), np.int16)
        for _ in range(60):
            file.write(hour_in_part)
    assert path.stat().st_size < 1 << 20
    started = time.process_time()
    decoded = decode(path, max_s=30.0)
    assert time.process_time() - started < 1.0
    assert decoded.truncated
    assert decoded.duration_s == 30.0
    assert not decoded.samples.any()


@pytest.mark.parametrize("kind", ["flac", "mp3", "ogg", "opus", "wav", "aac", "wma"])
def test_a_file_cut_short_gives_what_is_there(audio_file, tmp_path, kind):
    data = audio_file(kind).read_bytes()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: len(data) * 3 // 4])
    decoded = decode(path)
    assert 3.5 < decoded.duration_s < 5.6
    if kind in ("flac", "mp3"):
        assert decoded.truncated
    _, error = delay_and_error(decoded.samples, reference(6.0))
    assert error < 0.25


def test_a_cut_m4a_says_what_is_wrong(audio_file, tmp_path):
    data = audio_file("m4a").read_bytes()
    path = tmp_path / "cut.m4a"
    path.write_bytes(data[: len(data) // 2])
    assert code_of(path) == "undecodable"


def test_damage_inside_is_survived_by_the_other_decoder(audio_file, tmp_path):
    for kind in ("mp3", "flac"):
        data = bytearray(audio_file(kind).read_bytes())
        middle = len(data) // 2
        data[middle : middle + 2000] = bytes(2000)
        path = tmp_path / f"hole.{kind}"
        path.write_bytes(data)
        assert decode(path).duration_s > 5.0


def test_fuzzed_files_decode_or_are_refused(audio_file, tmp_path):
    rng = np.random.default_rng(7)
    codes = {"undecodable", "not_audio", "garbage", "too_short", "no_audio_stream"}
    n_decoded = 0
    for kind in audio_files.KINDS:
        good = np.frombuffer(audio_file(kind, 4.0).read_bytes(), np.uint8)
        for trial in range(8):
            data = good.copy()
            if trial % 2:
                data[rng.integers(0, 200, 5)] = rng.integers(0, 256, 5)
            else:
                where = rng.integers(0, len(data), max(1, len(data) // 500))
                data[where] = rng.integers(0, 256, len(where))
            path = tmp_path / f"{trial}.{kind}"
            path.write_bytes(data.tobytes())
            try:
                decoded = decode(path, max_s=60.0)
            except UnreadableAudio as error:
                assert error.code in codes
                continue
            n_decoded += 1
            assert np.isfinite(decoded.samples).all()
            assert np.abs(decoded.samples).max() <= 1.0
    assert n_decoded > 20


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 5000,
        b"Dear reader, this is no song. " * 200,
        b"ffconcat version 1.0\nfile other.wav\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.wav\n#EXT-X-ENDLIST\n",
        b"\x89PNG\r\n\x1a\n" + b"\1\2\3\4" * 1000,
    ],
)
def test_what_is_no_audio(audio_file, tmp_path, content):
    (tmp_path / "other.wav").write_bytes(audio_file("wav").read_bytes())
    path = tmp_path / "x.mp3"
    path.write_bytes(content)
    assert code_of(path) == "not_audio"


def test_ffmpeg_may_not_open_playlists(audio_file, tmp_path):
    other = tmp_path / "other.wav"
    other.write_bytes(audio_file("wav").read_bytes())
    for text in ("ffconcat version 1.0\nfile other.wav\n", f"#EXTM3U\n#EXTINF:9,\n{other}\n"):
        path = tmp_path / "x.mp3"
        path.write_text(text)
        with containers.open_regular(path) as file, pytest.raises(av.FFmpegError):
            containers.open_container(file)


def test_random_bytes(tmp_path):
    path = tmp_path / "x.mp3"
    path.write_bytes(np.random.default_rng(3).bytes(300_000))
    assert code_of(path) in ("not_audio", "undecodable", "garbage", "too_short")


def test_a_header_without_a_song(audio_file, tmp_path):
    for kind in audio_files.KINDS:
        path = tmp_path / f"x.{kind}"
        path.write_bytes(audio_file(kind).read_bytes()[:200])
        assert code_of(path) in ("not_audio", "undecodable", "too_short", "no_audio_stream")


def test_film_without_sound(tmp_path):
    path = tmp_path / "film.m4a"
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=25, width=64, height=64, pix_fmt="yuv420p")
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        file.mux(stream.encode(None))
    assert code_of(path) == "no_audio_stream"


def test_too_short(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, audio_files.tones(0.4), 44_100)
    assert code_of(path) == "too_short"


def test_loud_is_clipped_and_absurd_is_refused(tmp_path):
    samples = audio_files.tones(2.0)
    loud, absurd, infinite = (tmp_path / f"{name}.wav" for name in ("loud", "absurd", "infinite"))
    soundfile.write(loud, samples * 4.0, 44_100, subtype="FLOAT")
    soundfile.write(absurd, samples * 32_768, 44_100, subtype="FLOAT")
    samples[1000] = np.inf
    soundfile.write(infinite, samples, 44_100, subtype="FLOAT")
    assert np.abs(load_audio(loud)).max() == 1.0
    assert code_of(absurd) == "garbage"
    assert code_of(infinite) == "garbage"


def test_files_that_cannot_be_opened(tmp_path):
    assert code_of(tmp_path / "missing.mp3") == "not_found"
    assert code_of(tmp_path) == "not_regular"
    pipe = tmp_path / "pipe.mp3"
    os.mkfifo(pipe)
    assert code_of(pipe) == "not_regular"
    assert code_of(Path("/dev/zero")) == "not_regular"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(audio_file, tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(audio_file("wav").read_bytes())
    path.chmod(stat.S_IWUSR)
    assert code_of(path) == "permission"


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take only UTF-8 names")
@pytest.mark.parametrize("kind", ["wav", "mp3", "m4a", "opus"])
def test_names_that_are_not_utf8(audio_file, tmp_path, kind):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n-\xff." + kind.encode()))
    path.write_bytes(audio_file(kind).read_bytes())
    assert decode(path).duration_s == pytest.approx(6.0, abs=0.1)


def test_tags_that_are_not_utf8(audio_file, tmp_path):
    plain = audio_file("mp3").read_bytes()
    frame = b"TIT2" + (6).to_bytes(4, "big") + b"\0\0" + b"\3" + b"\xff\xfe\xfa\xc3("
    tag = b"ID3\3\0\0" + bytes([0, 0, 0, len(frame)]) + frame
    path = tmp_path / "x.mp3"
    path.write_bytes(tag + plain)
    np.testing.assert_array_equal(load_audio(path), load_audio(audio_file("mp3")))
    with containers.open_regular(path) as file:
        containers.open_container(file).close()


def test_mp3_without_a_length_tag_is_decoded_to_its_end(audio_file, tmp_path):
    data = audio_file("mp3").read_bytes()
    frame = data.find(b"\xff\xfb", data.find(b"Info") if b"Info" in data else data.find(b"Xing"))
    path = tmp_path / "x.mp3"
    path.write_bytes(data[frame:])
    decoded = decode(path)
    assert decoded.decoder.startswith("av")
    assert decoded.duration_s == pytest.approx(6.0, abs=0.1)
    assert not decoded.truncated


def test_nothing_is_left_open(audio_file):
    script = (
        "import os, sys; from livi_index.audio import decode\n"
        "n = len(os.listdir('/dev/fd'))\n"
        "for path in sys.argv[1:]: decode(path)\n"
        "assert len(os.listdir('/dev/fd')) == n\n"
    )
    paths = [str(audio_file(kind)) for kind in ("wav", "mp3", "m4a", "opus")]
    subprocess.run([sys.executable, "-W", "error", "-c", script, *paths], check=True)
