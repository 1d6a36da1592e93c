# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read and write files on local disks and in object storage. A file is written whole or not at all."""
