# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Texts of errors help a user who has never seen this code."""

from __future__ import annotations

import pytest

from pictory_provider.exceptions import (
    PictoryJobFailed,
    PictoryRequestInvalid,
    PictoryStorageFailed,
    PictoryUnavailable,
)
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from tests.driver import Attempts
from tests.provider.batches import Tries, lamps

PROMPT = "A lighthouse at dawn"


def text_of(error):
    return " ".join(str(error.value).split())


@pytest.fixture
def cover(pictory, tmp_path, timing):
    """Return the attempts of a task that saves its picture."""
    timing(read_budget=0.0, resend_budget=0.0)

    def task_of(**more):
        arguments = {"prompt": PROMPT, "path": f"{tmp_path}/cover.png", "deferrable": False, "poll_interval": 0.02}
        return GenerateImageOperator(task_id="cover", **arguments | more)

    return Attempts(task_of)


@pytest.mark.parametrize("how", ["no connection", "503"])
def test_a_picture_whose_host_is_away_is_reported_as_paid_for_and_a_retry_saves_it(pictory, cover, how, tmp_path):
    pictory.set(images_away=1) if how == "no connection" else pictory.script("picture", "server-error", times=-1)
    with pytest.raises(PictoryUnavailable) as caught:
        cover()
    (job_id,) = pictory.account.jobs
    assert text_of(caught).startswith(f"The picture of job {job_id} could not be downloaded: ")
    assert "It is paid for and still at Pictory: a retry saves it and buys nothing." in text_of(caught)
    assert "Pictures are served by another host than the API: check that this worker can reach it." in text_of(
        caught
    )
    pictory.set(images_away=0) if how == "no connection" else pictory.clear_faults()
    cover()
    assert (tmp_path / "cover.png").exists()
    assert len(pictory.submissions) == 1


def test_a_refused_reference_image_has_no_link_to_nowhere_in_the_log(pictory, cover, logged):
    with pytest.raises(PictoryRequestInvalid, match=r"does not begin with http"):
        cover(reference_image_url="ftp://h/a.png")
    assert "See http" not in logged()


@pytest.mark.parametrize("shape", ["402", "400"])
def test_an_empty_account_is_reported_as_such_and_a_clear_buys_what_is_missing(fast, one_try, shape):
    fast.account.credits_limit = 5
    fast.shape("insufficient", shape)
    with pytest.raises(PictoryRequestInvalid) as caught:
        one_try(lamps(4))
    assert text_of(caught).startswith(f"The account has too few AI credits left for this picture ({shape}): ")
    assert "Top up the account at https://app.pictory.ai and clear the task" in text_of(caught)
    assert "Airflow does not retry this task: the account would still have too few credits." in text_of(caught)
    assert "Correct" not in text_of(caught)
    fast.account.credits_limit = 100
    one_try.clear()
    result = one_try(lamps(4))
    assert result["saved"] + result["reused"] == 4
    assert fast.account.credits_used == 8


def test_a_job_that_failed_for_want_of_credits_does_not_blame_the_prompt(pictory, cover):
    pictory.account.credits_limit = 1
    pictory.shape("insufficient", "failed-job")
    with pytest.raises(PictoryJobFailed) as caught:
        cover()
    assert "Top up the account" in text_of(caught)
    assert "change the prompt" not in text_of(caught)


def test_an_upstream_task_that_returned_nothing_is_reported_as_such(pictory, cover):
    with pytest.raises(
        PictoryRequestInvalid, match=r"^prompt is None: the upstream task returned nothing; Pictory"
    ):
        cover(prompt=None)


def test_if_nothing_is_to_be_saved_no_text_mentions_saving(fast, folder):
    with pytest.raises(PictoryStorageFailed) as caught:
        Tries("/proc/a")(lamps(1))
    assert "Airflow tries again, and nothing is bought twice." in text_of(caught)
    assert "saving is free" not in text_of(caught)


def test_a_download_whose_host_is_away_says_that_a_retry_saves_it(pictory, timing, tmp_path, ti):
    timing(read_budget=0.0)
    pictory.set(images_away=1)
    url = f"{pictory.images_url}/images/user/a/b.png"
    with pytest.raises(PictoryUnavailable, match=r"^The picture could not be downloaded: "):
        DownloadImageOperator(task_id="save", url=url, path=f"{tmp_path}/a.png").execute({"ti": ti})
