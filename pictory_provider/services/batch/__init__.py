# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The I/O of a batch on a worker, in order. The rules are in :mod:`pictory_provider.core.batch`."""
