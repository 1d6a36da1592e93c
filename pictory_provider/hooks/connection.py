# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read the Airflow connection, and say why Airflow cannot read an environment variable that should hold it.

Airflow 3 tries one source of connections after the other. An error in one counts as "not defined" there, and its
cause is only in Airflow's log at DEBUG. Airflow reads JSON; what does not begin with a brace it reads as a URI
(https://airflow.apache.org/docs/apache-airflow/stable/howto/connection.html). No text here shows a value, since
one of them is the API key.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pictory_provider.api.connection import ConnectionSettings
from pictory_provider.api.decoding import parse_json
from pictory_provider.api.errors import AuthenticationError
from pictory_provider.api.extra import extra_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pictory_provider.client.retrying import Log

PREFIX = "AIRFLOW_CONN_"
_TEXTS = ("conn_type", "description", "host", "login", "password", "schema")
_FIELDS = (*_TEXTS, "port", "extra")


def read_settings(conn_id: str, get_connection: Callable[[str], Any], *, log: Log) -> ConnectionSettings:
    """Return the settings of an Airflow connection; log what is odd about them.

    :param get_connection: Airflow's ``BaseHook.get_connection``.
    :raises AuthenticationError: if Airflow has no such connection, or it has no API key.
    :raises RequestInvalid: if its host or its extra cannot be used.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    try:
        connection = get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise not_defined(conn_id) from error
    settings = ConnectionSettings.from_fields(
        conn_id,
        password=connection.password,
        host=connection.host,
        extra=extra_of(conn_id, connection.extra),
    )
    if (why := why_unreadable(conn_id)) is not None:
        name = variable_of(conn_id)
        log.warning("%s is set but not used, because it %s. The connection comes from another source.", name, why)
    for note in settings.notes:
        log.warning("%s", note)
    return settings


def variable_of(conn_id: str) -> str:
    """Return the name of the environment variable that may hold a connection."""
    return f"{PREFIX}{conn_id.upper()}"


def not_defined(conn_id: str, environment: Mapping[str, str] = os.environ) -> AuthenticationError:
    """Return the error for a connection that Airflow does not find."""
    variable, why = variable_of(conn_id), why_unreadable(conn_id, environment)
    if why is not None:
        return AuthenticationError(
            f"Airflow ignores connection {conn_id!r}, so there is no API key. No request was made. The "
            f"environment variable {variable} is set on this machine, but it {why}. Airflow ignores a "
            "variable that it cannot read. Correct it on every worker, triggerer and server that has it."
        )
    is_set = ""
    if environment.get(variable):
        is_set = f" {variable} is set on this machine, and Airflow reads no connection from it."
    return AuthenticationError(
        f"Airflow has no connection {conn_id!r}, so there is no API key. No request was made.{is_set} Make one of "
        f"type `pictory` (Admin > Connections, or the environment variable {variable}), with the key as its "
        "password."
    )


def why_unreadable(conn_id: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what is wrong with the variable of a connection, with the field at fault.

    :return: the rest of a sentence that begins with the variable; ``None`` if it is not set, or nothing is wrong.
    """
    value = environment.get(variable_of(conn_id), "").strip()
    if not value:
        return None
    return _why_not_json(value) if value.startswith("{") else _why_not_uri(value)


def _why_not_json(text: str) -> str | None:
    try:
        fields = parse_json(text)
    except ValueError:
        return "begins with a brace and is not JSON"
    for name, value in fields.items():
        if name not in _FIELDS:
            return f"has the field {name!r}, which Airflow does not know: it takes {', '.join(_FIELDS)}"
        if name in _TEXTS and value is not None and not isinstance(value, str):
            return f"has {_kind(value)} as its {name!r}, which has to be a string, in quotes"
        if name == "port" and value and not _is_whole(value):
            return "has a 'port' that is not a whole number"
        if name == "extra" and value and not isinstance(value, (dict, str)):
            return f"has {_kind(value)} as its 'extra', which has to be an object"
    return None


def _why_not_uri(uri: str) -> str | None:
    if uri.count("://") > 2:
        return "has '://' more than twice in its URI: write blanks and marks within a part as %3A and %2F"
    scheme, _, rest = uri.partition("://")
    if "://" in rest:
        scheme, _, rest = rest.partition("://")
        if "@" in scheme or ":" in scheme:
            return "has a user or a password before the second '://' of its URI, where only a protocol may stand"
    try:
        parts = urlsplit(f"//{rest}")
    except ValueError:
        return "has an invalid host in its URI: write brackets in a password as %5B and %5D"
    try:
        _ = parts.port
    except ValueError:
        return (
            "has a port in its URI that is not a whole number up to 65535: if a part of the password stands "
            "there, write / # ? : @ in it as %2F %23 %3F %3A %40"
        )
    return None


def _is_whole(value: Any) -> bool:
    try:
        int(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"
