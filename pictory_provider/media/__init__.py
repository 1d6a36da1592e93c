# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Formats of image files: check them, read them, and mark them."""
