# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The public type ``SavedImage``, importable from here since version 0.1.0."""

from pictory_provider.storage.download import SavedImage

__all__ = ["SavedImage"]
