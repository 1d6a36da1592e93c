# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``make bench``: all benchmarks of ``docs/performance.md`` that need no earlier commit. An hour on two cores."""

from __future__ import annotations

from benchmarks import batch, copies, imports, large, saving, triggerer, waiting

imports.main()
copies.main()
waiting.main()
triggerer.main()
saving.main()
batch.main()
large.main()
