# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The I/O of a task, in order. The rules are in :mod:`pictory_provider.core`."""
