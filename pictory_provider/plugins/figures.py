# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What the account has used and has left, asked for at most once a minute for each connection."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from threading import Lock
from typing import Any

from pictory_provider.api import endpoints, responses
from pictory_provider.api.errors import PictoryError
from pictory_provider.api.timing import TIMING
from pictory_provider.client.sync import SyncClient
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.jobs.budget import Limits
from pictory_provider.jobs.ledger import beginning, lines_of, months_of, spent_since
from pictory_provider.provider_info import CONNECTION_TYPE

log = logging.getLogger(__name__)

KEPT = 60.0
"""Seconds that an answer is good for, a failure too."""


class Figures:
    """The figures of each connection, for whoever asks. One thread asks Pictory, and no other waits for it."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, dict[str, Any] | None]] = {}
        self._asking: set[str] = set()
        self._lock = Lock()

    def of(self, conn_id: str) -> dict[str, Any] | None:
        """Return the figures.

        :return: ``{}`` while they are asked for; ``None`` where there is no such connection to Pictory.
        """
        with self._lock:
            at, figures = self._kept.get(conn_id, (float("-inf"), {}))
            if time.monotonic() - at < KEPT or conn_id in self._asking:
                return figures
            self._asking.add(conn_id)
        try:
            figures = ask(conn_id)
            with self._lock:
                if figures is not None or len(self._kept) < 100:  # names that lead nowhere are not collected
                    self._kept[conn_id] = time.monotonic(), figures
            return figures
        finally:
            with self._lock:
                self._asking.discard(conn_id)


def ask(conn_id: str) -> dict[str, Any] | None:
    """Ask Pictory for the figures of a connection's account; both requests are free.

    :return: AI credits; or ``{"error": a sentence}``; ``None`` where there is no such connection to Pictory.
    """
    try:
        if PictoryHook.get_connection(conn_id).conn_type != CONNECTION_TYPE:
            return None
    except Exception:
        return None
    try:
        with PictoryHook(conn_id) as hook:
            settings = hook.get_conn().settings
        limits, now = Limits.of(settings), time.time()
        # Once and not for long: the thread is one of Airflow's own, and a page can be looked at again.
        client = SyncClient(replace(settings, timeout=min(TIMING.account_usage, settings.timeout)))
        try:
            quota = responses.parse_quota(client.send(endpoints.get_quota()))
            replies = [client.send(endpoints.get_credit_usage(*month)) for month in months_of(now)]
            lines = lines_of(*map(responses.parse_credit_usage, replies))
        finally:
            client.close()
    except Exception as error:
        # Nothing of what a library says may reach a browser, and what Pictory's errors say is fit for it.
        text = error.message if isinstance(error, PictoryError) else "The account could not be read."
        if not isinstance(error, PictoryError):
            log.warning("The figures of connection %r could not be asked for.", conn_id, exc_info=True)
        return {"error": text.partition("\n")[0][:500]}
    return {
        "today": spent_since(lines, beginning(now).timestamp()),
        "this_month": spent_since(lines, beginning(now, of_month=True).timestamp()),
        "left": quota.ai_credits_left,
        "plan": quota.ai_credits_limit,
        "limits": {"day": limits.per_day, "month": limits.per_month, "reserve": limits.reserve},
    }
