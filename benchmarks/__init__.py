# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What is measured, and never asserted in a timed test."""
