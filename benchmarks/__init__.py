# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Benchmarks. No test asserts their times."""
