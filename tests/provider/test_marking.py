# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A saved picture says that a machine made it, and other programs read that."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from airflow.sdk import ObjectStoragePath
from PIL import Image

from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.images.mark import AFTER_HEADER, mark
from pictory_provider.operators.pictory import DownloadImageOperator

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
        Thread(target=server.serve_forever, daemon=True).start()
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
    assert "says something of its origin already (c2pa)" in str(warning.call_args)


@pytest.mark.usefixtures("pictory")
def test_a_jpeg_is_saved_unmarked_with_a_warning(context, serve, tmp_path, warning):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.jpg")
    plain = (tmp_path / "plain.jpg").read_bytes()
    save(context, tmp_path / "a.png", url=serve(plain))
    assert (tmp_path / "a.png").read_bytes() == plain
    assert any("only PNG files are marked" in str(call) for call in warning.call_args_list)
