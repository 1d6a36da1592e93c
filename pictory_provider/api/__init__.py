# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What Pictory says: requests, replies and errors as plain values.

This room does no I/O and imports nothing but the standard library.
Time and chance are arguments.
"""
