#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# Guess, from memory: the same Pillow gives the same AVIF of the same pixels on every machine with the same processor: the
# number of threads changes how long it takes. And what Pillow writes, Pillow reads.
#
# Seen with Pillow 13.0.0, whose encoder is libaom 3.14 (the first three need two CPUs):
# - on one CPU and on two the file is another one, and so are many of its pixels: the number of threads is the number of
#   CPUs that the process may use, unless `max_threads` says otherwise;
# - with `max_threads=1` it is the same file on one CPU and on two, and it is that of one CPU;
# - WebP, JPEG and PNG are the same on one CPU and on two;
# - a picture with a side of 32,769 pixels is written without an error, and cannot be opened; one with 32,768 can.
#
# What this project does about it: `max_threads=1`, which does not take longer on a busy machine, and no side above
# 32,768 pixels (`storage/copies.py`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0
cat >"$folder/write.py" <<'PYTHON'
"""Write a picture on the CPUs of the first argument, in all formats, and print their digests."""

import hashlib
import io
import json
import os
import random
import sys

os.sched_setaffinity(0, json.loads(sys.argv[1]))
from PIL import Image, ImageFilter

noise = Image.frombytes("RGB", (800, 600), random.Random(1).randbytes(800 * 600 * 3))
picture = Image.blend(noise.filter(ImageFilter.GaussianBlur(5)), noise, 0.15)
ways = {"AVIF": {}, "AVIF, max_threads=1": {"max_threads": 1}, "WEBP": {}, "JPEG": {}, "PNG": {}}
made = {}
for way, options in ways.items():
    file = io.BytesIO()
    picture.save(file, way.split(",")[0], **options)
    pixels = Image.open(io.BytesIO(file.getvalue())).convert("RGB").tobytes()
    made[way] = [hashlib.sha256(file.getvalue()).hexdigest(), pixels.hex() if way == "AVIF" else ""]
print(json.dumps(made))
PYTHON
cat >"$folder/look.py" <<'PYTHON'
import io
import json
import os
import subprocess
import sys

import PIL
from PIL import Image, UnidentifiedImageError

print("Pillow", PIL.__version__)
cpus = sorted(os.sched_getaffinity(0))
if len(cpus) < 2:
    sys.exit("this needs two CPUs")


def write(some):
    done = subprocess.run([sys.executable, sys.argv[1], json.dumps(some)], capture_output=True, check=True)
    return json.loads(done.stdout)


one, again, two = write(cpus[:1]), write(cpus[1:2]), write(cpus[:2])
assert one == again, "two CPUs, one at a time, agree"
same = {way: one[way][0] == two[way][0] for way in one}
a, b = bytes.fromhex(one["AVIF"][1]), bytes.fromhex(two["AVIF"][1])
differ = sum(a[at : at + 3] != b[at : at + 3] for at in range(0, len(a), 3)) / (len(a) / 3)
for way, is_same in same.items():
    print(f"{way:<22}{'the same' if is_same else 'another'} file on one CPU and on two")
print(f"of the pixels of the AVIF, {differ:.0%} differ")
assert same == {"AVIF": False, "AVIF, max_threads=1": True, "WEBP": True, "JPEG": True, "PNG": True}, same
assert one["AVIF"][0] == one["AVIF, max_threads=1"][0]
assert differ > 0.05, differ


def reopened(width):
    file = io.BytesIO()
    Image.new("RGB", (width, 1)).save(file, "AVIF", max_threads=1)
    try:
        return Image.open(io.BytesIO(file.getvalue())).width
    except UnidentifiedImageError as error:
        return type(error).__name__


seen = {width: reopened(width) for width in (32_768, 32_769)}
for width, what in seen.items():
    print(f"AVIF, {width:,} pixels wide: {what}")
assert seen == {32_768: 32_768, 32_769: "UnidentifiedImageError"}, seen
PYTHON
"$folder/venv/bin/python" "$folder/look.py" "$folder/write.py"
