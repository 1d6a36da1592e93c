# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Pictory's HTTP API as values: requests, replies and errors. No I/O."""
