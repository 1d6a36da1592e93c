# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The pages in Airflow: pictures of a run, of a task, of a DAG, and the newest of all."""
