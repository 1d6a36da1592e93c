# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A fast Pictory for benchmarks, over TLS with a private certificate authority, in a separate process.

It accepts submissions, answers polls, and counts both. The simulator does far more, and its own cost would distort
the results. A job's id contains its end: ``e<epoch seconds>-<number>``.

``python -m benchmarks.pictory FOLDER SECONDS`` writes ``ca.pem`` into the folder and prints its port.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"


def job_id(end: float, number: int) -> str:
    """Return the id of a job that ends at a time in epoch seconds."""
    return f"e{end:.3f}-{number}"


class Pictory:
    """The counters and replies of the server."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.numbers = count()
        self.reset()

    def reset(self) -> None:
        """Reset the counters."""
        self.polls: list[float] = []
        self.submissions: list[float] = []
        self.open = self.opened = self.most_open = 0

    def answer(self, method: str, path: str) -> dict[str, Any]:
        """Return the JSON of a reply."""
        now = time.time()
        if method == "POST" and path == "/v1/aistudio/images":
            self.submissions.append(now)
            return {"success": True, "data": {"jobId": job_id(now + self.seconds, next(self.numbers))}}
        if path == "/v1/quota":
            return {"aiCredits": {"used": 0, "limit": 1_000_000}}
        if path == "/stats":
            return self.stats()
        if path == "/reset":
            self.reset()
            return {}
        self.polls.append(now)
        job = path.rpartition("/")[2]
        data: dict[str, Any] = {"status": "in-progress"}
        if now >= float(job[1:].partition("-")[0]):
            url = "https://example.com/picture.png"
            data = {"status": "completed", "url": url, "width": 1024, "height": 1024, "aiCreditsUsed": 2}
        return {"job_id": job, "success": True, "data": data}

    def stats(self) -> dict[str, Any]:
        """Return the counters."""
        first = most = 0
        for last, at in enumerate(self.polls):
            while self.polls[first] <= at - 1:
                first += 1
            most = max(most, last - first + 1)
        return {
            "polls": len(self.polls),
            "most polls in any second": most,
            "connections opened": self.opened,
            "most connections at once": self.most_open,
            "last submission": max(self.submissions, default=None),
        }


class Connection(asyncio.Protocol):
    """One keep-alive connection; request bodies are ignored."""

    def __init__(self, pictory: Pictory) -> None:
        self._pictory = pictory
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        """Count the connection."""
        self._transport = transport
        pictory = self._pictory
        pictory.open += 1
        pictory.opened += 1
        pictory.most_open = max(pictory.most_open, pictory.open)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  asyncio's name
        """Count the connection as closed."""
        self._pictory.open -= 1

    def data_received(self, data: bytes) -> None:
        """Answer every complete request."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            lengths = [line.split(":")[1] for line in lines if line.lower().startswith("content-length:")]
            length = int(lengths[0]) if lengths else 0
            if len(rest) < length:
                return
            self._received = rest[length:]
            method, path, _ = lines[0].split(" ", 2)
            body = json.dumps(self._pictory.answer(method, path.partition("?")[0])).encode()
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )


def make_certificates(folder: Path) -> None:
    """Write ``ca.pem``, a private certificate authority, and ``server.pem``, a certificate that it has signed."""
    now = dt.datetime.now(dt.UTC)

    def sign(
        subject: str, key: ec.EllipticCurvePrivateKey, issuer: ec.EllipticCurvePrivateKey, extension: Any
    ) -> Any:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Benchmark authority")])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(authority).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now)
        builder = builder.not_valid_after(now + dt.timedelta(days=2)).add_extension(extension, critical=False)
        return builder.sign(issuer, hashes.SHA256())

    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = sign("Benchmark authority", root, root, x509.BasicConstraints(ca=True, path_length=None))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
    (folder / "ca.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    (folder / "server.pem").write_bytes(
        sign("Benchmark server", key, root, names).public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


async def serve(folder: Path, seconds: float) -> None:
    """Serve until killed."""
    make_certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    pictory = Pictory(seconds)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(pictory), HOST, 0, ssl=context, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Running:
    """A server in a separate process."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"https://{HOST}:{port}"
        self.ca = str(folder / "ca.pem")
        self._context = ssl.create_default_context(cafile=self.ca)

    def get(self, path: str) -> Any:
        """Get ``/stats`` or ``/reset``."""
        with urlopen(self.url + path, context=self._context, timeout=30) as reply:  # noqa: S310  our own server
            return json.load(reply)

    def connection(self, **extra: Any) -> str:
        """Return an Airflow connection to it, as JSON."""
        fields = {"conn_type": "pictory", "host": self.url, "password": "pictai_benchmark"}
        return json.dumps({**fields, "extra": {"ca_bundle": self.ca, **extra}})


@contextmanager
def running(folder: Path, seconds: float = 0.0) -> Iterator[Running]:
    """Run the server for the duration of the block."""
    command = [sys.executable, "-m", "benchmarks.pictory", str(folder), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Running(folder, int(process.stdout.readline()))
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
