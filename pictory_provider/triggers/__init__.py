# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The trigger: :mod:`pictory_provider.triggers.pictory`."""
