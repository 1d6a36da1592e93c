# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Private Redis and S3-compatible servers on free loopback ports."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from demo.stack import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def redis() -> Iterator[str]:
    """Serve an empty Redis, and yield its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("Redis is needed here: apt-get install redis-server, or run .ci/run")
    folder, port = Path(tempfile.mkdtemp(prefix="pictory-redis-")), free_port()
    try:
        with (folder / "server.log").open("wb") as log:
            options = ["--bind", HOST, "--port", str(port), "--dir", folder, "--save", "", "--appendonly", "no"]
            server = subprocess.Popen(
                [program, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _wait_until_open(server, port, folder / "server.log")
            yield f"redis://{HOST}:{port}/0"
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(folder)


def _wait_until_open(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ended = time.monotonic() + 30
    while time.monotonic() < ended and server.poll() is None:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(log.read_text())


@dataclass
class Storage:
    """An S3-compatible storage with one bucket.

    :param access_keys: the access keys of all requests.
    :param requests: the method and the path with its query of each request.
    :param forbids: its policy; returns whether a request is forbidden, given its method, its key, and whether the
        object exists.
    """

    url: str
    bucket: str = "pictures"
    access_keys: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    forbids: Callable[[str, str, bool], bool] = lambda *_: False

    def connection_json(self, access_key: str) -> str:
        """Return an Airflow connection of type ``aws`` to this storage."""
        extra = {"endpoint_url": self.url, "region_name": "us-east-1"}
        return json.dumps({"conn_type": "aws", "login": access_key, "password": "a secret", "extra": extra})

    @property
    def objects(self) -> dict[str, bytes]:
        """The content of the bucket, by key."""
        from moto.s3.models import s3_backends

        (backends,) = s3_backends.values()
        return {key: found.value for key, found in backends["aws"].buckets[self.bucket].keys.items()}


@contextmanager
def s3() -> Iterator[Storage]:
    """Serve an S3-compatible storage (moto's) with an empty bucket."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = DomainDispatcherApplication(create_backend_app)

    def checked_application(environ: dict[str, Any], start_response: Any) -> Any:
        storage.access_keys.update(re.findall(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", "")))
        query = f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else ""
        storage.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{query}")
        _, _, key = unquote(environ["PATH_INFO"]).lstrip("/").partition("/")
        if key and storage.forbids(environ["REQUEST_METHOD"], key, key in storage.objects):
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return application(environ, start_response)

    server = make_server(HOST, 0, checked_application, threaded=True)
    storage = Storage(url=f"http://{HOST}:{server.port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        _make_bucket(storage)
        yield storage
    finally:
        server.shutdown()
        thread.join()


def _make_bucket(storage: Storage) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=storage.url,
        region_name="us-east-1",
        aws_access_key_id="the-maker",
        aws_secret_access_key="of the bucket",
    )
    client.create_bucket(Bucket=storage.bucket)
