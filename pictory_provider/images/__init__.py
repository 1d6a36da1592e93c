# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The pictures themselves: is it the one that was promised, and where does it go."""
