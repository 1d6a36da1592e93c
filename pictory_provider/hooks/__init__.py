# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The hook, and how it reads the Airflow connection."""
