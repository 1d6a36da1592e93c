# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Commands: ``airflow pictory ...`` on Airflow 3.2 and later, ``python -m pictory_provider ...`` everywhere."""
