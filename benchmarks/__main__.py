# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""All that ``docs/performance.md`` tells figures of: ``make bench``. It takes about an hour on two cores."""

from __future__ import annotations

from benchmarks import batch, imports, large, saving, triggerer, waiting

imports.main()
waiting.main()
triggerer.main()
saving.main()
batch.main()
large.main()
