# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The links from a task's page to its pictures."""
