# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The triggers that wait in the triggerer, and how a task defers to them."""
