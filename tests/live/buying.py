# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Buy a single picture through the provider's hook, and never a second one.

The purchase is recorded in a file before the request: after an interruption the next run continues with the paid job,
and after an unknown outcome it does not buy again.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from pictory_provider.exceptions import PictorySubmitOutcomeUnknown

if TYPE_CHECKING:
    from pathlib import Path

    from tests.live.probe import Probe

MODEL, RATIO, PRICE = "flux-schnell", "16:9", 0.6
PRIVATE = "private.json"


class CannotBuy(Exception):
    """Nothing was bought; the text says why and what to do."""


class Private:
    """The private data of a purchase: the real jobId, and the URL with its signature."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PRIVATE
        self.known: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def note(self, **fields: Any) -> None:
        """Store more fields, on disk before this returns."""
        self.known |= fields
        fresh = self.path.with_suffix(".new")
        with open(fresh, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            json.dump(self.known, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)


def check_not_in_doubt(private: Private, job_id: str | None) -> None:
    """Refuse to continue if the outcome of an earlier run is unknown, or if it was about another job.

    :param job_id: given by the user.
    """
    known = private.known.get("job_id")
    if job_id and known and known != job_id:
        raise CannotBuy(f"{private.path} is about another job than LIVE_JOB names. Take another folder: LIVE_OUT.")
    if private.known.get("state") == "intent" and not job_id:
        raise CannotBuy(
            f"{private.path} says that an earlier run sent the paid request and did not receive its jobId. It is "
            "unknown whether that was billed, so the request is not sent again. Check "
            "`python -m pictory_provider ledger` and your jobs in Pictory's web application; then continue with "
            "LIVE_JOB=<jobId>, or, if nothing was bought, in another folder with LIVE_OUT."
        )


def buy(probe: Probe, private: Private, prompt: str) -> str:
    """Buy the picture, and return its jobId.

    :raises PictorySubmitOutcomeUnknown: if the outcome is unknown; the file says so too.
    :raises PictoryError: if nothing was bought.
    """
    from pictory_provider.hooks.pictory import PictoryHook

    hook = PictoryHook()
    hook._client = probe
    before = dict(private.known)
    private.note(state="intent", prompt=prompt, intended_at=time.time())
    try:
        job_id = hook.generate_image(prompt, model=MODEL, aspect_ratio=RATIO)
    except PictorySubmitOutcomeUnknown:
        raise
    except Exception:
        private.known = before  # every other error of the provider means that nothing was bought
        private.note(state="nothing bought")
        raise
    private.note(state="bought", job_id=job_id, bought_at=time.time())
    return job_id
