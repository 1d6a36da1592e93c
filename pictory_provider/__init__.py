# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Apache Airflow provider for Pictory AI Studio image generation."""

__version__ = "0.1.0"
