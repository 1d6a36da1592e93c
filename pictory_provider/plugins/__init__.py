# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The plugin for Airflow's UI: its tabs and pages."""
