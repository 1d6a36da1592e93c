# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The link: :mod:`pictory_provider.links.pictory`."""
