# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The file beside a picture: what it says, and what it is read as."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.images.sidecar import MadeBy, SavedFile, Sidecar, Unreadable, request_sha256
from pictory_provider.jobs.ledger import Purchase
from pictory_provider.jobs.submission import Submission

AT = 1_800_000_000.125
REQUEST = {"prompt": "Ein Leuchtturm für alle 🗼", "model": "flux-schnell"}
BOUGHT = Submission(
    job_id="j",
    fingerprint="f",
    request=REQUEST,
    max_tries=2,
    retries=2,
    intended_at=AT,
    submitted_at=AT + 1,
)
SAVED = SavedFile(
    size=12, sha256="ab", width=1024, height=576, ai_credits_used=0.6, marks=("xmp",), saved_at=AT + 9
)
SIDECAR = Sidecar(file="a.png", submission=BOUGHT, made_by=MadeBy("covers", "manual__1", "cover", 3), saved=SAVED)


def changed(**changes):
    return json.dumps({**json.loads(SIDECAR.content()), **changes})


def test_it_is_read_as_what_was_written():
    assert Sidecar.read(SIDECAR.content()) == SIDECAR


def test_it_says_what_a_reader_of_the_folder_wants_to_know():
    assert json.loads(SIDECAR.content()) == {
        "version": 1,
        "state": "saved",
        "file": "a.png",
        "job_id": "j",
        "request": REQUEST,
        "request_sha256": request_sha256(REQUEST),
        "made_by": {"dag_id": "covers", "run_id": "manual__1", "task_id": "cover", "map_index": 3},
        "fingerprint": "f",
        "max_tries": 2,
        "retries": 2,
        "intended_at": "2027-01-15T08:00:00.125+00:00",
        "submitted_at": "2027-01-15T08:00:01.125+00:00",
        "sha256": "ab",
        "size": 12,
        "width": 1024,
        "height": 576,
        "ai_credits_used": 0.6,
        "marks": ["xmp"],
        "saved_at": "2027-01-15T08:00:09.125+00:00",
    }
    assert "für alle 🗼" in SIDECAR.content().decode()


def test_what_the_account_had_used_is_in_it_only_until_the_picture_is_saved():
    bought = replace(SIDECAR, submission=replace(BOUGHT, credits_before=4.6), saved=None)
    assert Sidecar.read(bought.content()) == bought
    assert b"credits_before" not in replace(bought, saved=SAVED).content()


def test_the_digest_of_a_request_can_be_made_by_hand():
    text = '{"request":{"model":"flux-schnell","prompt":"Ein Leuchtturm für alle 🗼"},"version":1}'
    assert request_sha256(REQUEST) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("submission", "saved", "state"),
    [(Submission(max_tries=0), None, "intent"), (BOUGHT, None, "bought"), (BOUGHT, SAVED, "saved")],
)
def test_its_state_follows_from_what_is_known(submission, saved, state):
    sidecar = Sidecar(file="a.png", submission=submission, made_by=MadeBy("d", "r", "t", -1), saved=saved)
    assert (
        sidecar.state == Sidecar.read(sidecar.content()).state == json.loads(sidecar.content())["state"] == state
    )


def test_a_job_id_that_a_person_wrote_into_an_intent_is_a_job():
    intent = Sidecar(file="a.png", submission=Submission(max_tries=0), made_by=MadeBy("d", "r", "t", -1))
    read = Sidecar.read(json.dumps({**json.loads(intent.content()), "job_id": "found"}))
    assert (read.state, read.submission.job_id, read.submission.is_by_hand) == ("bought", "found", True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no JSON"),
        ("[1]", "list"),
        ('"saved"', "str"),
        (changed(version=2), "version is 2"),
        (changed(version=None), "version is None"),
        (changed(version=True), "version is True"),
        (changed(version=1.0), "version is 1.0"),
        (changed(version=0), "this release reads 1"),
        (changed(request={"prompt": 7}), "its request is none"),
        (changed(state="bought", job_id=None), "its state is 'bought' and its job_id None"),
        (changed(state=None), "its state is None"),
        (changed(earlier=7), "its state is"),
        (changed(size="12"), "neither size nor sha256"),
        (changed(sha256=7), "neither size nor sha256"),
        (changed(request=[]), "it says no request, or not by whom"),
        (changed(made_by=[]), "it says no request, or not by whom"),
        (changed(request=None), "no request"),
        (changed(made_by="me"), "by whom"),
        (changed(request={**REQUEST, "prompt": "Another"}), "request_sha256"),
        (changed(state="sold"), "sold"),
        (changed(job_id=None), "job_id"),
        (changed(job_id=7), "its state is 'saved' and its job_id 7"),
        (changed(size=None), "size"),
        (changed(sha256=None), "sha256"),
    ],
)
def test_what_it_cannot_be_is_said(text, why):
    with pytest.raises(Unreadable, match=why):
        Sidecar.read(text)


def test_half_a_character_in_a_prompt_is_kept():
    half = replace(SIDECAR, submission=replace(BOUGHT, request={"prompt": "half \ud83d"}))
    assert Sidecar.read(half.content().decode("utf-8")) == half


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(json.loads(SIDECAR.content()))), json_like))
def test_whatever_someone_has_written_into_it_it_is_read_or_refused(changes):
    try:
        read = Sidecar.read(changed(**changes))
    except Unreadable:
        return
    assert Sidecar.read(read.content()).content() == read.content()


@given(st.text(), st.text())
def test_requests_that_differ_have_digests_that_differ(one, other):
    assert (request_sha256({"prompt": one}) == request_sha256({"prompt": other})) == (one == other)


SPENT = replace(
    BOUGHT,
    credits_before=4.6,
    shown_before=3,
    used_before=4.5,
    earlier=(Purchase(AT - 9, 2.0, 1, 2.5),),
    before_clear=2.0,
)
OF_SPENDING = {
    "shown_before": 3,
    "used_before": 4.5,
    "earlier": [[AT - 9, 2.0]],
    "earlier_before": [[1, 2.5]],
    "before_clear": 2.0,
}


def test_what_the_task_has_spent_is_in_it_until_the_picture_is_saved_and_longer_where_nothing_else_says_it():
    bought = replace(SIDECAR, submission=SPENT, saved=None)
    told = json.loads(bought.content())
    assert {name: told[name] for name in ("credits_before", *OF_SPENDING)} == {
        "credits_before": 4.6,
        **OF_SPENDING,
    }
    assert not {"sha256", "size", "saved_at", "marks"} & set(told)
    assert Sidecar.read(bought.content()) == bought
    saved = replace(bought, saved=SAVED)
    assert not {"credits_before", *OF_SPENDING} & set(json.loads(saved.content()))
    assert Sidecar.read(saved.content()).keeps_spending is False
    kept = replace(saved, keeps_spending=True)
    told = json.loads(kept.content())
    assert {name: told[name] for name in OF_SPENDING} == OF_SPENDING
    assert "credits_before" not in told
    read = Sidecar.read(kept.content())
    assert (read.keeps_spending, read.submission.purchases) == (True, SPENT.purchases)
    assert Sidecar.read(bought.content()).keeps_spending is False


@pytest.mark.parametrize(
    ("map_index", "told"),
    [
        (-1, "task t of DAG d, run r"),
        (0, "task t of DAG d, run r, map index 0"),
        (3, "task t of DAG d, run r, map index 3"),
    ],
)
def test_a_task_instance_is_told_with_its_map_index_if_it_has_one(map_index, told):
    assert str(MadeBy("d", "r", "t", map_index)) == told


REGION = UUID("01a22412-677c-706b-9270-d8e0531eedca")


class InALoop:
    dag_id, run_id, task_id, map_index, region_id, region_index = "d", "r", "t", -1, REGION, 2


def test_iterations_of_a_loop_are_told_apart_and_each_is_read_as_it_was_written():
    second = MadeBy.of(InALoop)
    assert second == MadeBy("d", "r", "t", -1, str(REGION), 2)
    assert str(second) == "task t of DAG d, run r, iteration 2"
    assert str(second._replace(map_index=4)) == "task t of DAG d, run r, map index 4"
    written = second.plain()
    assert (written["region_id"], written["region_index"]) == (str(REGION), 2)
    assert MadeBy.read(written) == second
    assert Sidecar.read(replace(SIDECAR, made_by=second).content()).made_by == second
    assert second != second._replace(region_index=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"region_id": UUID(int=0), "region_index": -1},
        {"region_id": None, "region_index": None},
        {"region_id": None},
    ],
)
def test_a_task_outside_any_region_is_written_as_by_the_first_release(changes):
    class Outside(InALoop):
        pass

    for name, value in changes.items():
        setattr(Outside, name, value)
    assert MadeBy.of(Outside) == MadeBy("d", "r", "t", -1)
    assert MadeBy.of(Outside).plain() == {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}


def test_an_iteration_is_replaced_by_the_one_of_its_number_in_another_region():
    first = MadeBy("d", "r", "t", -1, "one", 1)
    assert first.is_replaced_by(first._replace(region_id="two"))
    assert not first.is_replaced_by(first)
    assert not first.is_replaced_by(first._replace(region_id="two", region_index=2))
    assert not first.is_replaced_by(first._replace(region_id="two", run_id="another"))
    assert not first.is_replaced_by(first._replace(region_id=None))
    assert not MadeBy("d", "r", "t", 0, "one", 0).is_replaced_by(MadeBy("d", "r", "t", 0, "two", 0))


def test_half_a_region_is_none():
    assert MadeBy.read({"map_index": 1, "region_id": str(REGION)}) == MadeBy(None, None, None, 1)
    assert MadeBy.read({"map_index": 1, "region_index": 1}) == MadeBy(None, None, None, 1)
    assert MadeBy.read({"region_id": 7, "region_index": 1}) == MadeBy(None, None, None, -1)


def test_what_it_does_not_say_is_not_known():
    value = json.loads(SIDECAR.content())
    for name in ("width", "height", "ai_credits_used", "marks", "saved_at", "intended_at", "submitted_at"):
        del value[name]
    read = Sidecar.read(json.dumps({**value, "made_by": {"map_index": "3"}}))
    assert read.saved == SavedFile(12, "ab", None, None, None, (), None)
    assert (read.submission.intended_at, read.submission.submitted_at) == (None, None)
    assert read.made_by == MadeBy(None, None, None, -1)
    assert Sidecar.read(changed(marks="xmp", saved_at="soon")).saved[-2:] == ((), None)


def test_a_time_is_read_in_any_zone():
    read = Sidecar.read(changed(saved_at="2027-01-15T09:00:09.125+01:00"))
    assert read == SIDECAR


def test_an_intent_without_a_request_has_the_digest_of_nothing():
    intent = Sidecar(file="a.png", submission=Submission(max_tries=0), made_by=MadeBy("d", "r", "t", -1))
    assert intent.request_sha256 == request_sha256({})
    assert json.loads(intent.content())["request"] == {}
    assert intent.content().endswith(b"}\n")
    assert b'\n  "version": 1,\n' in intent.content()
