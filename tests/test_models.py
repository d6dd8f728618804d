"""Bundles: real files, real sessions, every kind of damage."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from livi_index.calibration import ONE_SIGMA, Calibration
from livi_index.downloads import download
from livi_index.encoders import AudioEncoder
from livi_index.errors import BadModel, MissingRuntime
from livi_index.install import install_model, remove_model
from livi_index.models import (
    available_models,
    check_graph,
    find_model,
    may_run_on_cuda,
    models_dir,
    open_bundle,
    open_session,
    parse_card,
    usable_cpus,
    verify,
)

TINY = Path(__file__).parent / "data" / "tiny-bundle"


@pytest.fixture(autouse=True)
def own_models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVI_MODELS", str(tmp_path / "models"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "copy"))


def change_card(folder: Path, **changes: object) -> Path:
    card = json.loads((folder / "card.json").read_text())
    card.update(changes)
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def zipped(path: Path, folder: Path, prefix: str = "tiny/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, prefix + file.name)
    return path


def test_card_says_what_the_bundle_is() -> None:
    card = open_bundle(TINY).card
    assert (card.name, card.version, card.sample_rate) == ("tiny", "1", 16_000)
    lyrics = card.space("lyrics")
    assert (lyrics.encoder, lyrics.dim, lyrics.window_s) == ("audio.onnx", 32, 30.0)
    assert lyrics.text is not None and lyrics.text.max_characters == 2000
    with pytest.raises(BadModel, match="no space 'harmony'; it has: lyrics"):
        card.space("harmony")


def test_calibration_is_a_logistic_curve_that_never_overflows() -> None:
    curve = Calibration(slope=10.0, offset=-4.0, fitted_on="nothing")
    logits = curve.logits(np.array([0.4, 1e6, -1e6]), np.zeros(3, np.bool_))
    np.testing.assert_allclose(curve.probabilities(logits, 50), [0.5, 1.0, 0.0], atol=1e-9)
    crowd = replace(curve, recordings=100)
    assert crowd.probabilities(logits, 100)[0] == pytest.approx(0.5)
    nine = crowd.probabilities(logits, 900)[0]
    assert nine == pytest.approx(0.1), "nine wrong ones for one of before"


def test_scores_are_held_against_what_else_a_query_scores() -> None:
    curve = Calibration(1.0, 0.0, "nothing", median=2.0, spread=3.0)
    rng = np.random.default_rng(1)
    many = np.append(rng.normal(5.0, 2.0, 4000), [25.0, np.nan])
    cohort = np.append(np.ones(4000, np.bool_), [False, True])
    relative = curve.relative(many, cohort)
    assert relative[-2] == pytest.approx(10.0, abs=0.5) and np.isnan(relative[-1])
    other = curve.relative(3 * many + 7, cohort)
    np.testing.assert_allclose(other[:-1], relative[:-1], atol=0.1)
    alone = curve.relative(np.array([25.0, 4.0]), np.array([False, True]))
    # Of eleven parts of what is usual, one is the cohort's: 4, and nothing above it.
    assert alone[0] == pytest.approx((25 - (4 + 20) / 11) / (30 / 11))
    few = np.append(np.random.default_rng(2).normal(2.0, 1.0, 6), [40.0, 38.0])
    own = curve.relative(few, np.ones(8, np.bool_))
    for row in range(8):  # what is of the cohort is held against the rest of it
        rest = np.delete(few, row)
        middle, above = np.percentile(rest, (50, ONE_SIGMA))
        median, spread = (7 * middle + 10 * 2.0) / 17, (7 * (above - middle) + 10 * 3.0) / 17
        assert own[row] == pytest.approx((few[row] - median) / spread)
    plain = replace(curve, spread=0.0)
    assert np.array_equal(plain.relative(many, cohort), many, equal_nan=True)
    assert len(curve.relative(np.zeros(0), np.zeros(0, np.bool_))) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema 1"),
        ({"colour": "red"}, "does not know: colour"),
        ({"version": 1}, "wrong kind: version"),
        ({"files": []}, "wrong kind"),
        ({"files": {"../x.onnx": {"sha256": "", "size": 1}}}, "does not list"),
        ({"vocals": {"file": "vocals.onnx"}}, "lacks: window_s"),
        ({"vocals": {"file": "other.onnx", "window_s": 3.0}}, "other.onnx"),
        ({"name": "../tiny"}, "not allowed"),
        (
            {"calibration": {"lyrics": {"slope": 0.0, "offset": 1.0, "fitted_on": ""}}},
            "no likelier",
        ),
    ],
)
def test_a_card_with_a_fault_is_refused(
    copy: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(BadModel, match=message):
        open_bundle(change_card(copy, **changes))


def test_file_names_may_not_lead_out_of_the_bundle(copy: Path) -> None:
    card = json.loads((copy / "card.json").read_text())
    card["files"]["../x.onnx"] = {"sha256": "", "size": 1}
    with pytest.raises(BadModel, match="not allowed"):
        parse_card(json.dumps(card).encode(), "card")


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff\xfe", b"{}"])
def test_what_is_no_card_is_refused(raw: bytes) -> None:
    with pytest.raises(BadModel, match="here"):
        parse_card(raw, "here")


def test_every_kind_of_damage_is_found_before_a_session_opens(copy: Path) -> None:
    audio = copy / "audio.onnx"
    data = audio.read_bytes()
    flipped = data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]
    for damaged in (flipped, data[:-1], data + b"x", b""):
        audio.write_bytes(damaged)
        with pytest.raises(BadModel, match=r"audio\.onnx is damaged"):
            open_bundle(copy).open("audio.onnx")
    audio.unlink()
    with pytest.raises(BadModel, match="cannot be read"):
        verify(open_bundle(copy))
    with pytest.raises(BadModel, match="does not list"):
        open_bundle(copy).open("card.json")


def test_the_whole_tiny_bundle_verifies() -> None:
    verify(open_bundle(TINY))


def wire(number: int, payload: bytes) -> bytes:
    """One length-delimited field of a protocol buffer, up to 127 bytes long."""
    return bytes([number << 3 | 2, len(payload)]) + payload


def test_graphs_that_read_other_files_or_need_other_operators_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    tensor = b"\x08\x01" + wire(8, b"w") + b"\x70\x01"
    attribute = wire(1, b"value") + wire(5, tensor)
    for graph in (wire(5, tensor), wire(1, wire(5, attribute)), wire(15, wire(1, tensor))):
        path.write_bytes(b"\x08\x08" + wire(7, graph))
        with pytest.raises(BadModel, match="another file"):
            check_graph(path)
    path.write_bytes(wire(8, wire(1, b"com.evil") + b"\x10\x01"))
    with pytest.raises(BadModel, match=r"com\.evil"):
        check_graph(path)
    for broken in (b"\x3a\x7f\x00", b"\xff" * 40, b"\x07", b""):
        path.write_bytes(broken)
        with pytest.raises(BadModel, match="not an ONNX file"):
            check_graph(path)
    for good in TINY.glob("*.onnx"):
        check_graph(good)


def test_a_session_says_where_it_runs_and_takes_any_number_of_rows() -> None:
    session = open_bundle(TINY).open("vocals.onnx", threads=1, device="cpu")
    assert (session.provider, session.threads) == ("CPUExecutionProvider", 1)
    rows = np.random.default_rng(0).normal(0, 0.01, (7, 48_000)).astype(np.float32)
    alone = np.concatenate([session.run(rows[i : i + 1], 4) for i in range(7)])
    assert session.run(rows, 4).shape == (7,)
    np.testing.assert_allclose(session.run(rows, 4), alone, atol=1e-6)
    np.testing.assert_allclose(session.run(rows, 32), alone, atol=1e-6)


def test_answers_that_are_not_finite_are_an_error() -> None:
    session = open_bundle(TINY).open("vocals.onnx", threads=1)
    with pytest.raises(BadModel, match="not finite"):
        session.run(np.full((1, 48_000), np.nan, np.float32), 4)


def test_what_onnxruntime_cannot_load_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(BadModel, match="cannot be opened by onnxruntime"):
        open_session(path, threads=1)
    with pytest.raises(BadModel, match="cannot be opened by onnxruntime"):
        open_session(tmp_path / "absent.onnx", threads=1)


def test_a_graph_for_cuda_is_left_alone_on_a_processor(copy: Path) -> None:
    card = json.loads((copy / "card.json").read_text())
    space = card["spaces"][0] | {"cuda_encoder": "audio.fp16.onnx"}
    with pytest.raises(BadModel, match=r"audio\.fp16\.onnx"):
        open_bundle(change_card(copy, spaces=[space]))
    shutil.copy(copy / "card.json", copy / "audio.fp16.onnx")  # nothing that could be opened
    files = card["files"] | {"audio.fp16.onnx": {"sha256": "0" * 64, "size": 1}}
    bundle = open_bundle(change_card(copy, files=files))
    if may_run_on_cuda("auto"):
        pytest.skip("onnxruntime-gpu is installed here")
    encoder = AudioEncoder(bundle)
    assert encoder.provider == "CPUExecutionProvider" and encoder.batch == 4
    with pytest.raises(BadModel, match="damaged"):
        verify(bundle)


def test_cuda_that_is_not_there_is_never_a_silent_cpu() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed here")
    with pytest.raises(MissingRuntime, match=r"livi-index\[gpu\]"):
        open_bundle(TINY).open("vocals.onnx", device="cuda")


def open_with_path(folder: Path) -> str:
    """What a process that finds ``folder`` first on its path says when it opens a session."""
    code = (
        "from pathlib import Path; from livi_index.models import open_bundle\n"
        f"try: open_bundle(Path({str(TINY)!r})).open('vocals.onnx')\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    path = os.pathsep.join([str(folder), str(TINY.parents[2])])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def test_a_runtime_that_is_absent_or_there_twice_is_explained(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "onnxruntime.py").write_text("raise ImportError('no such library')")
    assert "MissingRuntime onnxruntime cannot be imported" in open_with_path(absent)
    assert "livi-index[cpu]" in open_with_path(absent)
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / "twice" / f"{name}-1.31.1.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.31.1\n")
    assert "MissingRuntime both onnxruntime and" in open_with_path(tmp_path / "twice")


def test_usable_cpus_is_not_more_than_the_machine_has() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("packed", [False, True])
def test_install_find_replace_remove(packed: bool, tmp_path: Path, copy: Path) -> None:
    source = zipped(tmp_path / "tiny.zip", copy) if packed else copy
    (copy / "notes.txt").write_text("not listed, not taken")
    installed = install_model(source)
    assert installed.path == models_dir() / "tiny" and installed.source == "installed"
    verify(installed)
    assert not (installed.path / "notes.txt").exists()
    assert find_model("tiny") == installed == find_model(installed.card.model_id)
    assert "tiny" in [entry.name for entry in available_models()]
    with pytest.raises(BadModel, match="installed already"):
        install_model(source)
    assert install_model(source, replace=True) == installed
    remove_model("tiny")
    assert list(models_dir().iterdir()) == []
    with pytest.raises(BadModel, match="no installed model"):
        remove_model("tiny")


def test_a_name_of_the_package_cannot_be_taken(copy: Path) -> None:
    bundled = [entry.name for entry in available_models() if entry.source == "bundled"]
    for name in bundled:
        with pytest.raises(BadModel, match="is a model of this package"):
            install_model(change_card(copy, name=name))
    with pytest.raises(BadModel, match="no installed model"):
        remove_model("../copy")


def test_an_install_that_fails_leaves_nothing(tmp_path: Path, copy: Path) -> None:
    archive = zipped(tmp_path / "tiny.zip", copy)
    data = bytearray(archive.read_bytes())
    data[1000] ^= 1
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(data)
    (copy / "text.onnx").unlink()
    (tmp_path / "empty").mkdir()
    sources = [copy, zipped(tmp_path / "incomplete.zip", copy), damaged]
    sources += [tmp_path / "empty", tmp_path / "absent", copy / "card.json"]
    for source in sources:
        with pytest.raises(BadModel):
            install_model(source)
    assert not models_dir().exists() or list(models_dir().iterdir()) == []


def test_an_archive_that_unpacks_to_more_than_it_states_is_refused(copy: Path) -> None:
    with (copy / "audio.onnx").open("ab") as file:
        file.write(bytes(1 << 20))
    with pytest.raises(BadModel, match=r"audio\.onnx is not of the size"):
        install_model(copy)


def test_unknown_names_list_the_known_ones_and_paths_work(copy: Path) -> None:
    install_model(copy)
    with pytest.raises(BadModel, match=r"no model is called 'huge'; known models: .*tiny"):
        find_model("huge")
    assert find_model(copy).source == find_model(str(copy)).source == "local"
    (models_dir() / "tiny" / "card.json").write_text("{}")
    entry = next(entry for entry in available_models() if entry.name == "tiny")
    assert entry.bundle is None and "schema" in entry.problem
    with pytest.raises(BadModel, match="schema"):
        find_model("tiny")


class PartsOfFiles(http.server.SimpleHTTPRequestHandler):
    """Gives the rest of a file where that is asked for; of "breaks.zip" never more than a third."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return super().do_GET()
        data, tag = path.read_bytes(), f'"{path.stat().st_mtime_ns}"'
        first = 0
        if "Range" in self.headers and self.headers["If-Range"] == tag:
            first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if first == len(data):
            return self._begin(416, tag, 0, f"bytes */{first}")
        self._begin(206 if first else 200, tag, len(data) - first, f"bytes {first}-/{len(data)}")
        breaks = path.name == "breaks.zip"
        self.wfile.write(data[first:][: len(data) // 3 if breaks else None])

    def _begin(self, status: int, tag: str, length: int, place: str) -> None:
        self.send_response(status)
        for name, value in (("ETag", tag), ("Content-Length", length), ("Content-Range", place)):
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def https_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serves tmp_path on this machine, with a certificate made for this test."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate for a local server")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run([openssl, *request.split(), *names], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    handler = partial(PartsOfFiles, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def test_install_from_an_address(https_server: str, tmp_path: Path, copy: Path) -> None:
    zipped(tmp_path / "tiny.zip", copy)
    verify(install_model(f"{https_server}/tiny.zip"))
    with pytest.raises(BadModel, match="cannot be fetched"):
        install_model(f"{https_server}/absent.zip")
    with pytest.raises(BadModel, match="https://"):
        install_model("http://localhost/tiny.zip")


def test_a_download_goes_on_where_it_broke(https_server: str, tmp_path: Path, copy: Path) -> None:
    archive = zipped(tmp_path / "breaks.zip", copy)
    seen: list[tuple[int, int]] = []
    verify(install_model(f"{https_server}/breaks.zip", watch=lambda *now: seen.append(now)))
    size = archive.stat().st_size
    # Four connections, each a third: nothing came twice.
    assert [done for done, _ in seen][-1] == size and {total for _, total in seen} == {size}
    assert len(seen) >= 3 and sorted(done for done, _ in seen) == [done for done, _ in seen]
    assert list((models_dir() / ".downloads").iterdir()) == []


def test_a_download_is_kept_for_the_next_time_unless_it_changed(
    https_server: str, tmp_path: Path, copy: Path
) -> None:
    whole = zipped(tmp_path / "tiny.zip", copy).read_bytes()
    url, folder = f"{https_server}/tiny.zip", models_dir() / ".downloads"
    part = download(url, folder)
    assert part.read_bytes() == whole and part == download(url, folder)
    for kept in (whole[:1000], bytes(1000)):
        part.write_bytes(kept)
        assert download(url, folder).read_bytes() == kept + whole[1000:]
    with pytest.raises(BadModel, match="cannot be installed"):
        install_model(url)
    assert list(folder.iterdir()) == []
    part = download(url, folder)
    part.write_bytes(bytes(1000))
    zipped(tmp_path / "tiny.zip", copy, prefix="other/")
    verify(install_model(url))
