"""Speech synthesisers of the system: lines of text → sound, and when each phone begins.

espeak-ng, flite and festival tell what they say; RHVoice and SVOX pico do not, and
``catalogs.aligner`` finds out. All sound here is (T,) float32 mono at 16 kHz.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

FloatArray = npt.NDArray[np.float32]
Engine = Literal["espeak", "flite", "festival", "rhvoice", "pico", "recording"]

SAMPLE_RATE = 16_000
TELLS_PHONES: tuple[Engine, ...] = ("espeak", "flite", "festival")
DEBIAN_PACKAGES = {
    "espeak": ("espeak-ng", "libespeak-ng1"),
    "flite": ("flite",),
    "festival": ("festival", "festvox-us-slt-hts", "festvox-kallpc16k"),
}
_PROGRAMS = {
    "flite": "flite",
    "festival": "festival",
    "rhvoice": "RHVoice-test",
    "pico": "pico2wave",
}
_FESTIVAL_VOICES = {
    "slt": "cmu_us_slt_arctic_hts",
    "kal": "kal_diphone",
    "ked": "ked_diphone",
}
_CMU_VOWELS = frozenset("aa ae ah ao aw ax axr ay eh er ey ih iy ow oy uh uw".split())
_IPA_VOWELS = frozenset("aeiouyɐɑɒæəɚɛɜɝɪɨʊʉʌɔøœɤɵ")


@dataclass(frozen=True)
class Voice:
    """One voice of one engine, such as ``Voice("espeak", "en-us+f3")``."""

    engine: Engine
    name: str

    def __str__(self) -> str:
        return f"{self.engine}:{self.name}"


@dataclass(frozen=True)
class Phone:
    """A sound of the speech and when it lasts; ``name`` is empty where nobody speaks."""

    name: str
    start_s: float
    end_s: float
    vowel: bool


def available(voice: Voice) -> bool:
    """Whether ``voice`` can speak on this system."""
    if voice.engine == "espeak":
        return _espeak_library_path() is not None
    if voice.engine not in _PROGRAMS or shutil.which(_PROGRAMS[voice.engine]) is None:
        return False
    return voice.engine != "festival" or _FESTIVAL_VOICES[voice.name] in _festival_voices()


def missing_packages() -> list[str]:
    """Debian packages to install so that the engines that tell phones speak; empty if all do."""
    some = {"espeak": "en-us", "flite": "slt", "festival": "kal"}
    absent = [e for e in TELLS_PHONES if not available(Voice(e, some[e]))]
    return [package for engine in absent for package in DEBIAN_PACKAGES[engine]]


def say(voice: Voice, lines: Sequence[str]) -> list[FloatArray]:
    """Each line as plain speech, (T,) float32 at 16 kHz."""
    return [samples for samples, _ in say_and_tell(voice, lines)]


def pronounce(voice: Voice, lines: Sequence[str]) -> list[list[Phone]]:
    """The phones of each line alone, of an engine in ``TELLS_PHONES``."""
    assert voice.engine in TELLS_PHONES, f"{voice} does not tell its phones"
    return [phones for _, phones in say_and_tell(voice, lines)]


def cmu_phones(marks: Sequence[tuple[str, float]]) -> list[Phone]:
    """Phones from (name, end time) rows in the CMU phone set; pauses are left out."""
    starts = [0.0, *(end for _, end in marks)]
    named = zip(marks, starts, strict=False)
    return [Phone(name, s, end, name in _CMU_VOWELS) for (name, end), s in named if name != "pau"]


# --- the engines: each says lines as (16 kHz samples, phones)


Said: TypeAlias = "tuple[FloatArray, list[Phone]]"


def say_and_tell(voice: Voice, lines: Sequence[str]) -> list[Said]:
    """Each line's sound and phones; no phones from an engine that is not in ``TELLS_PHONES``."""
    engines = {
        "espeak": _say_espeak,
        "flite": _say_flite,
        "festival": _say_festival,
        "rhvoice": _say_rhvoice,
        "pico": _say_pico,
    }
    if voice.engine not in engines:
        raise ValueError(f"{voice} is a recording and cannot speak new lines")
    return engines[voice.engine](voice.name, lines)


def _say_rhvoice(name: str, lines: Sequence[str]) -> list[Said]:
    return [(_spoken_by(["RHVoice-test", "-p", name, "-o"], line), []) for line in lines]


def _say_pico(name: str, lines: Sequence[str]) -> list[Said]:
    return [(_spoken_by(["pico2wave", "-l", name, "-w"], line, line), []) for line in lines]


def _spoken_by(command: list[str], line: str, *arguments: str) -> FloatArray:
    """What a program writes to the file that its last option names; the line is its input too."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "said.wav"
        said = subprocess.run(
            [*command, str(wav), *arguments], input=line, capture_output=True, text=True
        )
        if said.returncode != 0 or not wav.exists():
            raise RuntimeError(f"{command[0]} said nothing for {line!r}: {said.stderr.strip()}")
        samples, rate = soundfile.read(wav, dtype="float32")
    return _resample(samples, rate)


def _say_flite(name: str, lines: Sequence[str]) -> list[Said]:
    return [_say_flite_line(name, line) for line in lines]


def _say_flite_line(name: str, line: str) -> Said:
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "said.wav"
        command = ["flite", "-voice", name, "-t", line, "-psdur", "-o", str(wav)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        samples, rate = soundfile.read(wav, dtype="float32")
    marks = [mark.rsplit(":", 1) for mark in printed.split()]
    return _resample(samples, rate), cmu_phones([(n, float(end)) for n, end in marks])


@functools.cache
def _festival_voices() -> frozenset[str]:
    command = ["festival", "-b", "(mapcar (lambda (v) (print v)) (voice.list))"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return frozenset(printed.split())


def _say_festival(name: str, lines: Sequence[str]) -> list[Said]:
    """One festival process for all lines; it prints a name and an end time for each segment."""
    with tempfile.TemporaryDirectory() as folder:
        script = [f"(voice_{_FESTIVAL_VOICES[name]})"]
        for i, line in enumerate(lines):
            words = line.replace("\\", " ").replace('"', " ")
            script += [
                f'(set! u (SynthText "{words}"))',
                f'(utt.save.wave u "{folder}/{i}.wav" \'riff)',
                f'(format t "line {i}\\n")',
                '(mapcar (lambda (s) (format t "%s %f\\n" (item.name s) (item.feat s \'end)))'
                " (utt.relation.items u 'Segment))",
            ]
        program = Path(folder) / "say.scm"
        program.write_text("\n".join(script))
        command = ["festival", "-b", str(program)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        marks: list[list[tuple[str, float]]] = []
        for row in printed.splitlines():
            label, _, value = row.partition(" ")
            if label == "line":
                marks.append([])
            elif marks and value:
                marks[-1].append((label, float(value)))
        read = [
            soundfile.read(Path(folder) / f"{i}.wav", dtype="float32") for i in range(len(lines))
        ]
    return [
        (_resample(samples, rate), cmu_phones(m))
        for (samples, rate), m in zip(read, marks, strict=True)
    ]


def _resample(samples: FloatArray, rate: int) -> FloatArray:
    if rate == SAMPLE_RATE:
        return samples
    return np.asarray(soxr.resample(samples, rate, SAMPLE_RATE), dtype=np.float32)


def _espeak_library_path() -> str | None:
    for name in ("libespeak-ng.so.1", "libespeak-ng.1.dylib", "libespeak-ng.dylib"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    return None


class _EspeakId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _EspeakEvent(ctypes.Structure):
    """espeak_EVENT of the C interface (speak_lib.h)."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EspeakId),
    )


_EspeakCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_EspeakEvent)
)
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4


class _Espeak:
    """The espeak-ng library, opened once a process: it speaks in memory and names its phones."""

    def __init__(self) -> None:
        path = _espeak_library_path()
        if path is None:
            raise RuntimeError("libespeak-ng is not installed (Debian: libespeak-ng1 espeak-ng)")
        self._library = ctypes.CDLL(path)
        self._audio: list[npt.NDArray[np.int16]] = []
        self._marks: list[tuple[int, str]] = []
        synchronous, phoneme_events, ipa = 2, 1, 2
        self.rate = int(self._library.espeak_Initialize(synchronous, 0, None, phoneme_events | ipa))
        self._callback = _EspeakCallback(self._collect)  # must outlive the library's use of it
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_SetParameter(_RATE, 150, 0)
        self._library.espeak_SetParameter(_PITCH_RANGE, 0, 0)
        self._library.espeak_SetParameter(_PITCH, 40, 0)

    def _collect(self, samples: object, n: int, events: object) -> int:
        if samples and n > 0:
            self._audio.append(np.ctypeslib.as_array(samples, (n,)).copy())  # type: ignore[arg-type]
        i = 0
        while (event := events[i]).type != _EVENT_END_OF_LIST:  # type: ignore[index]
            if event.type == _EVENT_PHONEME:
                name = event.id.string.decode("utf-8", errors="replace")
                self._marks.append((event.sample, name))
            i += 1
        return 0

    def say(self, voice: str, line: str) -> Said:
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((_RATE, 150), (_PITCH_RANGE, 0), (_PITCH, 40)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._audio.clear()
        self._marks.clear()
        text = line.encode()
        utf8 = 1
        self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, utf8, None, None)
        self._library.espeak_Synchronize()
        if not self._audio:
            raise RuntimeError(f"espeak-ng said nothing for {line!r}")
        samples = np.concatenate(self._audio).astype(np.float32) / 32768
        bounds = [*(s for s, _ in self._marks), len(samples)]
        phones = [
            Phone(name, s / self.rate, e / self.rate, name[:1] in _IPA_VOWELS)
            for (s, name), e in zip(self._marks, bounds[1:], strict=True)
            if name
        ]
        return _resample(samples, self.rate), phones


@functools.cache
def _espeak() -> _Espeak:
    return _Espeak()


def _say_espeak(name: str, lines: Sequence[str]) -> list[Said]:
    return [_espeak().say(name, line) for line in lines]
