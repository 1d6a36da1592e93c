# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Pictory's two guides, against a server that was written from them alone and shares no code with the simulator.

https://docs.pictory.ai/guides/ai-studio/text-to-image and image-from-reference, and for the upload of a local picture
https://docs.pictory.ai/api-reference/media-management/generate-signed-url.
"""

from __future__ import annotations

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit
from urllib.request import urlopen
from uuid import uuid4

import pytest
from PIL import Image, ImageOps

from pictory_provider.operators.pictory import GenerateImageOperator
from tests.driver import Attempts

KEY = "pictai_of_the_guides"


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


class Storage(BaseHTTPRequestHandler):
    """The host of files: a signed URL takes one with the right content type, and its path without query is public."""

    def log_message(self, *_):
        pass

    def do_PUT(self):
        parts = urlsplit(self.path)
        server = self.server
        content = self.rfile.read(int(self.headers["Content-Length"]))
        wanted = server.signed.get(self.path)
        if "Authorization" in self.headers or wanted != self.headers["Content-Type"]:
            self.send_error(403)
            return
        server.files[parts.path] = wanted, content
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        found = self.server.files.get(self.path)
        if found is None:
            self.send_error(403)
            return
        self.send_response(200)
        self.send_header("Content-Type", found[0])
        self.send_header("Content-Length", str(len(found[1])))
        self.end_headers()
        self.wfile.write(found[1])


class Api(BaseHTTPRequestHandler):
    """The API, as the guides tell it: submit, read the jobId, ask until the job is completed."""

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        storage = self.server.storage
        if self.headers["Authorization"] != KEY:
            self.answer(401, {"message": "Unauthorized"})
        elif self.path == "/pictoryapis/v1/media/generateurl":
            path = f"/public/teams/{uuid4()}/{body['fileName']}"
            signed = f"{path}?X-Amz-Signature={uuid4().hex}"
            storage.signed[signed] = body["contentType"]
            data = {"signedUrl": storage.url + signed, "url": storage.url + path, "key": path}
            self.answer(200, {"success": True, "data": data})
        elif self.path == "/pictoryapis/v1/aistudio/images" and 5 <= len(body["prompt"]) <= 5000:
            job_id = str(uuid4())
            picture = Image.new("RGB", (64, 64), "white")
            if url := body.get("referenceImageUrl"):
                with urlopen(url) as reply:
                    picture = ImageOps.invert(Image.open(io.BytesIO(reply.read())).convert("RGB"))
            storage.files[f"/{job_id}.png"] = "image/png", png(picture)
            self.server.jobs[job_id] = [body, picture.size, 0]
            self.answer(200, {"success": True, "data": {"jobId": job_id}})
        else:
            self.answer(400, {"code": "INVALID_REQUEST_BODY", "message": "no", "fields": []})

    def do_GET(self):
        job_id = self.path.rpartition("/")[2]
        if self.path != f"/pictoryapis/v1/jobs/{job_id}" or job_id not in self.server.jobs:
            self.answer(404, {})
            return
        job = self.server.jobs[job_id]
        job[2] += 1
        data = {"status": "in-progress"}
        if job[2] > 2:
            url = f"{self.server.storage.url}/{job_id}.png"
            data = {"status": "completed", "url": url, "width": job[1][0], "height": job[1][1], "aiCreditsUsed": 2}
        self.answer(200, {"job_id": job_id, "success": True, "data": data})


@pytest.fixture
def vendor(monkeypatch):
    """Start the server, and let ``pictory_default`` use it."""
    api, storage = (ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (Api, Storage))
    api.storage, api.jobs, storage.signed, storage.files = storage, {}, {}, {}
    for server in (api, storage):
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    connection = {"conn_type": "pictory", "host": f"{api.url}/pictoryapis", "password": KEY}
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", json.dumps(connection))
    yield api
    for server in (api, storage):
        server.shutdown()
        server.server_close()


def generate(path, **fields):
    attempts = Attempts(
        lambda: GenerateImageOperator(
            task_id="generate", path=str(path), deferrable=False, poll_interval=0.02, **fields
        )
    )
    attempts()
    return attempts.ti.xcoms["image"]


def test_text_to_image(vendor, tmp_path):
    image = generate(
        tmp_path / "a.png", prompt="A wide shot of a lighthouse", model="flux-schnell", style="artistic"
    )
    ((body, _, polls),) = vendor.jobs.values()
    assert body == {"prompt": "A wide shot of a lighthouse", "model": "flux-schnell", "style": "artistic"}
    assert (image["status"], image["width"], polls) == ("completed", 64, 3)
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_image_from_a_reference_on_this_machine(vendor, tmp_path, kind):
    reference = tmp_path / "reference.picture"
    Image.new("RGB", (48, 32), "black").save(reference, kind)
    prompt = "Replace the car in the referenced image with a bicycle. Keep the background unchanged."
    generate(tmp_path / "out" / "a.png", prompt=prompt, reference_image_url=str(reference), reference_upload=True)
    ((body, size, _),) = vendor.jobs.values()
    assert size == (48, 32)
    assert body["referenceImageUrl"].startswith(f"{vendor.storage.url}/public/teams/")
    with Image.open(tmp_path / "out" / "a.png") as picture:
        assert picture.getpixel((20, 20)) == (255, 255, 255)
