# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What each Pictory account has used and has left, requested at most once a minute per connection."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from pictory_provider.api.endpoints import MAX_LIST_BYTES
from pictory_provider.api.errors import PictoryError
from pictory_provider.api.timing import TIMING
from pictory_provider.client import calls
from pictory_provider.client.sync import SyncClient
from pictory_provider.core.budget import Limits
from pictory_provider.core.ledger import beginning, months_of, parse_ledger, spent_since
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.provider_info import CONNECTION_TYPE

if TYPE_CHECKING:
    from pictory_provider.client.calls import Call

log = logging.getLogger(__name__)

R = TypeVar("R")

MAX_AGE = 60.0
"""Seconds for which an answer is cached, an error too."""
MAX_UNKNOWN = 100
"""Ids without a connection are not added to a cache of this size: a user can request any number of them."""


class UsageCache:
    """The usage of each connection's account. Only one thread requests it from Pictory; no other waits for it."""

    def __init__(self) -> None:
        self._cached: dict[str, tuple[float, dict[str, Any] | None]] = {}
        self._requested: set[str] = set()
        self._lock = Lock()

    def get(self, conn_id: str) -> dict[str, Any] | None:
        """Return the usage as :func:`fetch_usage` does.

        :return: ``{}`` while another thread requests it for the first time.
        """
        with self._lock:
            at, usage = self._cached.get(conn_id, (float("-inf"), {}))
            if time.monotonic() - at < MAX_AGE or conn_id in self._requested:
                return usage
            self._requested.add(conn_id)
        try:
            usage = fetch_usage(conn_id)
            with self._lock:
                if usage is not None or len(self._cached) < MAX_UNKNOWN:
                    self._cached[conn_id] = time.monotonic(), usage
            return usage
        finally:
            with self._lock:
                self._requested.discard(conn_id)


def fetch_usage(conn_id: str) -> dict[str, Any] | None:
    """Request the usage of a connection's account from Pictory; both requests are free.

    :return: AI credits; or ``{"error": a sentence}``; ``None`` if there is no such connection to Pictory.
    """
    try:
        if PictoryHook.get_connection(conn_id).conn_type != CONNECTION_TYPE:
            return None
    except Exception:
        return None
    try:
        with PictoryHook(conn_id) as hook:
            settings = hook.get_conn().settings
        limits, now = Limits.from_settings(settings), time.time()
        # No retries and a short timeout: the thread belongs to Airflow, and the user can reload the page.
        client = SyncClient(replace(settings, timeout=min(TIMING.account_usage, settings.timeout)))
        try:
            quota = client.call(calls.get_quota())
            lines = parse_ledger(
                *(client.call(_limited(calls.get_credit_usage(*each))) for each in months_of(now))
            )
        finally:
            client.close()
    except PictoryError as error:
        return _failed(error.message)
    except Exception:
        # Texts of Pictory errors are safe for a browser; those of libraries may hold anything.
        log.warning("Could not read the account of connection %r.", conn_id, exc_info=True)
        return _failed("The account could not be read.")
    return {
        "today": spent_since(lines, beginning(now).timestamp()),
        "this_month": spent_since(lines, beginning(now, of_month=True).timestamp()),
        "left": quota.ai_credits_left,
        "plan": quota.ai_credits_limit,
        "limits": {"day": limits.per_day, "month": limits.per_month, "reserve": limits.reserve},
    }


def _limited(call: Call[R]) -> Call[R]:
    """Return a call whose reply is limited in size, since Airflow's API server parses it."""
    return call._replace(request=replace(call.request, max_bytes=MAX_LIST_BYTES))


def _failed(text: str) -> dict[str, Any]:
    return {"error": text.partition("\n")[0][:500]}
