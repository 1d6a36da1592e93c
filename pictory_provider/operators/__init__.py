# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The operators that generate and save images."""
