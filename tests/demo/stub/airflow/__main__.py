# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A stub of Airflow for tests of its processes: each component has a child that ends only when killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


class Api(BaseHTTPRequestHandler):
    """Answers every request with a healthy state and a token."""

    def do_GET(self) -> None:
        body = json.dumps({"access_token": "x"} | {part: {"status": "healthy"} for part in PARTS}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    if sys.argv[1:3] == ["db", "migrate"]:
        time.sleep(float(os.environ["STUB_MIGRATES"]))
        return
    subprocess.Popen([sys.executable, "-c", CHILD])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.argv[1] == "api-server":
        HTTPServer(("127.0.0.1", int(os.environ["AIRFLOW__API__PORT"])), Api).serve_forever()
    time.sleep(600)


if __name__ == "__main__":
    main()
