# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The TaskFlow decorator ``@task.pictory_image``."""
