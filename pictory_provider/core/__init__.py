# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The decisions of the provider as pure functions: no I/O, no clock, no Airflow."""
