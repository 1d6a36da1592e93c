# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""How long the provider waits, and for what, in one value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Timing:
    """Every time that the provider waits, in seconds.

    Pictory's documentation names only ``poll_interval_recommended``; the other values are ours. Modules read them
    when they need them and keep no copy, so a test can change :data:`TIMING`.

    :param backoff_first: wait before the first repetition of a request. Each further wait is twice as long.
    :param backoff_most: longest wait between two repetitions, unless Pictory asks for more.
    :param read_budget: time that one reading request may spend on its repetitions.
    :param resend_budget: time that one submission may spend on its repetitions.
    :param send_delay: longest time between building a paid request and sending it. A later one is not sent: if the
        process was frozen, another attempt may have sent its own.
    :param download: timeout of the download of one picture, from the first byte to the last.
    :param credits: timeout of the question how many credits are used, before each submission.
    :param evidence: timeout of all questions about an unknown outcome together.
    :param account_usage: timeout of each question for the account's figures in Airflow's pages.
    :param poll_interval_min: shortest interval between two polls of one job, whatever a task sets.
    :param poll_interval_recommended: shortest interval that Pictory recommends, of 10 to 30
        (guides/ai-studio/text-to-image).
    :param poll_pause_most: longest pause of all polls after one ``Retry-After``; the next refusal pauses them
        again. It is shorter than :data:`pictory_provider.jobs.polling.DEFERRAL_SLACK`, so a last poll that waits
        for its end still comes before Airflow gives up the deferral.
    :param url_fresh: age up to which the URL of a picture is used without asking for another. Pictory does not say
        how long a URL lives, and one that is refused is asked for again.
    :param unknown_job: time from the start of a wait in which Pictory may not know its own job yet.
    :param missing_url: time in which a completed job may still lack its URL.
    :param resume_after: time from the first end of a job of a batch until a worker resumes to save it.
    :param progress_interval: shortest time between two reports of a batch's progress.
    :param record_retries: waits between the attempts to write a record that must not be lost.
    :param wave_grace: time that a task which has to end waits for its open requests.
    :param absence: time that a task stays away at least that leaves its worker, where Airflow may lose it before
        (:func:`pictory_provider.compat.shortest_absence`).
    :param ownership: age up to which a check that the batch is still this attempt's is trusted. A process that was
        frozen for longer may have lost its batch to another attempt, which may be submitting the same rows.
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
    absence: float = 8.0
    ownership: float = 1.0


TIMING = Timing()
"""The times that are in force."""
