# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What to do about many pictures: a table becomes requests, and each row is reused, adopted, bought or explained.

This room does no I/O, sleeps nowhere and reads no clock: time, and what lies in a folder, are arguments.
"""
