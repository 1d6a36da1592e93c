# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The filesystems of the emulated clouds, and a process that writes to one of them beside another."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from tests.distributed.servers import BUCKET

# gcsfs asks an emulator over gRPC for the type of its bucket, and waits for a minute; read when it is imported.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


def filesystem(cloud: str, url: str) -> Any:
    """Return the filesystem that Airflow would return for a connection to this server.

    :param cloud: ``s3``, ``gs`` or ``abfs``.
    :param url: of the server; for Azure its connection string.
    """
    if cloud == "s3":
        from s3fs import S3FileSystem

        return S3FileSystem(key="a-key", secret="a secret", endpoint_url=url, skip_instance_cache=True)
    if cloud == "gs":
        from gcsfs import GCSFileSystem

        return GCSFileSystem(token="anon", project="p", endpoint_url=url, skip_instance_cache=True)
    from adlfs import AzureBlobFileSystem

    return AzureBlobFileSystem(connection_string=url, skip_instance_cache=True)


def main() -> None:
    """Create objects whose names are read from the standard input, and print for each whether it was created."""
    from pictory_provider.storage.files import AlreadyExists
    from pictory_provider.storage.objects import ObjectFiles
    from pictory_provider.storage.target import JSON

    files = ObjectFiles(filesystem(*sys.argv[1:3]))
    files.read(f"{BUCKET}/nothing")  # connects
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            files.create(f"{BUCKET}/{line.strip()}", json.dumps({"writer": os.getpid()}).encode(), JSON, most=1)
        except AlreadyExists:
            print("exists", flush=True)
        else:
            print("created", flush=True)


if __name__ == "__main__":
    main()
