# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The module path of ``SavedImage`` in version 0.1.0."""
