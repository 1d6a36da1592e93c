# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read the XComs that the pages show, on the server, through Airflow's configured XCom backend.

Airflow's REST API returns what is in Airflow's database. A custom XCom backend may have stored only a reference
there. This module resolves such references, for the few keys below, and returns only values of the expected shape:
it does not give away any other XCom of a DAG. A value that cannot be read is an error, never an empty result.

XComs can be edited over Airflow's API. Therefore a reference to object storage must be below the folder of its own
task, and a value that names a class to be instantiated is not resolved.
"""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

from airflow.models.xcom import XComModel
from airflow.sdk.bases.xcom import BaseXCom
from airflow.utils.session import create_session

from pictory_provider.api.decoding import parse_json
from pictory_provider.storage.paths import xcom_folder

log = logging.getLogger(__name__)

HAS_REGIONS = hasattr(XComModel, "region_id")  # Airflow 3.4 and later
_RECORD = {"job_id", "status", "url"}
_FIELDS = {
    "image": _RECORD,
    "return_value": _RECORD,
    "progress": {"of", "ai_credits_used"},
    "plan": {"of", "to_buy"},
    "pictory_request": {"job_id", "is_waited_for"},
    "pictory_failure": {"error", "message"},
    "pictory_pages": {"pictures", "failures"},
}
FILES = r"images?|return_value|pictures_[0-9]{1,6}"
KEYS = rf"^({FILES}|failures_[0-9]{{1,6}}|{'|'.join(_FIELDS)})$"
"""The XComs that the pages read."""
_FIELDS_OF_LISTS = {"images": _RECORD, "pictures": _RECORD, "failures": {"status", "message"}}


class Missing(Exception):
    """There is no such XCom."""


class Unreadable(Exception):
    """The XCom exists, but its value cannot be read.

    :param is_gone: whether a later attempt is useless: the backend no longer has the value, or it is not a value
        that the pages show.
    """

    def __init__(self, why: str, *, is_gone: bool) -> None:
        super().__init__(why)
        self.is_gone = is_gone


def is_default_backend() -> bool:
    """Whether XComs are in Airflow's database themselves, so that its REST API returns them."""
    try:
        return _backend() is BaseXCom
    except Exception as error:
        log.warning("The XCom backend of [core] xcom_backend cannot be loaded here: %r", error)
        return False


def read_xcom(dag_id: str, run_id: str, task_id: str, key: str, **instance: Any) -> Any:
    """Return the value of one XCom: a dict, or a list of them.

    :param instance: ``map_indexes``, and ``region_id`` for a task instance in a region.
    :raises Missing: if there is no such XCom.
    :raises Unreadable: if its value cannot be read.
    """
    raw = stored(dag_id, run_id, task_id, key, **instance)
    if raw is None:
        raise Missing(key)
    value = _parsed(raw)
    if has_expected_shape(key, value):
        return value
    if is_default_backend():
        raise Unreadable("the pages do not show such a value", is_gone=True)
    value = _parsed(_resolve(raw, key, f"/{dag_id}/{run_id}/{task_id}/"))
    if not has_expected_shape(key, value):
        raise Unreadable("the backend no longer has it, or the pages do not show such a value", is_gone=True)
    return value


def stored(dag_id: str, run_id: str, task_id: str, key: str, **instance: Any) -> Any:
    """Return what Airflow's database has; ``None`` for nothing."""
    with create_session() as session:
        found = session.scalars(
            XComModel.get_many(run_id=run_id, key=key, task_ids=task_id, dag_ids=dag_id, limit=1, **instance)
        ).first()
        return getattr(found[0] if isinstance(found, tuple) else found, "value", None)


def has_expected_shape(key: str, value: Any) -> bool:
    """Whether a value has the fields that the provider's tasks write to this XCom."""
    needed = _FIELDS_OF_LISTS.get(key.partition("_")[0])
    if needed is not None:
        return isinstance(value, list) and all(isinstance(one, dict) and needed <= one.keys() for one in value)
    return isinstance(value, dict) and _FIELDS[key] <= value.keys()


def _backend() -> Any:
    from airflow.providers.common.compat.sdk import XCom  # the configured backend

    return XCom


def _resolve(raw: Any, key: str, folder: str) -> Any:
    """Return the value that the backend has for what is in Airflow's database.

    :param folder: the part of a path that a reference to object storage must contain.
    """
    try:
        if not isinstance(raw, str) and "__classname__" in json.dumps(raw):
            raise Unreadable("it names a class", is_gone=True)
        backend = _backend()
        if isinstance(raw, str) and "://" in raw and not _is_own_reference(raw, folder):
            raise Unreadable("its reference is outside the folder of its task", is_gone=True)
        return backend.deserialize_value(SimpleNamespace(key=key, value=raw))
    except Unreadable:
        raise
    except Exception as error:  # of any library that reads this storage
        raise Unreadable(f"{type(error).__name__}: {error}", is_gone=False) from error


def _is_own_reference(raw: str, folder: str) -> bool:
    return ".." not in raw.split("/") and (folder in raw or xcom_folder() is None)


def _parsed(value: Any) -> Any:
    """Return a value without JSON around it: Airflow 3.1 stores an edited XCom as JSON within JSON."""
    for _ in range(2):
        if isinstance(value, str):
            try:
                value = parse_json(value)
            except ValueError:
                return value
    return value
