# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Airflow's XCom backend that stores values in object storage, in a folder of a test."""

from __future__ import annotations

from airflow.providers.common.io.xcom import backend
from airflow.sdk import ObjectStoragePath

OBJECT_STORAGE = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"


def stores_elsewhere(mocker, folder, *, threshold):
    """Let Airflow store XComs of at least so many bytes in a folder.

    :return: the prefix of the references to them.
    """
    base = f"file://{folder}/xcoms"
    mocker.patch.object(backend, "_get_base_path", return_value=ObjectStoragePath(base))
    mocker.patch.object(backend, "_get_threshold", return_value=threshold)
    mocker.patch.object(backend, "_get_compression", return_value=None)
    for module in ("pictory_provider.triggers.base", "airflow.providers.common.compat.sdk"):
        mocker.patch(f"{module}.XCom", backend.XComObjectStorageBackend)
    return base
