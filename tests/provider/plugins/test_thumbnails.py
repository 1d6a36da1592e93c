# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of the thumbnails in the pages: what a card loads, what is cached, and how often a file is read."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from types import SimpleNamespace
from typing import ClassVar

import fsspec
import pytest
from airflow.sdk.io import attach, store
from PIL import Image, features

from pictory_provider.plugins import saved_files, thumbnails
from pictory_provider.plugins.saved_files import Claim, NotShown
from pictory_provider.plugins.shared import SharedCopy
from pictory_provider.plugins.thumbnails import RECIPE, ThumbnailCache

BASE = "covers/run%2B1/group.generate/-1/image"


def picture(width=640, height=400, kind="PNG", colour="teal", mode="RGB", **options):
    file = io.BytesIO()
    Image.new(mode, (width, height), colour).save(file, kind, **options)
    return file.getvalue()


def size_of(data):
    return Image.open(io.BytesIO(data)).size


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def recorded(path, data=None):
    """Return what a record says about a file."""
    data = path.read_bytes() if data is None else data
    return {"path": str(path), "size": len(data), "sha256": sha256(data)}


def copy(path, data):
    path.write_bytes(data)
    width, height = size_of(data)
    return recorded(path) | {"format": path.suffix[1:], "width": width, "height": height}


@pytest.fixture
def shown(web, monkeypatch, tmp_path):
    """Return the record of a saved picture, and a function that requests its thumbnail."""
    web.allow()
    (tmp_path / "a.png").write_bytes(picture())
    record = recorded(tmp_path / "a.png") | {"width": 640, "height": 400}
    monkeypatch.setattr(web.module.xcoms, "read_xcom", lambda **_: record)

    def get(kind="thumbnail", **headers):
        return web.client.get(f"/{kind}/{BASE}/{record['sha256']}", headers=headers)

    return SimpleNamespace(record=record, get=get, cache=web.module.thumbnail_cache())


@pytest.fixture
def conversions(monkeypatch):
    """Return the pictures that are converted, each time."""
    seen, convert = [], thumbnails.convert

    def counted(data, *which, **how):
        seen.append(sha256(data))
        return convert(data, *which, **how)

    monkeypatch.setattr(thumbnails, "convert", counted)
    return seen


@pytest.fixture
def hashed(monkeypatch):
    """Return the sizes of what is hashed of saved files."""
    sizes = []

    class Counting:
        def __init__(self, data=b""):
            self._digest = hashlib.sha256()
            self.update(data)

        def update(self, data):
            if data:
                sizes.append(len(data))
            self._digest.update(data)

        def hexdigest(self):
            return self._digest.hexdigest()

    monkeypatch.setattr(saved_files, "hashlib", SimpleNamespace(sha256=Counting))
    return sizes


@pytest.fixture
def settled(monkeypatch):
    """Let files count as settled as soon as they are written."""
    monkeypatch.setattr(saved_files, "SETTLED", -3_600)


# What a card loads


def test_a_card_gets_a_webp_of_320_pixels_with_the_headers_of_a_file(shown):
    reply, file = shown.get(), shown.get("file")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/webp")
    assert size_of(reply.content) == (320, 200)
    for name in (
        "content-security-policy",
        "x-content-type-options",
        "referrer-policy",
        "cross-origin-resource-policy",
        "cache-control",
        "vary",
    ):
        assert reply.headers[name] == file.headers[name], name
    assert size_of(file.content) == (640, 400)


def test_a_small_picture_is_not_enlarged(shown, tmp_path):
    (tmp_path / "a.png").write_bytes(picture(100, 50))
    shown.record |= recorded(tmp_path / "a.png") | {"width": 100}
    assert size_of(shown.get().content) == (100, 50)


def test_a_thumbnail_that_the_browser_has_is_not_sent_again_but_its_path_is_checked(shown):
    etag = shown.get().headers["etag"]
    assert shown.get("file").headers["etag"] != etag
    for known in (etag, f"W/{etag}"):
        reply = shown.get(**{"If-None-Match": known})
        assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", etag)
    shown.record["path"] = "/etc/passwd"
    assert shown.get(**{"If-None-Match": etag}).status_code == 404


def test_a_card_gets_the_smallest_copy_that_is_large_enough(shown, tmp_path, conversions):
    small = copy(tmp_path / "a.160.webp", picture(160, 100, "WEBP"))
    fitting = copy(tmp_path / "a.400.jpeg", picture(400, 250, "JPEG", quality=30))
    large = copy(tmp_path / "a.600.webp", picture(600, 375, "WEBP") + bytes(50_000))
    shown.record |= {"copies": [large, small, fitting], "size": 10**6, "sha256": "0" * 64}
    reply = shown.get()
    assert reply.headers["content-type"] == "image/jpeg"
    assert sha256(reply.content) == fitting["sha256"]
    assert shown.get(**{"If-None-Match": reply.headers["etag"]}).status_code == 304
    assert conversions == []


def test_a_copy_as_wide_as_a_narrow_picture_is_large_enough(shown, tmp_path):
    narrow = copy(tmp_path / "a.200.webp", picture(200, 125, "WEBP"))
    shown.record |= {"copies": [narrow], "width": 200}
    assert sha256(shown.get().content) == narrow["sha256"]


@pytest.fixture
def without_pillow(monkeypatch):
    """Return a function that makes Pillow impossible to import."""

    def hide():
        for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "PIL", None)

    return hide


@pytest.mark.parametrize("has_pillow", [True, False])
def test_a_heavy_copy_is_sent_only_if_no_thumbnail_can_be_made(shown, tmp_path, without_pillow, has_pillow):
    heavy = copy(tmp_path / "a.600.webp", picture(600, 375, "WEBP") + bytes(thumbnails.MOST_OF_A_COPY))
    shown.record |= {"copies": [heavy], "size": 10**6}
    (tmp_path / "a.png").write_bytes(picture() + bytes(10**6 - len(picture())))
    shown.record["sha256"] = sha256((tmp_path / "a.png").read_bytes())
    if has_pillow:
        assert size_of(shown.get().content)[0] == 320
    else:
        without_pillow()
        assert sha256(shown.get().content) == heavy["sha256"]


@pytest.mark.parametrize("wrong", ["outside", "link", "missing", "digest", "size", "path", "kind", "no dict"])
def test_a_copy_that_may_not_be_shown_is_replaced_by_a_thumbnail(shown, tmp_path, tmp_path_factory, wrong):
    outside = tmp_path_factory.mktemp("outside") / "secret.webp"
    outside.write_bytes(picture(330, 200, "WEBP", "red"))
    (tmp_path / "link.webp").symlink_to(outside)
    (tmp_path / "text.webp").write_bytes(b"<html>" + b"x" * 50)
    right = copy(tmp_path / "a.330.webp", picture(330, 200, "WEBP", "blue"))
    copies = {
        "outside": recorded(outside),
        "link": recorded(outside) | {"path": str(tmp_path / "link.webp")},
        "missing": right | {"path": str(tmp_path / "nothing.webp")},
        "digest": right | {"sha256": "0" * 64},
        "size": right | {"size": right["size"] - 1},
        "path": right | {"path": 3},
        "kind": recorded(tmp_path / "text.webp"),
    }
    shown.record["copies"] = ["text"] if wrong == "no dict" else [{"width": 330} | copies[wrong]]
    reply = shown.get()
    assert reply.headers["etag"] == f'"{shown.record["sha256"]}-{RECIPE}"'
    assert Image.open(io.BytesIO(reply.content)).convert("RGB").getpixel((9, 9))[1] > 100  # teal


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
def test_an_avif_copy_is_sent_only_to_a_browser_that_shows_avif(shown, tmp_path):
    shown.record["copies"] = [copy(tmp_path / "a.320.avif", picture(320, 200, "AVIF"))]
    assert shown.get(Accept="image/webp,*/*").headers["content-type"] == "image/webp"
    reply = shown.get(Accept="image/avif,image/webp,*/*")
    assert reply.headers["content-type"] == "image/avif"
    assert "Accept" in reply.headers["vary"]
    (tmp_path / "a.png").write_bytes((tmp_path / "a.320.avif").read_bytes())
    shown.record |= recorded(tmp_path / "a.png")
    assert shown.get("file", Accept="image/avif").status_code == 404  # Pictory makes none


# What is not shown


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_thumbnail_is_shown_only_if_the_file_is_the_recorded_one(
    shown, web, tmp_path, tmp_path_factory, settled, is_cached
):
    outside = tmp_path_factory.mktemp("outside") / "a.png"
    outside.write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "link.png").symlink_to(outside)
    theirs = tmp_path / "theirs.png"
    theirs.write_bytes(picture(colour="red"))
    if is_cached:
        shown.get()
    for path in (outside, tmp_path / "link.png", theirs, tmp_path / "nothing.png"):
        shown.record["path"] = str(path)
        assert shown.get().status_code == 404, path
    shown.record["path"] = str(tmp_path / "a.png")
    assert shown.get().status_code == 200
    (tmp_path / "a.png").unlink()
    assert shown.get().status_code == 404


def test_a_folder_that_is_replaced_by_a_link_meanwhile_is_not_followed(shown, tmp_path, monkeypatch):
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    elsewhere.mkdir()
    (tmp_path / "below").mkdir()
    for folder in (tmp_path / "below", elsewhere):
        (folder / "a.png").write_bytes((tmp_path / "a.png").read_bytes())
    shown.record["path"] = str(tmp_path / "below" / "a.png")
    location = saved_files.locate(shown.record["path"], [str(tmp_path)])
    (tmp_path / "below" / "a.png").unlink()
    (tmp_path / "below").rmdir()
    (tmp_path / "below").symlink_to(elsewhere)
    monkeypatch.setattr(saved_files, "locate", lambda *_: location)
    assert shown.get().status_code == 404


def test_a_file_that_changes_while_its_thumbnail_is_made_leads_to_no_wrong_thumbnail(shown, tmp_path, monkeypatch):
    """The thumbnail is made of the bytes that were compared with the record."""
    other = picture(colour="red")
    length = max(len(other), shown.record["size"])
    (tmp_path / "a.png").write_bytes(picture().ljust(length, b"\0"))
    shown.record |= recorded(tmp_path / "a.png")
    identity = saved_files._identity

    def changed(*which):
        found = identity(*which)
        (tmp_path / "a.png").write_bytes(other.ljust(length, b"\0"))
        return found

    monkeypatch.setattr(saved_files, "_identity", changed)
    assert shown.get().status_code == 404
    assert shown.cache.get(shown.record["sha256"]) is None


def of_many_pixels():
    return picture(8_192, 5_000, mode="1", colour=1)


def with_a_false_size():
    data = bytearray(picture())
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def broken():
    return b"\x89PNG\r\n\x1a\n and the rest of it"


@pytest.mark.parametrize("made", [of_many_pixels, with_a_false_size, broken])
def test_a_picture_that_is_too_large_or_broken_is_sent_as_it_is_and_decoded_never(
    shown, tmp_path, monkeypatch, conversions, made
):
    decoded = []
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: decoded.append(image.size))
    (tmp_path / "a.png").write_bytes(made())
    shown.record |= recorded(tmp_path / "a.png")
    for _ in range(3):
        reply = shown.get()
        assert (reply.content, reply.headers["content-type"]) == (made(), "image/png")
        assert shown.get(**{"If-None-Match": reply.headers["etag"]}).status_code == 304
    assert decoded == []
    assert len(conversions) == 1


def test_without_pillow_a_card_gets_the_whole_picture(shown, without_pillow, caplog):
    caplog.set_level("INFO")
    without_pillow()
    for _ in range(2):
        reply = shown.get()
        assert (reply.content, reply.headers["content-type"]) == (shown.get("file").content, "image/png")
    assert caplog.text.count("airflow-provider-pictory[images]") >= 1
    assert len([each for each in caplog.records if each.name == thumbnails.__name__]) == 1


def test_without_enough_memory_a_card_gets_the_whole_picture_and_later_a_thumbnail(shown, monkeypatch):
    convert = thumbnails.convert

    def fails(*_, **__):
        monkeypatch.setattr(thumbnails, "convert", convert)
        raise MemoryError

    monkeypatch.setattr(thumbnails, "convert", fails)
    assert size_of(shown.get().content) == (640, 400)
    assert size_of(shown.get().content) == (320, 200)


# The cache


def test_a_thumbnail_is_made_once_and_kept_in_a_private_folder(shown, web, conversions):
    first = shown.get().content
    web.module.maker = thumbnails.ThumbnailMaker()
    saved_files.verified.clear()  # as in another process
    assert shown.get().content == first
    assert len(conversions) == 1
    (file,) = shown.cache._folder.iterdir()
    assert (file.name, file.read_bytes()) == (f"{shown.record['sha256']}.{RECIPE}.webp", first)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_cache_is_in_airflows_home_unless_the_option_names_another_folder(web, monkeypatch):
    monkeypatch.setattr(web.module, "AIRFLOW_HOME", "/srv/airflow")
    monkeypatch.delenv("AIRFLOW__PICTORY__THUMBNAIL_CACHE")
    assert str(web.module.thumbnail_cache()._folder) == "/srv/airflow/pictory-thumbnails"
    monkeypatch.setenv("AIRFLOW__PICTORY__THUMBNAIL_CACHE", "/var/cache/pictures")
    assert str(web.module.thumbnail_cache()._folder) == "/var/cache/pictures"


def test_without_a_cache_thumbnails_are_made_each_time(shown, monkeypatch, tmp_path, conversions, caplog):
    monkeypatch.setenv("AIRFLOW__PICTORY__THUMBNAIL_CACHE", str(tmp_path / "a.png" / "below"))
    for _ in range(3):
        assert size_of(shown.get().content) == (320, 200)
    assert len(conversions) == 3
    assert caplog.text.count("their cache cannot be used") == 1


def test_a_folder_that_others_may_write_is_not_used(shown, monkeypatch, tmp_path, conversions):
    theirs = tmp_path.with_name(f"{tmp_path.name}-of-all")
    theirs.mkdir()
    theirs.chmod(0o777)
    planted = picture(9, 9, "WEBP")
    (theirs / f"{shown.record['sha256']}.{RECIPE}.webp").write_bytes(planted)
    monkeypatch.setenv("AIRFLOW__PICTORY__THUMBNAIL_CACHE", str(theirs))
    assert shown.get().content != planted
    assert len(conversions) == 1
    assert len(list(theirs.iterdir())) == 1


def test_a_cut_file_in_the_cache_is_made_anew(shown, conversions):
    whole = shown.get().content
    (file,) = shown.cache._folder.iterdir()
    for cut in (b"", whole[:-1], whole + b"x"):
        file.write_bytes(cut)
        assert shown.get().content == whole
    assert len(conversions) == 4


def webp(size, fill=b"\0"):
    return b"RIFF" + struct.pack("<I", size - 8) + fill * (size - 8)


def test_the_cache_is_bounded_and_loses_the_oldest(tmp_path):
    caches = [ThumbnailCache(str(tmp_path / "cache"), most_bytes=16_000) for _ in range(2)]  # of two processes
    for number in range(60):
        name = f"{number:064x}"
        caches[number % 2].put(name, webp(1_000))
        os.utime(caches[0]._file(name), (number, number))
    caches[0].put("f" * 64, webp(1_000))
    assert sum(file.stat().st_size for file in (tmp_path / "cache").iterdir()) <= 16_000
    assert [number for number in range(60) if caches[1].get(f"{number:064x}")] == list(range(46, 60))
    assert caches[1].get("f" * 64)


def test_the_cache_removes_only_its_own_files(tmp_path):
    cache = ThumbnailCache(str(tmp_path), most_bytes=1_600)
    tmp_path.chmod(0o700)
    (tmp_path / "a picture.webp").write_bytes(bytes(100_000))
    (tmp_path / ".old.part").write_bytes(b"of a process that has died")
    os.utime(tmp_path / ".old.part", (1, 1))
    (tmp_path / ".new.part").write_bytes(b"of a process that writes it now")
    cache.put("0" * 64, webp(1_000))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        ".new.part",
        f"{'0' * 64}.{RECIPE}.webp",
        "a picture.webp",
    ]


# How often, and how many at a time


def test_at_most_two_thumbnails_are_made_at_a_time(web, monkeypatch, tmp_path, until):
    active, most, lock, go = [], [], Lock(), Event()

    def slow(data, specs, **_):
        with lock:
            active.append(1)
            most.append(len(active))
        assert go.wait(30)
        with lock:
            active.pop()
        return [SimpleNamespace(data=webp(100))]

    monkeypatch.setattr(thumbnails, "convert", slow)
    cache, maker = ThumbnailCache(str(tmp_path / "cache")), web.module.maker
    claims = []
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(picture(9 + number, 9))
        claims.append(Claim.from_record(recorded(tmp_path / f"{number}.png")))
    made = [maker.make(claim, [str(tmp_path)], cache) for claim in claims]
    until(lambda: len(active) == 2)
    go.set()
    assert {each.result(30) for each in made} == {webp(100)}
    assert max(most) == 2


def test_many_requests_for_one_thumbnail_make_it_once(shown, web, conversions):
    with web.client, ThreadPoolExecutor(40) as many:
        replies = list(many.map(lambda _: shown.get(), range(120)))
    assert {(reply.status_code, reply.content) for reply in replies} == {(200, shown.get().content)}
    assert len(conversions) == 1


def test_a_file_is_hashed_once_for_many_requests(shown, web, settled, hashed):
    with web.client, ThreadPoolExecutor(40) as many:
        replies = list(many.map(lambda _: shown.get("file"), range(120)))
    assert {reply.status_code for reply in replies} == {200}
    assert hashed == [shown.record["size"]]


def test_a_file_is_hashed_when_its_thumbnail_is_made_and_never_again(shown, settled, hashed):
    for _ in range(5):
        assert shown.get().status_code == 200
        assert shown.get("file").status_code == 200
    assert hashed == [shown.record["size"]]


def test_a_file_that_was_written_just_now_is_hashed_each_time(shown, monkeypatch, hashed):
    """A second change in the same moment may leave its times as they are."""
    monkeypatch.setattr(saved_files, "SETTLED", 3_600)
    for _ in range(3):
        assert shown.get("file").status_code == 200
    assert hashed == 3 * [shown.record["size"]]


def test_a_file_that_is_changed_in_place_is_noticed_though_its_size_and_time_are_the_same(
    shown, tmp_path, settled, until
):
    file = tmp_path / "a.png"
    before = file.stat()
    assert shown.get("file").status_code == shown.get().status_code == 200

    def change():
        with file.open("r+b") as content:
            content.seek(-1, os.SEEK_END)
            content.write(b"\0")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        return file.stat().st_ctime_ns != before.st_ctime_ns

    until(change)
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert shown.get("file").status_code == 404
    assert shown.get().status_code == 404


def test_another_digest_of_a_verified_file_is_refused(tmp_path, settled):
    (tmp_path / "a.png").write_bytes(picture())
    right = Claim.from_record(recorded(tmp_path / "a.png"))
    saved_files.check_picture(right, [str(tmp_path)])
    with pytest.raises(NotShown, match="not the recorded picture"):
        saved_files.check_picture(right._replace(sha256="0" * 64), [str(tmp_path)])
    saved_files.check_picture(right, [str(tmp_path)])


def test_verified_files_are_forgotten_in_the_end(monkeypatch):
    from pictory_provider.plugins import shared

    monkeypatch.setattr(shared, "MOST_VERIFIED", 3)
    known = shared.Verified()
    for number in range(4):
        known.add(number, "0", "image/png")
        known.get(0, "0")
    assert [number for number in range(4) if known.get(number, "0")] == [0, 2, 3]


# Object storage


class Versioned(fsspec.get_filesystem_class("memory")):
    """A storage in memory whose objects have versions. It counts how often an object is read."""

    store, pseudo_dirs, cachable = {}, [""], False  # type: ignore[var-annotated]
    has_versions = True
    reads: ClassVar = []

    def info(self, path, **options):
        found = super().info(path, **options)
        return found | {"ETag": sha256(super().cat_file(path))} if self.has_versions else found

    def open(self, path, mode="rb", **options):
        if mode == "rb":
            self.reads.append(path)
        return super().open(path, mode, **options)

    def cat_file(self, path, **options):
        self.reads.append(path)
        return super().cat_file(path, **options)


@pytest.fixture
def bucket(shown, monkeypatch):
    """Return a storage with the shown picture."""
    monkeypatch.setattr(store, "_STORE_CACHE", {})
    storage = Versioned()
    attach("memory", fs=storage)
    storage.pipe_file("/media/a.png", picture())
    shown.record["path"] = "memory://media/a.png"
    monkeypatch.setenv("AIRFLOW__PICTORY__GALLERY_PATHS", "memory://media")
    storage.reads.clear()
    return storage


def test_an_object_of_a_known_version_is_not_read_again_for_its_thumbnail(shown, bucket):
    for _ in range(5):
        assert size_of(shown.get().content) == (320, 200)
    assert len(bucket.reads) <= 2
    bucket.pipe_file("/media/a.png", picture(colour="red").ljust(shown.record["size"], b"\0"))
    assert shown.get().status_code == 404


def test_an_object_without_versions_is_read_each_time(shown, bucket, monkeypatch):
    monkeypatch.setattr(Versioned, "has_versions", False)
    for _ in range(3):
        assert size_of(shown.get().content) == (320, 200)
    assert len(bucket.reads) >= 3
    bucket.pipe_file("/media/a.png", picture(colour="red"))
    assert shown.get().status_code == 404


def test_concurrent_requests_for_an_object_share_one_temporary_copy(shown, bucket):
    claim = Claim.from_record(shown.record)
    readers = [saved_files.open_picture(claim, ["memory://media"])[0] for _ in range(120)]
    assert len(bucket.reads) == 1
    assert {reader.read() for reader in readers} == {picture()}
    for reader in readers:
        reader.close()
    assert SharedCopy.used == {}
    saved_files.open_picture(claim, ["memory://media"])[0].close()
    assert len(bucket.reads) == 2
