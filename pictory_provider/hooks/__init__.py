# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The hook: :mod:`pictory_provider.hooks.pictory`."""
