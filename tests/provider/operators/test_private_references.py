# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A picture made from a private reference image is known again: by single tasks, by batches, by later releases.

``releases/0.1.0/`` holds what version 0.1.0 left beside such pictures; it is never changed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fsspec
import pytest
from airflow.sdk.io import attach

from pictory_provider.core.sidecar import Sidecar
from pictory_provider.exceptions import PictoryRequestInvalid
from pictory_provider.operators.pictory import GenerateImageOperator
from tests.driver import Attempts
from tests.provider.batches import Tries, files
from tests.stand_ins import says

LEFT = Path(__file__).parents[1] / "releases" / "0.1.0"
REFERENCE = "memory://shop@catalogue/lamp.png"
PROMPT = "The lamp, again"


@pytest.fixture(autouse=True)
def _catalogue(fast, monkeypatch):
    """Put a reference image into a storage that signs, which an Airflow connection reads."""
    storage = fsspec.filesystem("memory")
    attach("memory", conn_id="shop", fs=storage)
    signed = f"{fast.reference_image_url}?X-Amz-Signature=secret"
    monkeypatch.setattr(type(storage), "sign", lambda self, path, expiration=None, **_: signed, raising=False)
    storage.pipe_file("/catalogue/lamp.png", b"png")


@pytest.fixture
def single(folder):
    """Return a function that runs attempts of a single task that saves the first picture of the batch."""

    def make(**kwargs):
        arguments = {"prompt": PROMPT, "reference_image_url": REFERENCE, "poll_interval": 0.02, **kwargs}
        path = str(folder / "lamp-0.png")
        return GenerateImageOperator(task_id="one", path=path, deferrable=False, **arguments)

    def run(run_id="single", **kwargs):
        attempts = Attempts(make, run_id=run_id)
        attempts(**kwargs)
        return attempts.ti.xcoms["image"]

    return run


def batch(folder, run_id="many", *, rows=1, reference=REFERENCE, **kwargs):
    table = [{"sku": "lamp"}, {"sku": "lamp", "prompt": "Another {sku}"}][:rows]
    patterns = {
        "prompt": "The {sku}, again",
        "file_name": "{sku}-{index}.png",
        "reference_image_url": reference.replace("lamp", "{sku}"),
    }
    tries = Tries(folder, run_id=run_id)
    return tries(table, **patterns, **kwargs)


def left_by_the_first_release(kind, folder):
    """Write the files that version 0.1.0 left in a folder, with pictures of the recorded sizes."""
    shutil.copytree(LEFT / kind, folder)
    if (folder / "record").exists():
        (folder / "record").rename(folder / ".pictory")
        header = folder / ".pictory" / "batch.json"
        header.write_text(header.read_text().replace("FOLDER", str(folder)))
    for sidecar in folder.glob("*.png.json"):
        sidecar.with_suffix("").write_bytes(bytes(json.loads(sidecar.read_text())["size"]))


def test_a_batch_takes_the_picture_of_a_single_task(fast, folder, single):
    single()
    assert batch(folder)["reused"] == 1
    assert len(fast.submissions) == 1


def test_a_single_task_takes_the_picture_of_a_batch(fast, folder, single):
    batch(folder)
    assert single()["reused"] is True
    assert len(fast.submissions) == 1


@pytest.mark.parametrize("reference", ["memory://catalogue/lamp.png", "memory://warehouse@catalogue/lamp.png"])
def test_the_connection_that_reads_a_reference_image_decides_nothing(fast, folder, single, reference):
    attach("memory", conn_id="warehouse", fs=fsspec.filesystem("memory"))
    attach("memory", fs=fsspec.filesystem("memory"))
    batch(folder)
    assert batch(folder, "another", reference=reference)["reused"] == 1
    assert single(reference_image_url=reference)["reused"] is True
    assert len(fast.submissions) == 1


def test_the_sidecar_of_a_batch_names_the_reference_image_as_that_of_a_single_task_does(folder, single):
    batch(folder)
    of_batch = json.loads((folder / "lamp-0.png.json").read_text())
    single(overwrite=True)
    of_single = json.loads((folder / "lamp-0.png.json").read_text())
    assert of_batch["request"]["referenceImageUrl"] == "memory://catalogue/lamp.png"
    for field in ("request", "request_sha256", "fingerprint"):
        assert of_batch[field] == of_single[field]


def test_another_reference_image_makes_another_request(fast, folder, single):
    single()
    fsspec.filesystem("memory").pipe_file("/catalogue/other.png", b"png")
    with pytest.raises(PictoryRequestInvalid, match=says("the picture of another request exists there")):
        batch(folder, reference="memory://shop@catalogue/other.png")
    assert len(fast.submissions) == 1


@pytest.mark.parametrize("run_id", ["manual__2026-11-21T04:15:34+00:00", "another"])
@pytest.mark.parametrize("keeps_record", [True, False])
def test_a_batch_reuses_what_a_batch_of_the_first_release_left(fast, folder, run_id, keeps_record):
    left_by_the_first_release("batch", folder)
    if not keeps_record:
        shutil.rmtree(folder / ".pictory")
    result = batch(folder, run_id, rows=2)
    assert (result["saved"] + result["reused"], result["of"]) == (2, 2)
    assert fast.submissions == []
    assert files(folder) == [
        "failed.jsonl",
        "lamp-0.png",
        "lamp-0.png.json",
        "lamp-1.png",
        "lamp-1.png.json",
        "metadata.jsonl",
    ]


@pytest.mark.parametrize("kind", ["batch", "single"])
def test_a_single_task_reuses_what_the_first_release_left(fast, folder, single, kind):
    left_by_the_first_release(kind, folder)
    assert single()["reused"] is True
    assert fast.submissions == []


def test_a_batch_reuses_what_a_single_task_of_the_first_release_left(fast, folder):
    left_by_the_first_release("single", folder)
    assert batch(folder)["reused"] == 1
    assert fast.submissions == []


@pytest.mark.parametrize(
    "file", sorted(LEFT.rglob("*.png.json")), ids=lambda file: f"{file.parent.name} {file.name}"
)
def test_a_sidecar_of_the_first_release_is_read(file):
    assert Sidecar.from_json(file.read_bytes()).state == "saved"
