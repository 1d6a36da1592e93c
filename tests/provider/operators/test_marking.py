# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A saved picture says that a machine made it, and other programs read that."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from airflow.sdk import ObjectStoragePath
from PIL import Image

from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.media.mark import AFTER_HEADER, mark
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.storage.target import Target
from tests.driver import Attempts
from tests.provider.batches import lamps

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.fixture
def job_id(hook):
    return hook.generate_image("A lighthouse at dawn")


@pytest.fixture
def warning(mocker):
    return mocker.patch.object(PictoryHook, "log").warning


def save(context, path, **more):
    return DownloadImageOperator(task_id="save", path=str(path), mark_ai_generated=True, **more).execute(context)


def test_a_mark_changes_nothing_but_itself_and_is_counted_in_size_and_digest(context, hook, job_id, tmp_path):
    plain = hook.download_image(str(tmp_path / "plain.png"), job_id=job_id)
    marked = save(context, tmp_path / "marked.png", job_id=job_id)
    before, after = (tmp_path / "plain.png").read_bytes(), (tmp_path / "marked.png").read_bytes()
    assert after == before[:AFTER_HEADER] + mark() + before[AFTER_HEADER:]
    assert (marked["size"], plain["size"]) == (len(after), len(before))
    assert marked["sha256"] != plain["sha256"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["marked.png", "plain.png"]


def test_the_same_picture_marked_again_is_the_same_bytes(context, job_id, tmp_path):
    first = save(context, tmp_path / "a.png", job_id=job_id)
    assert save(context, tmp_path / "a.png", job_id=job_id) == first


def test_pillow_reads_the_mark(context, job_id, tmp_path):
    save(context, tmp_path / "a.png", job_id=job_id)
    with Image.open(tmp_path / "a.png") as image:
        assert SOURCE_TYPE in str(image.info["XML:com.adobe.xmp"])
        image.load()


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_the_mark_and_finds_no_fault(context, job_id, tmp_path):
    save(context, tmp_path / "a.png", job_id=job_id)
    said = subprocess.run(
        ["exiftool", "-json", "-validate", "-warning", "-xmp:all", "-n", tmp_path / "a.png"],
        check=True,
        capture_output=True,
    )
    (read,) = json.loads(said.stdout)
    assert (read["DigitalSourceType"], read.get("Warning")) == (SOURCE_TYPE, None)
    assert read["AISystemUsed"] == "Pictory AI Studio"


def test_a_picture_in_object_storage_is_marked(context, job_id, memory):
    saved = save(context, "memory://bucket/marked.png", job_id=job_id)
    with ObjectStoragePath("memory://bucket/marked.png").open("rb") as file:
        content = file.read()
    assert mark() in content
    assert len(content) == saved["size"]


@pytest.fixture
def serve():
    """Serve some bytes as a picture, from a host that is not the simulator."""
    servers = []

    def start(content):
        class Host(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Host)
        servers.append(server)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/a.png"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_signed_picture_comes_through_byte_for_byte_with_a_warning(
    context, hook, job_id, serve, tmp_path, warning
):
    hook.download_image(str(tmp_path / "plain.png"), job_id=job_id)
    plain = (tmp_path / "plain.png").read_bytes()
    manifest = b"caBX" + b"a signed manifest"
    signed = (
        plain[:AFTER_HEADER]
        + struct.pack(">I", len(manifest) - 4)
        + manifest
        + struct.pack(">I", zlib.crc32(manifest))
        + plain[AFTER_HEADER:]
    )
    save(context, tmp_path / "a.png", url=serve(signed))
    assert (tmp_path / "a.png").read_bytes() == signed
    assert "already says something about its origin (c2pa)" in str(warning.call_args)


@pytest.mark.usefixtures("pictory")
def test_a_jpeg_is_saved_unmarked_with_a_warning(context, serve, tmp_path, warning):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.jpg")
    plain = (tmp_path / "plain.jpg").read_bytes()
    save(context, tmp_path / "a.png", url=serve(plain))
    assert (tmp_path / "a.png").read_bytes() == plain
    assert any("only PNG files are marked" in str(call) for call in warning.call_args_list)


# A file that says something already -----------------------------------------------------------------------

CAMERA = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
SAID = {  # what the file says: marks and source as they are on record then, whether it is marked in the end
    "none": (["xmp"], SOURCE_TYPE, True),
    "xmp-rdf": (["xmp"], SOURCE_TYPE, True),
    "xmp-zipped": (["xmp"], SOURCE_TYPE, True),
    "xmp-ai": (["xmp"], SOURCE_TYPE, True),
    "xmp": (["xmp"], None, False),
    "xmp-camera": (["xmp"], CAMERA, False),
    "xmp-hostile": (["xmp"], None, False),
    "c2pa": (["c2pa"], None, False),
    "aigc": (["aigc"], None, False),
}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def beside(path):
    return json.loads(Path(f"{path}.json").read_text())


@pytest.fixture
def draw(tmp_path):
    """Return a function that runs one attempt of a task that saves a picture, in a new run."""

    def run(run_id="first", **kwargs):
        def make(**more):
            arguments = {"prompt": "A lighthouse at dawn", "path": str(tmp_path / "a.png"), "deferrable": False}
            return GenerateImageOperator(task_id="cover", **arguments, **more)

        attempts = Attempts(make, run_id=run_id)
        attempts(**kwargs)
        return attempts.ti.xcoms["image"]

    return run


@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize("said", SAID)
def test_a_mark_that_could_not_be_written_is_visible_in_the_result(pictory, draw, tmp_path, logged, said, when):
    marks, source, is_marked = SAID[said]
    pictory.shape("mark", said)
    if when == "later":
        assert "ai_mark" not in draw()
    image = draw("second", mark_ai_generated=True)
    on_record = beside(tmp_path / "a.png")
    assert image["ai_mark"] is is_marked
    assert (on_record["marks"], on_record["digital_source_type"]) == (marks, source)
    assert on_record["sha256"] == image["sha256"] == digest(tmp_path / "a.png")
    assert ("is not marked as made by AI" in logged()) is not is_marked or when == "later"
    assert len(pictory.submissions) == 1
    assert draw("third", mark_ai_generated=True)["ai_mark"] is is_marked
    assert "ai_mark" not in draw("fourth")


@pytest.mark.usefixtures("pictory")
@pytest.mark.parametrize("said", SAID)
def test_a_downloaded_picture_says_whether_the_mark_was_written(pictory, context, hook, tmp_path, said):
    pictory.shape("mark", said)
    job_id = hook.generate_image("A lighthouse at dawn")
    assert save(context, tmp_path / "a.png", job_id=job_id)["ai_mark"] is SAID[said][2]
    assert "ai_mark" not in hook.download_image(str(tmp_path / "b.png"), job_id=job_id)


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
@pytest.mark.parametrize("said", ["xmp-rdf", "xmp-zipped"])
def test_exiftool_reads_a_mark_that_was_added_to_a_packet_and_what_that_held(pictory, draw, tmp_path, said):
    pictory.shape("mark", said)
    draw(mark_ai_generated=True)
    (read,) = json.loads(
        subprocess.run(
            ["exiftool", "-json", "-validate", "-warning", "-xmp:all", "-n", tmp_path / "a.png"],
            check=True,
            capture_output=True,
        ).stdout
    )
    assert (read["DigitalSourceType"], read["CreatorTool"], read.get("Warning")) == (
        SOURCE_TYPE,
        "Simulator",
        None,
    )


def test_a_sidecar_of_the_first_release_is_read_as_before_and_its_picture_is_examined_once(
    pictory, draw, tmp_path
):
    path = tmp_path / "a.png"
    draw(mark_ai_generated=True)
    old = beside(path)
    del old["digital_source_type"]  # as version 0.1.0 wrote it of a file that it had marked
    Path(f"{path}.json").write_text(json.dumps(old))
    assert draw("second")["sha256"] == old["sha256"]
    assert "digital_source_type" not in beside(path)
    before = path.stat().st_mtime_ns
    assert draw("third", mark_ai_generated=True)["ai_mark"] is True
    assert beside(path)["digital_source_type"] == SOURCE_TYPE
    assert (path.stat().st_mtime_ns, len(pictory.submissions)) == (before, 1)


@pytest.mark.parametrize("said", SAID)
def test_a_batch_says_of_each_picture_whether_the_mark_was_written(fast, one_try, folder, said):
    fast.shape("mark", said)
    marks, source, is_marked = SAID[said]
    one_try(lamps(1))
    one_try.of_another_run("second")(lamps(2), mark_ai_generated=True)
    third = one_try.of_another_run("third")
    third(lamps(2), mark_ai_generated=True)
    pictures = third.ti.xcoms["pictures_0"]
    assert [record["ai_mark"] for record in pictures] == [is_marked, is_marked]
    for name in ("00000.png", "00001.png"):
        on_record = beside(folder / name)
        assert (on_record["marks"], on_record["digital_source_type"]) == (marks, source)
    assert len(fast.submissions) == 2


def test_a_picture_that_can_never_be_marked_is_read_for_it_once(fast, one_try, folder, monkeypatch, logged):
    fast.shape("mark", "c2pa")
    one_try(lamps(2), mark_ai_generated=True)
    monkeypatch.setattr(Target, "receive", None)
    one_try.of_another_run("second")(lamps(2), mark_ai_generated=True)
    assert "2 pictures exist without saying that AI made it" in logged()
