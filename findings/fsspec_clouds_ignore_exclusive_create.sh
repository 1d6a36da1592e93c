#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# Guess, from memory: a client of an object storage that takes `mode="create"` for an exclusive write either honours it
# or refuses the argument; and a parameter that boto does not know is an error, as it is in boto3.
#
# Seen with an S3 of moto, and boto3 as the independent reader:
# - s3fs 2024.6.0 (botocore 1.34.106, moto 5.0.28): `pipe_file(..., mode="create")` and `put_file(..., mode="create")` overwrite the
#   existing object without a word, and `IfMatch="another"` is dropped without a word, in `call_s3` as well;
# - s3fs 2026.9.0 (botocore 1.43.117, moto 5.2.5): `mode="create"` raises FileExistsError; but from 100 MiB on, `IfMatch` and
#   `IfNoneMatch` given to `pipe_file` are dropped and the object is overwritten; `mode="create"` holds there.
#
# Servers listen on loopback only.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=a AWS_DEFAULT_REGION=us-east-1 NO_PROXY=127.0.0.1
cat >"$folder/look.py" <<'PYTHON'
import logging
import sys

import boto3
import s3fs
from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
url = f"http://{host}:{port}"
reader = boto3.client("s3", endpoint_url=url)
reader.create_bucket(Bucket="pictures")
fs = s3fs.S3FileSystem(endpoint_url=url)
large = b"2" * (101 * 2**20)


def after(key, write):
    """Return what is stored after somebody has written beside an existing object, and what the writer was told."""
    reader.put_object(Bucket="pictures", Key=key, Body=b"1")
    try:
        write(f"pictures/{key}")
        told = "nothing"
    except Exception as error:
        told = type(error).__name__
    stored = reader.get_object(Bucket="pictures", Key=key)["Body"].read(1)
    return f"{'overwritten' if stored == b'2' else 'kept'}, told {told}"


file = f"{sys.argv[1]}/two"
with open(file, "wb") as out:
    out.write(b"2")
seen = {
    "pipe_file, create": after("a", lambda path: fs.pipe_file(path, b"2", mode="create")),
    "put_file, create": after("b", lambda path: fs.put_file(file, path, mode="create")),
    "pipe_file, IfMatch": after("c", lambda path: fs.pipe_file(path, b"2", IfMatch='"another"')),
    "call_s3, IfMatch": after(
        "d", lambda _: fs.call_s3("put_object", Bucket="pictures", Key="d", Body=b"2", IfMatch='"another"')
    ),
    "101 MiB, create": after("e", lambda path: fs.pipe_file(path, large, mode="create")),
    "101 MiB, IfMatch": after("f", lambda path: fs.pipe_file(path, large, IfMatch='"another"')),
}
print(f"s3fs {s3fs.__version__}")
for call, found in seen.items():
    print(f"  {call:<20}{found}")
is_old = s3fs.__version__.startswith("2024")
silent, refused = "overwritten, told nothing", "kept, told FileExistsError"
assert seen == {
    "pipe_file, create": silent if is_old else refused,
    "put_file, create": silent if is_old else refused,
    "pipe_file, IfMatch": silent if is_old else "kept, told OSError",
    "call_s3, IfMatch": silent if is_old else "kept, told OSError",
    "101 MiB, create": silent if is_old else refused,
    "101 MiB, IfMatch": silent,
}, seen
server.stop()
PYTHON
python3 -m venv "$folder/uv"
"$folder/uv/bin/pip" install --quiet --disable-pip-version-check uv==0.9.11
look() {
    "$folder/uv/bin/uv" venv --quiet --python "$folder/uv/bin/python" "$folder/$1"
    "$folder/uv/bin/uv" pip install --quiet --python "$folder/$1/bin/python" "${@:2}"
    "$folder/$1/bin/python" -W ignore "$folder/look.py" "$folder"
}
look old s3fs==2024.6.0 fsspec==2024.6.0 aiobotocore==2.13.0 botocore==1.34.106 boto3==1.34.106 'moto[server,s3]==5.0.28'
look new s3fs==2026.9.0 fsspec==2026.9.0 aiobotocore==3.10.0 botocore==1.43.117 boto3==1.43.117 'moto[server,s3]==5.2.5'
