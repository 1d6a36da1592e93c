# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that the pages in Airflow show only saved files that are allowed and match the task's record."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zlib

import pytest

from pictory_provider.plugins import saved_files
from pictory_provider.plugins.saved_files import (
    Claim,
    NotShown,
    chunks,
    find_record,
    locate,
    media_type,
    open_picture,
)


def png(text=b"a"):
    chunk = b"tEXt" + text
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(text)) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.fixture
def covers(tmp_path):
    folder = tmp_path / "covers"
    folder.mkdir()
    return folder


def claim(file, content=None, **other):
    content = file.read_bytes() if content is None else content
    return Claim.from_record(
        {"path": str(file), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()} | other
    )


def read(claimed, *allowed):
    file, kind = open_picture(claimed, [str(entry) for entry in allowed])
    return b"".join(chunks(file, claimed.size)), kind


def test_a_file_below_an_allowed_folder_is_shown(covers):
    (covers / "2026").mkdir()
    file = covers / "2026" / "a.png"
    file.write_bytes(png())
    assert read(claim(file), "/somewhere/else", covers) == (png(), "image/png")
    assert read(claim(file), f"{covers}/") == (png(), "image/png")


def test_nothing_is_allowed_by_default(covers):
    (covers / "a.png").write_bytes(png())
    with pytest.raises(NotShown, match="no entry"):
        open_picture(claim(covers / "a.png"), [])


@pytest.mark.parametrize(
    "path",
    [
        "{covers}/../secret.png",
        "{covers}/x/../a.png",
        "{covers}\\..\\secret.png",
        "{outside}/secret.png",
        "{covers}-of-another/secret.png",
        "{covers}",
        "file://{covers}/a.png",
        "file:{covers}/a.png",
        "covers/a.png",
        "~/a.png",
        "{covers}/a.png\0.png",
        "{covers}/\ud800.png",
        "{covers}" + "/a" * 3_000,
        "http://127.0.0.1/a.png",
        "s3://media/a.png",
        "",
    ],
)
def test_no_other_path_is_shown(covers, tmp_path, path):
    (covers / "a.png").write_bytes(png())
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "covers-of-another").mkdir()
    (tmp_path / "covers-of-another" / "secret.png").write_bytes(png())
    named = path.format(covers=covers, outside=tmp_path)
    with pytest.raises(NotShown):
        open_picture(claim(covers / "a.png", path=named), [str(covers)])


@pytest.mark.parametrize("entry", ["/", "//", "", "relative", "file:///", "file://{covers}"])
def test_an_entry_that_is_not_a_single_folder_allows_nothing(covers, entry):
    (covers / "a.png").write_bytes(png())
    with pytest.raises(NotShown):
        open_picture(claim(covers / "a.png"), [entry.format(covers=covers)])


def test_a_link_out_of_the_folder_is_not_followed_and_a_link_into_it_is(covers, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    (covers / "out.png").symlink_to(secret)
    (tmp_path / "in.png").symlink_to(covers / "a.png")
    (covers / "a.png").write_bytes(png())
    with pytest.raises(NotShown, match="no entry"):
        open_picture(claim(covers / "out.png"), [str(covers)])
    assert read(claim(tmp_path / "in.png"), covers) == (png(), "image/png")


def test_an_allowed_folder_may_be_a_link_itself(covers, tmp_path):
    (tmp_path / "link").symlink_to(covers)
    (covers / "a.png").write_bytes(png())
    assert read(claim(tmp_path / "link" / "a.png"), tmp_path / "link")[1] == "image/png"


def test_a_link_created_after_the_path_was_resolved_is_not_followed(covers, tmp_path, monkeypatch):
    (covers / "below").mkdir()
    (covers / "below" / "a.png").write_bytes(png())
    claimed = claim(covers / "below" / "a.png")
    location = locate(claimed.path, [str(covers)])
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.png").write_bytes(png())
    for name in ("a.png",):
        (covers / "below" / name).unlink()
    (covers / "below").rmdir()
    (covers / "below").symlink_to(tmp_path / "below")
    monkeypatch.setattr(saved_files, "locate", lambda *_: location)
    with pytest.raises(NotShown, match="cannot be read"):
        open_picture(claimed, [str(covers)])


def test_another_tasks_picture_is_not_shown_without_its_digest(covers):
    (covers / "theirs.png").write_bytes(png(b"theirs"))
    mine = png(b"mine!!")
    assert len(mine) == len(png(b"theirs"))
    with pytest.raises(NotShown, match="not the recorded picture"):
        open_picture(claim(covers / "theirs.png", mine), [str(covers)])


def test_a_file_that_is_not_a_picture_is_not_shown(covers):
    for content in (
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>",
        b"<html>",
        b"GIF89a" + b"\0" * 20,
        b"\x89PN",
    ):
        (covers / "a.png").write_bytes(content)
        with pytest.raises(NotShown, match="neither PNG"):
            open_picture(claim(covers / "a.png"), [str(covers)])


def test_jpeg_and_webp_are_recognised_by_their_first_bytes():
    assert media_type(b"\xff\xd8\xff\xe0rest") == "image/jpeg"
    assert media_type(b"RIFF\x00\x00\x00\x00WEBPVP8 ") == "image/webp"
    assert media_type(b"RIFF\x00\x00\x00\x00WAVEfmt ") is None


def test_a_file_that_is_too_large_is_not_read(covers, monkeypatch):
    file = covers / "large.png"
    with file.open("wb") as large:
        large.write(png())
        large.truncate(200 * 1024 * 1024)
    with pytest.raises(NotShown, match="is invalid"):
        Claim.from_record({"path": str(file), "size": 200 * 1024 * 1024, "sha256": "0" * 64})
    monkeypatch.setattr(saved_files.hashlib, "sha256", None)  # not one byte is read, whatever size is claimed
    with pytest.raises(NotShown, match="not a regular file of the recorded size"):
        open_picture(Claim(str(file), 5, "0" * 64), [str(covers)])


def test_a_pipe_does_not_block(covers):
    os.mkfifo(covers / "pipe.png")
    assert stat.S_ISFIFO(os.stat(covers / "pipe.png").st_mode)
    with pytest.raises(NotShown):
        open_picture(Claim(str(covers / "pipe.png"), 5, "0" * 64), [str(covers)])


@pytest.mark.parametrize(
    "record",
    [
        None,
        "text",
        [],
        {},
        {"path": "/a.png"},
        {"path": "/a.png", "size": True, "sha256": "0" * 64},
        {"path": "/a.png", "size": 0, "sha256": "0" * 64},
        {"path": "/a.png", "size": -1, "sha256": "0" * 64},
        {"path": "/a.png", "size": 5, "sha256": "0" * 63},
        {"path": "/a.png", "size": 5, "sha256": ["0" * 64]},
        {"path": ["/a.png"], "size": 5, "sha256": "0" * 64},
    ],
)
def test_a_record_that_does_not_describe_a_file_is_rejected(record):
    with pytest.raises(NotShown):
        Claim.from_record(record)


def test_a_record_of_a_list_is_found_by_its_digest():
    one, other = {"sha256": "1"}, {"sha256": "2"}
    assert find_record([one, other], "2") is other
    assert find_record(one, "1") is one
    for value in ([one], one, [], None, "2", [None, "2"]):
        assert find_record(value, "2") is None


def test_an_object_is_allowed_only_by_whole_names():
    allowed = ["s3://media/covers"]
    assert locate("s3://media/covers/a.png", allowed) == "s3://media/covers/a.png"
    for path in (
        "s3://media/covers-of-another/a.png",
        "s3://media/covers/../a.png",
        "gs://media/covers/a.png",
        "s3://media/covers",
    ):
        with pytest.raises(NotShown):
            locate(path, allowed)
