# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The commands ``airflow pictory`` and ``python -m pictory_provider``."""
