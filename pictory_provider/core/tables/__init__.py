# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read the table of a batch: what is a table, what is in a cell, and the text formats."""
