# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The operators: :mod:`pictory_provider.operators.pictory`."""
