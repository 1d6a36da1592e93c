# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What to do about it: pure decisions over the values of :mod:`pictory_provider.api`.

This room does no I/O, sleeps nowhere and reads no clock: time and chance are arguments.
"""
