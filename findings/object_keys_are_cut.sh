#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# Guess, from memory: the path of a UPath is the URL without its scheme, whatever characters the key has, since keys of
# object storages may have any; and only a file system that was told to be version-aware reads a version in a key.
#
# Seen with universal_pathlib 0.3.10, fsspec 2026.9.0, s3fs 2026.9.0, gcsfs 2026.10.0, adlfs 2026.8.0:
# - `str()` and `.path` disagree: "s3://bucket/mug::red.png" has the path "bucket/mug", for S3, Google and Azure alike.
#   Two names that differ behind `::` are one object.
# - For Azure alone a tab, a last line break and a last `?` are dropped from the path, silently.
# - `split_path` cuts "?versionId=3" in s3fs and "?versionid=3" in adlfs, each in its own spelling alone, without being
#   version-aware; gcsfs cuts neither.
#
# No request is sent.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check universal_pathlib==0.3.10 fsspec==2026.9.0 \
    s3fs==2026.9.0 gcsfs==2026.10.0 adlfs==2026.8.0
cat >"$folder/look.py" <<'PYTHON'
import adlfs
import gcsfs
import s3fs
from upath import UPath

options = {"s3": {"anon": True}, "gs": {"token": "anon"}, "abfs": {"account_name": "x", "anon": True}}
names = ("mug::red.png", "a\tb.png", "a.png?", "a?b.png", "a#b.png")
seen = {}
for scheme, more in options.items():
    for name in names:
        path = UPath(f"{scheme}://bucket/{name}", **more)
        seen[scheme, name] = path.path.removeprefix("bucket/")
        print(f"{scheme:<5} {str(path)!r:<32} path {path.path!r}")
cut = {key: value for key, value in seen.items() if value != key[1]}
assert cut == {
    ("s3", "mug::red.png"): "mug",
    ("gs", "mug::red.png"): "mug",
    ("abfs", "mug::red.png"): "mug",
    ("abfs", "a\tb.png"): "ab.png",
    ("abfs", "a.png?"): "a.png",
}, cut
systems = (
    s3fs.S3FileSystem(anon=True),
    gcsfs.GCSFileSystem(token="anon"),
    adlfs.AzureBlobFileSystem(account_name="x", anon=True),
)
keys = {}
for system in systems:
    for name in ("a.png?versionId=3", "a.png?versionid=3"):
        keys[system.protocol[0] if isinstance(system.protocol, tuple) else system.protocol, name] = key = (
            system.split_path(f"bucket/{name}")[1]
        )
        print(f"{type(system).__name__:<22} {name:<18} key {key!r}")
assert sorted(name for name, key in keys.items() if key == "a.png") == [
    ("abfs", "a.png?versionid=3"),
    ("s3", "a.png?versionId=3"),
], keys
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
echo "As seen."
