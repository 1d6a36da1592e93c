# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The emulated clouds behind a proxy, their filesystems, and a process that writes to one of them beside another."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.distributed import servers
from tests.distributed.proxy import Proxy
from tests.distributed.servers import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator

# gcsfs asks an emulator over gRPC for the type of its bucket, and waits for a minute; read when it is imported.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@contextmanager
def behind_a_proxy(cloud: str, *, delay: float = 0.0) -> Iterator[tuple[str, Proxy]]:
    """Serve a cloud behind a proxy, and yield the URL for :func:`filesystem`, and the proxy.

    :param cloud: ``s3``, ``gs`` or ``abfs``.
    :param delay: seconds for which the proxy holds each request.
    """
    if cloud == "s3":
        with servers.s3() as storage, Proxy(storage.url, delay=delay) as proxy:
            yield proxy.url, proxy
    elif cloud == "gs":
        with servers.gcs() as url, Proxy(url, delay=delay) as proxy:
            yield proxy.url, proxy
    else:
        with servers.azure(Path(sys.prefix) / "azurite") as connection:
            before, _, address = connection.partition("BlobEndpoint=")
            address, _, account = address.rstrip(";").rpartition("/")
            with Proxy(address, delay=delay) as proxy:
                yield f"{before}BlobEndpoint={proxy.url}/{account};", proxy


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
