# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The figures of ``docs/performance.md`` that compare nothing with an earlier commit: ``make bench``. An hour on two cores."""

from __future__ import annotations

from benchmarks import batch, imports, large, saving, triggerer, waiting

imports.main()
waiting.main()
triggerer.main()
saving.main()
batch.main()
large.main()
