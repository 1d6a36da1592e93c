# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The sensor that waits for an image generation job."""
