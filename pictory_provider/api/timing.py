# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""How long the provider waits, and for what, in one value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Timing:
    """Times in seconds. Pictory's documentation names two of them; the others are ours.

    They are read when they are used, so a test changes :data:`TIMING` and every module heeds it.

    :param backoff_first: before the first repetition of a request; each further one waits twice as long.
    :param backoff_most: between two repetitions, unless Pictory asks for more.
    :param read_budget: of a worker's time that one reading request may spend on its repetitions.
    :param resend_budget: of a worker's time that one submission may spend on being sent again.
    :param send_delay: of the wall clock from the making of a paid request until it begins to leave. A later one is
        not sent: the process may have been frozen, and another try may have sent its own.
    :param download: for one picture, from the first byte to the last.
    :param credits: for asking how many credits are used, before each submission.
    :param evidence: for all that is asked about an unknown outcome.
    :param account_usage: for each answer that Airflow's pages show of the account.
    :param poll_interval_min: between two polls of one job, whatever a task asks for.
    :param poll_interval_recommended: the shortest that Pictory recommends, of 10 to 30
        (guides/ai-studio/text-to-image).
    :param poll_pause_most: that one ``Retry-After`` may pause all polls; a refusal after that pauses them again.
        It is shorter than :data:`pictory_provider.jobs.polling.DEFERRAL_SLACK`, so that a last poll that has to
        wait for its end still comes before Airflow gives the deferral up.
    :param url_fresh: that the URL of a picture is taken to live after it was seen. Pictory does not say how
        long it does, and one that is refused is asked for again.
    :param unknown_job: from the start of a wait in which Pictory may not know its own job yet.
    :param missing_url: in which a completed job may still lack its URL.
    :param resume_after: from the first end of a job of a batch to the worker that saves it.
    :param progress_interval: between two reports of a batch's progress, at least.
    :param record_retries: between the attempts to write a record that must not be lost.
    :param wave_grace: that requests under way are waited for when a task has to end.
    :param ownership: of the wall clock that a check of a batch's owner is good for. A process that was frozen for
        longer may have been given up, and another try may be submitting what this one was about to.
    """

    backoff_first: float = 1.0
    backoff_most: float = 300.0
    read_budget: float = 20.0
    resend_budget: float = 60.0
    send_delay: float = 30.0
    download: float = 600.0
    credits: float = 5.0
    evidence: float = 10.0
    account_usage: float = 5.0
    poll_interval_min: float = 1.0
    poll_interval_recommended: float = 10.0
    poll_pause_most: float = 120.0
    url_fresh: float = 300.0
    unknown_job: float = 60.0
    missing_url: float = 60.0
    resume_after: float = 60.0
    progress_interval: float = 5.0
    record_retries: tuple[float, ...] = (0.5, 2.0, 5.0)
    wave_grace: float = 30.0
    ownership: float = 1.0


TIMING = Timing()
"""The times that are in force."""
