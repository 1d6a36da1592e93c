# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What every tier needs: a private AIRFLOW_HOME, set before anything can import Airflow."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[name]
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
