# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""An emulated cloud that is 30 ms away, as a program.

``python -m benchmarks.storage_server s3`` prints its URL, and for each line of the standard input the number of
requests since the line before.
"""

from __future__ import annotations

import sys

from tests.distributed.clouds import behind_a_proxy

DELAY = 0.03
"""Seconds for which each request is held."""


def main() -> None:
    """Serve until the end of the standard input."""
    with behind_a_proxy(sys.argv[1], delay=DELAY) as (url, proxy):
        print(url, flush=True)
        for _ in sys.stdin:
            print(len(proxy.requests), flush=True)
            proxy.requests.clear()


if __name__ == "__main__":
    main()
