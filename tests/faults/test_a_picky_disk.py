# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests with a real disk that refuses the same names as Windows: NTFS, mounted with ``windows_names``."""

from __future__ import annotations

import subprocess

import pytest

from pictory_provider.exceptions import PictoryRequestInvalid
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.simulator import Simulator
from tests.provider.batches import Tries
from tests.stand_ins import StateStore, TaskInstance

GOOD = [
    "mug.png",
    "Gr\u00f6\u00dfe 3.png",
    "a (b) [c] & d.png",
    "console.png",
    "x/y.png",
    "m" * 190 + ".png",
    ".hidden.png",
]
BAD = ["a:b.png", "what?.png", "CON.png", "x/aux.png", "tail.", "a|b.png", 'a"b.png']


@pytest.fixture
def disk(tmp_path):
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(32 * 1024 * 1024)
    try:
        subprocess.run(["mkntfs", "-F", "-Q", str(image)], check=True, capture_output=True)
        subprocess.run(
            ["ntfs-3g", "-o", "windows_names", str(image), str(folder)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"an NTFS disk can be mounted only with ntfs-3g and /dev/fuse: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def pictory(monkeypatch):
    with Simulator(seconds=0) as pictory:
        monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(requests_per_second=100))
        yield pictory


def table(names):
    return [{"prompt": f"A mug, number {number}", "file_name": name} for number, name in enumerate(names)]


def test_names_that_a_windows_disk_refuses_are_found_before_anything_is_bought(disk, pictory):
    with pytest.raises(PictoryRequestInvalid) as refused:
        Tries(disk / "mugs")(table([*GOOD, *BAD]))
    text = str(refused.value)
    assert f"{len(BAD)} of {len(GOOD) + len(BAD)} rows" in text
    for name in BAD:
        assert f"file_name {name!r} has a name that the disk at" in text
    assert pictory.requests == []
    for name in BAD:
        with pytest.raises(PictoryRequestInvalid, match="refuses"):
            GenerateImageOperator(task_id="generate", prompt="A mug", path=f"{disk}/{name}").execute(
                {"ti": TaskInstance(), "task_state_store": StateStore()}
            )
    assert pictory.submissions == []


def test_names_that_a_windows_disk_accepts_are_bought_and_saved(disk, pictory):
    assert Tries(disk / "mugs")(table(GOOD))["saved"] == len(GOOD)
    for name in GOOD:
        assert (disk / "mugs" / name).stat().st_size > 0
    with PictoryHook() as hook:
        assert hook.get_quota().ai_credits_used == 2 * len(GOOD)
