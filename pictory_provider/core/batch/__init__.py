# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The decisions for batches of pictures, as pure functions like all of :mod:`pictory_provider.core`."""
