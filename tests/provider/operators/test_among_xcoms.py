# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Pictures below the folder in which Airflow's XCom backend for object storage keeps values."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend

from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from tests.provider.backends import stores_elsewhere
from tests.provider.waits import buy

WAITED = {"deferrable": False, "poll_interval": 0.02}
WARNING = "is below [common.io] xcom_objectstorage_path"


def single(pictory, path):
    return GenerateImageOperator(task_id="generate", prompt="A lighthouse", path=path, **WAITED)


def saved(pictory, path):
    return DownloadImageOperator(task_id="save", job_id=buy(pictory), path=path)


def batch(pictory, path):
    return GenerateImageBatchOperator(task_id="batch", requests=["A lighthouse"], path=f"{path}-batch", **WAITED)


@pytest.mark.parametrize("make", [single, saved, batch])
@pytest.mark.parametrize("form", ["file://{}", "{}"])
@pytest.mark.parametrize(
    ("folder", "is_kept_there", "is_warned_of"),
    [("xcoms/pictures", True, True), ("xcoms-not", True, False), ("xcoms/pictures", False, False)],
)
def test_a_picture_among_airflows_xcoms_is_warned_of(
    pictory, context, mocker, monkeypatch, tmp_path, logged, make, form, folder, is_kept_there, is_warned_of
):
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", f"file://{tmp_path}/xcoms")
    if is_kept_there:
        stores_elsewhere(mocker, tmp_path, threshold=0)
    make(pictory, form.format(tmp_path / folder / "a.png")).execute(context)
    assert logged().count(WARNING) == is_warned_of


def test_airflows_backend_deletes_what_an_xcom_names_there(pictory, context, mocker, tmp_path):
    """Why it is warned of."""
    base = stores_elsewhere(mocker, tmp_path, threshold=0)
    among = single(pictory, f"{base}/pictures/a.png")
    among.execute(context)
    XComObjectStorageBackend.purge(SimpleNamespace(value=context["ti"].xcoms["image"]["path"]))
    assert not (tmp_path / "xcoms" / "pictures" / "a.png").exists()
