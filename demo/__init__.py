# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The demo, and the private Airflow that it shares with the tests. Not part of the distribution."""
