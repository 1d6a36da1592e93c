# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""HTTP clients: ``requests`` on a worker, ``aiohttp`` in the triggerer."""
