# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The decision to reuse, adopt, submit or refuse, by what exists at the output path."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.errors import JobNotFound, RequestInvalid, SubmitOutcomeUnknown, Unavailable
from pictory_provider.api.models import Job
from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.resume import (
    ExistingImage,
    GenerationSpec,
    Reuse,
    decide_at_path,
    latest,
    next_step_at,
    refused_redo,
)
from pictory_provider.core.sidecar import SavedFile, Sidecar
from pictory_provider.core.submission import PollFirst, Submission, Submit, after_poll
from pictory_provider.media.mark import mark

NOW = 1_800_000_000.0
PATH = "/srv/a.png"
ASKED = {"prompt": "A lighthouse at dawn", "model": "flux-schnell"}
OTHERWISE = {"prompt": "A lighthouse at dusk", "model": "flux-schnell"}
ME, ANOTHER = MadeBy("covers", "second", "cover", -1), MadeBy("covers", "first", "cover", -1)
FINGERPRINT = "of the order"
SIZE = 1000
PURCHASE = Submission(
    job_id="j",
    fingerprint=FINGERPRINT,
    request=ASKED,
    max_tries=2,
    retries=2,
    intended_at=NOW - 100,
    submitted_at=NOW - 99,
)
INTENT = replace(PURCHASE, job_id=None, submitted_at=None)
FILE = SavedFile(SIZE, "ab", 1024, 1024, 0.6, (), NOW - 50)


def sidecar(state="saved", made_by=ME, marks=(), **changes):
    submission = replace(INTENT if state == "intent" else PURCHASE, **changes)
    saved = FILE._replace(marks=marks) if state == "saved" else None
    return Sidecar(file="a.png", submission=submission, made_by=made_by, saved=saved)


def existing(beside=None, size=None, problem=None):
    return ExistingImage(PATH, beside, problem, size)


def spec(**changes):
    fields = {
        "made_by": ME,
        "fingerprint": FINGERPRINT,
        "identity": ASKED,
        "request": lambda: ASKED,
        "max_tries": 2,
        "retries": 2,
        **changes,
    }
    return GenerationSpec(**fields)


def stored(submission=PURCHASE, **changes):
    return replace(submission, **changes).to_dict()


CLEARED = {"max_tries": 5}
WANTS_ANOTHER = {"fingerprint": "another", "identity": OTHERWISE, "request": lambda: OTHERWISE}


# Nothing is on record of this task -----------------------------------------------------------------------


def test_if_nothing_exists_it_is_bought():
    assert decide_at_path(existing(), None, spec()) == Submit()


def test_a_file_that_nothing_names_is_left_alone():
    refused = decide_at_path(existing(size=7), None, spec())
    assert isinstance(refused, RequestInvalid)
    assert "a file of 7 bytes" in refused.message
    assert refused.fields == ("path",)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("on_record", [None, stored(), stored(INTENT)])
def test_a_sidecar_that_cannot_be_read_is_never_replaced(overwrite, on_record):
    refused = decide_at_path(existing(problem="it is not JSON", size=SIZE), on_record, spec(overwrite=overwrite))
    assert isinstance(refused, RequestInvalid)
    assert "it is not JSON" in refused.message


def test_the_picture_of_the_same_request_is_reused_whichever_task_submitted_it():
    found = decide_at_path(existing(sidecar(made_by=ANOTHER), SIZE), None, spec())
    assert found == Reuse(sidecar(made_by=ANOTHER), is_own=False)


@pytest.mark.parametrize(
    ("marks", "size", "is_taken"),
    [
        ((), SIZE, True),
        ((), SIZE + len(mark()), False),
        (("xmp",), SIZE, True),
        (("xmp",), SIZE + len(mark()), False),
        ((), SIZE - 1, False),
        ((), 0, False),
        ((), None, False),
    ],
)
def test_a_picture_is_taken_only_if_it_has_the_size_on_record(marks, size, is_taken):
    found = decide_at_path(existing(sidecar(made_by=ANOTHER, marks=marks), size), None, spec())
    assert isinstance(found, Reuse if is_taken else RequestInvalid)


@pytest.mark.parametrize("state", ["bought", "saved"])
@pytest.mark.parametrize("size", [SIZE, None])
def test_the_picture_of_another_request_is_refused_and_both_are_shown(state, size):
    beside = sidecar(state, made_by=ANOTHER, request=OTHERWISE)
    refused = decide_at_path(existing(beside, size), None, spec())
    if (state, size) == ("bought", None):
        refused = after_poll(refused, Job(job_id="j", status="in-progress"), NOW)
    assert isinstance(refused, RequestInvalid)
    for shown in ("lighthouse at dawn", "lighthouse at dusk", "run first", "job j", "Nothing was sent"):
        assert shown in refused.message


@pytest.mark.parametrize("made_by", [ME, ANOTHER])
def test_where_the_job_of_another_request_has_come_to_nothing_this_one_is_bought(made_by):
    beside = sidecar("bought", made_by=made_by, request=OTHERWISE, fingerprint="of another")
    step = decide_at_path(existing(beside), None, spec(**CLEARED))
    assert isinstance(after_poll(step, Job(job_id="j", status="failed"), NOW), Submit)
    assert isinstance(after_poll(step, Job(job_id="j", status="completed", url="u"), NOW), RequestInvalid)
    assert isinstance(after_poll(step, Unavailable("x"), NOW), RequestInvalid)


def test_a_job_that_another_task_has_bought_for_the_same_picture_is_adopted():
    step = decide_at_path(existing(sidecar("bought", made_by=ANOTHER)), None, spec())
    assert (type(step), step.job_id, step.found.submitted_at) == (PollFirst, "j", NOW - 99)
    assert "run first" in step.warning


@pytest.mark.parametrize("answer", [JobNotFound("x"), Job(job_id="j", status="cleaned")])
def test_where_pictory_does_not_have_another_tasks_job_nothing_is_bought(answer):
    step = decide_at_path(existing(sidecar("bought", made_by=ANOTHER)), None, spec())
    refused = after_poll(step, answer, NOW)
    assert isinstance(refused, RequestInvalid)
    assert "delete /srv/a.png.json and clear the task" in refused.message


def test_another_tasks_job_may_be_missing_in_its_first_minute():
    step = decide_at_path(existing(sidecar("bought", made_by=ANOTHER)), None, spec())
    assert after_poll(step, JobNotFound("x"), NOW - 99 + 59).job_id == "j"


def test_another_tasks_job_is_waited_for_from_now_on_and_stays_on_that_tasks_record():
    adopted = after_poll(
        decide_at_path(existing(sidecar("bought", made_by=ANOTHER)), None, spec()),
        Job(job_id="j", status="x"),
        NOW,
    )
    assert (adopted.submitted_at, adopted.is_to_record) == (NOW, False)


def test_where_another_tasks_job_has_failed_it_is_bought_again():
    step = decide_at_path(existing(sidecar("bought", made_by=ANOTHER)), None, spec())
    assert isinstance(after_poll(step, Job(job_id="j", status="failed"), NOW), Submit)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("request_", [ASKED, OTHERWISE])
def test_what_another_task_is_buying_may_be_there_for_a_retry(overwrite, request_):
    beside = sidecar("intent", made_by=ANOTHER, request=request_)
    refused = decide_at_path(existing(beside), None, spec(overwrite=overwrite))
    assert isinstance(refused, Unavailable)
    assert "run first" in refused.message


@pytest.mark.parametrize(
    "found",
    [
        existing(size=7),
        existing(sidecar(made_by=ANOTHER), SIZE),
        existing(sidecar(made_by=ANOTHER), SIZE - 1),
        existing(sidecar(made_by=ANOTHER), None),
        existing(sidecar(made_by=ANOTHER, request=OTHERWISE), SIZE),
        existing(sidecar("bought", made_by=ANOTHER, request=OTHERWISE), SIZE),
    ],
)
def test_overwrite_buys_where_else_it_would_be_refused_or_taken(found):
    assert isinstance(decide_at_path(found, None, spec(overwrite=True)), Submit)


@pytest.mark.parametrize(("age", "is_refused"), [(60, True), (86_399, True), (86_400, False), (86_401, False)])
def test_without_a_store_a_purchase_is_not_taken_off_its_only_record_while_it_may_come_back(age, is_refused):
    beside = sidecar("bought", made_by=ANOTHER, request=OTHERWISE)
    again = spec(overwrite=True, has_only_sidecar=True, now=NOW - 99 + age)
    step = decide_at_path(existing(beside), None, again)
    if is_refused:
        assert isinstance(after_poll(step, Job(job_id="j", status="failed"), NOW), Submit)
        step = after_poll(step, Job(job_id="j", status="completed", url="u"), NOW)
    assert isinstance(step, Unavailable if is_refused else Submit)


# Another task may submit while this one polls its job.

BUYS = Submit("the job of before has failed")


@pytest.mark.parametrize("overwrite", [False, True])
def test_right_before_a_purchase_what_exists_by_then_is_checked_once_more(overwrite):
    again = spec(overwrite=overwrite)
    others = sidecar(made_by=ANOTHER, job_id="of another")
    assert next_step_at(existing(), again, BUYS) == BUYS
    assert next_step_at(existing(sidecar("bought")), again, BUYS, {"j"}) == BUYS
    taken = next_step_at(existing(others, SIZE), again, BUYS, {"j"})
    assert taken == BUYS if overwrite else taken == Reuse(others, is_own=False)
    assert isinstance(next_step_at(existing(sidecar("intent", made_by=ANOTHER)), again, BUYS), Unavailable)
    assert isinstance(next_step_at(existing(problem="it is not JSON"), again, BUYS), RequestInvalid)
    left = next_step_at(existing(sidecar("bought"), SIZE), again, BUYS, {"j"})
    assert left == BUYS if overwrite else isinstance(left, RequestInvalid)


def test_what_another_task_has_bought_and_not_saved_is_named_when_it_is_left_behind():
    beside = sidecar("bought", made_by=ANOTHER, request=OTHERWISE)
    step = decide_at_path(existing(beside), None, spec(overwrite=True))
    assert "j of task cover of DAG covers, run first is left behind" in step.warning


def test_the_request_of_a_function_is_requested_only_to_compare_it_with_another_tasks():
    def never():
        raise AssertionError

    quiet = spec(request=never)
    for found, on_record in (
        (existing(), None),
        (existing(size=7), None),
        (existing(sidecar("intent", made_by=ANOTHER)), None),
        (existing(sidecar("bought")), stored()),
        (existing(sidecar(), SIZE), stored()),
        (existing(sidecar("bought")), None),
    ):
        decide_at_path(found, on_record, quiet)


# A purchase of this task is on record --------------------------------------------------------------------


@pytest.mark.parametrize("on_record", [stored(), None], ids=["in both places", "beside the picture"])
@pytest.mark.parametrize("is_cleared", [False, True])
class TestOfThisTask:
    def test_a_job_is_adopted_by_a_retry_and_by_a_clear(self, on_record, is_cleared):
        step = decide_at_path(existing(sidecar("bought")), on_record, spec(**CLEARED if is_cleared else {}))
        assert (type(step), step.job_id) == (PollFirst, "j")
        assert (step.begins_anew, step.found.submitted_at) == (is_cleared, NOW - 99)

    def test_a_saved_picture_is_taken_and_pictory_is_not_asked(self, on_record, is_cleared):
        step = decide_at_path(existing(sidecar(), SIZE), on_record, spec(**CLEARED if is_cleared else {}))
        assert step == Reuse(sidecar(), is_own=not is_cleared)

    def test_a_picture_that_is_gone_is_saved_again(self, on_record, is_cleared):
        step = decide_at_path(existing(sidecar()), on_record, spec(**CLEARED if is_cleared else {}))
        assert (type(step), step.job_id) == (PollFirst, "j")

    def test_a_picture_that_someone_has_changed_is_not_replaced(self, on_record, is_cleared):
        step = decide_at_path(existing(sidecar(), SIZE + 1), on_record, spec(**CLEARED if is_cleared else {}))
        assert isinstance(step, RequestInvalid)

    def test_with_overwrite_a_clear_buys_and_a_retry_does_not(self, on_record, is_cleared):
        again = spec(overwrite=True, **CLEARED if is_cleared else {})
        bought = decide_at_path(existing(sidecar("bought")), on_record, again)
        saved = decide_at_path(existing(sidecar(), SIZE), on_record, again)
        assert (type(bought), type(saved)) == ((Submit, Submit) if is_cleared else (PollFirst, Reuse))

    def test_an_intent_is_unknown_to_a_retry_and_bought_again_after_a_clear(self, on_record, is_cleared):
        value = on_record and stored(INTENT)
        step = decide_at_path(existing(sidecar("intent")), value, spec(**CLEARED if is_cleared else {}))
        assert isinstance(step, Submit if is_cleared else SubmitOutcomeUnknown)

    def test_another_request_is_adopted_by_a_retry_and_refused_after_a_clear(self, on_record, is_cleared):
        another = spec(**WANTS_ANOTHER, **CLEARED if is_cleared else {})
        bought = decide_at_path(existing(sidecar("bought")), on_record, another)
        saved = decide_at_path(existing(sidecar(), SIZE), on_record, another)
        assert (type(bought), type(saved)) == (PollFirst, RequestInvalid if is_cleared else Reuse)
        assert bool(bought.if_alive) == is_cleared
        if not is_cleared:
            assert "rendered differently" in saved.warning

    def test_a_mapped_task_refuses_another_request(self, on_record, is_cleared):
        mapped = MadeBy("covers", "second", "cover", 0)
        another = spec(made_by=mapped, **WANTS_ANOTHER, **CLEARED if is_cleared else {})
        bought = decide_at_path(existing(sidecar("bought", made_by=mapped)), on_record, another)
        if is_cleared:
            bought = after_poll(bought, Unavailable("x"), NOW)
        saved = decide_at_path(existing(sidecar(made_by=mapped), SIZE), on_record, another)
        for refused in (bought, saved):
            assert isinstance(refused, RequestInvalid)


def test_a_job_of_this_task_is_adopted_whatever_another_has_put_there():
    for beside in (sidecar("intent", made_by=ANOTHER), sidecar(made_by=ANOTHER, request=OTHERWISE), None):
        assert isinstance(decide_at_path(existing(beside, SIZE), stored(), spec()), PollFirst)


@pytest.mark.parametrize("answer", [Job(job_id="j", status="cleaned"), JobNotFound("x")])
def test_a_worker_that_does_not_see_the_sidecar_of_a_job_on_record_says_so_and_buys_nothing(answer):
    step = decide_at_path(existing(), stored(), spec())
    assert "do the workers share this storage" in step.warning
    refused = after_poll(step, answer, NOW)
    assert isinstance(refused, RequestInvalid)
    assert f"{PATH}.json" in refused.message


def test_a_job_that_a_person_has_put_into_the_store_is_adopted():
    step = decide_at_path(existing(sidecar("intent"), None), {"jobId": "found"}, spec(**CLEARED))
    assert (type(step), step.job_id) == (PollFirst, "found")


def test_after_a_clear_a_changed_request_with_a_changed_path_is_bought():
    step = decide_at_path(existing(), stored(), spec(**WANTS_ANOTHER, **CLEARED))
    assert isinstance(step, Submit)
    assert "(j) is left behind" in step.warning


def test_a_record_in_the_store_that_cannot_be_read_is_an_unknown_outcome():
    assert isinstance(decide_at_path(existing(), {"version": 9}, spec()), SubmitOutcomeUnknown)


def test_what_one_place_has_taken_and_the_other_has_not_is_on_record():
    assert latest(stored(INTENT), sidecar("bought"))["jobId"] == "j"
    assert latest(stored(), sidecar("intent"))["jobId"] == "j"
    assert "jobId" not in latest(stored(INTENT, max_tries=5), sidecar("bought"))
    assert latest(None, None) is None


# The description of what exists ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "has_its_picture", "expected"),
    [
        (existing(), False, "no picture"),
        (existing(size=0), False, "a file of 0 bytes"),
        (existing(size=1_234), False, "a file of 1,234 bytes"),
        (existing(sidecar("intent")), False, "a sidecar in state `intent` and no picture, job not known, of"),
        (existing(sidecar("intent"), 0), False, "`intent` next to a file of 0 bytes, job not known, of"),
        (existing(sidecar("bought")), False, "`bought` and no picture, job j, of"),
        (existing(sidecar("bought"), 1_234), False, "`bought` next to a file of 1,234 bytes, job j, of"),
        (existing(sidecar(), SIZE), True, "`saved` with its picture, job j, of"),
        (existing(sidecar()), False, "`saved` and the picture is gone, job j, of"),
        (existing(sidecar(), 1_234), False, "`saved` and the picture has 1,234 bytes instead of 1,000, job j, of"),
        (existing(sidecar(), 0), False, "`saved` and the picture has 0 bytes instead of 1,000, job j, of"),
    ],
)
def test_what_exists_is_described_with_its_state_its_size_its_job_its_task_and_its_request(
    found, has_its_picture, expected
):
    assert found.has_its_picture is has_its_picture
    if found.sidecar:
        expected += (
            " task cover of DAG covers, run second, for prompt 'A lighthouse at dawn', model 'flux-schnell'"
        )
    assert found.described.endswith(expected)


@pytest.mark.parametrize(
    ("marks", "is_marked"), [((), False), (("xmp",), True), (("c2pa",), False), (("c2pa", "xmp"), False)]
)
def test_a_changed_picture_can_be_saved_again_as_it_was(marks, is_marked):
    way = 'DownloadImageOperator(job_id="j", path=..., overwrite=True'
    for found, on_record in ((sidecar(made_by=ANOTHER, marks=marks), None), (sidecar(marks=marks), stored())):
        refused = decide_at_path(existing(found, SIZE + 1), on_record, spec())
        assert "the picture there is not the one that its sidecar describes" in refused.message
        assert (
            f"{way}{', mark_ai_generated=True' if is_marked else ''}) saves the one in the sidecar again"
            in refused.message
        )
        assert "Choose another path" in refused.message


@pytest.mark.parametrize(("source", "is_marked"), [("trainedAlgorithmicMedia", True), (None, False)])
def test_a_picture_with_xmp_of_its_own_is_saved_again_as_it_was(source, is_marked):
    found = sidecar(made_by=ANOTHER, marks=("xmp",))
    examined = found.saved._replace(digital_source_type=source, is_examined=True)
    refused = decide_at_path(existing(replace(found, saved=examined), SIZE + 1), None, spec())
    assert ("mark_ai_generated=True) saves the one in the sidecar again" in refused.message) is is_marked


def test_a_sidecar_that_cannot_be_read_next_to_a_job_on_record_says_that_it_is_paid_for():
    broken = existing(problem="it is not JSON")
    for on_record in (None, stored(INTENT)):
        assert "Find out what wrote it" in decide_at_path(broken, on_record, spec()).message
    paid = decide_at_path(broken, stored(), spec()).message
    assert (
        "Job j is on record for this task, and paid for: to save its picture, move the sidecar away and clear the task"
        in paid
    )
    assert f"its sidecar {PATH}.json cannot be read: it is not JSON" in paid
    assert "Find out what wrote it." in next_step_at(broken, spec(), BUYS).message


def test_a_refusal_names_the_path_what_exists_and_that_nothing_was_spent():
    refused = decide_at_path(existing(size=7), None, spec())
    assert refused.message == (
        "path '/srv/a.png' cannot be used: a file is there, without a sidecar that says what it is. "
        "Found: a file of 7 bytes. Nothing was sent and nothing was spent. Choose another path, for example one "
        "with the run in it, or set overwrite=True to buy and replace it."
    )


def test_what_another_task_is_buying_is_reported_with_its_sidecar():
    refused = decide_at_path(existing(sidecar("intent", made_by=ANOTHER)), None, spec())
    assert refused.message.startswith(f"A picture for '{PATH}' is being bought by another task")
    assert f"delete {PATH}.json and clear this task" in refused.message


def test_a_job_that_is_gone_is_reported_with_its_sidecar():
    step = decide_at_path(existing(sidecar("bought", made_by=ANOTHER)), None, spec())
    assert step.if_gone.fields == ("path",)
    assert step.if_gone.message.startswith(f"The sidecar {PATH}.json names job j, bought by task cover of DAG")
    assert (step.begins_anew, step.is_ours, step.if_alive) == (True, False, None)
    assert step.found.fingerprint == FINGERPRINT


def test_a_picture_on_its_way_that_would_be_replaced_is_reported_with_its_sidecar():
    beside = sidecar("bought", made_by=ANOTHER, request=OTHERWISE)
    step = decide_at_path(existing(beside), None, spec(overwrite=True, has_only_sidecar=True, now=NOW))
    assert f"A picture for '{PATH}' is bought and not saved yet" in step.if_alive.message
    assert f"delete {PATH}.json and clear this task" in step.if_alive.message
    assert step.is_ours is False


@pytest.mark.parametrize(("has_only_sidecar", "submitted_at"), [(False, NOW - 99), (True, None)])
def test_where_its_task_can_learn_of_it_elsewhere_or_its_age_is_unknown_a_purchase_is_left_behind(
    has_only_sidecar, submitted_at
):
    beside = sidecar("bought", made_by=ANOTHER, request=OTHERWISE, submitted_at=submitted_at)
    again = spec(overwrite=True, has_only_sidecar=has_only_sidecar, now=NOW)
    assert isinstance(decide_at_path(existing(beside), None, again), Submit)


# What is on record of this task, in part -----------------------------------------------------------------


def test_after_a_clear_the_same_request_is_adopted_though_its_order_was_another():
    step = decide_at_path(existing(), stored(), spec(fingerprint="over another connection", **CLEARED))
    assert (type(step), step.job_id, step.begins_anew) == (PollFirst, "j", True)
    bought = decide_at_path(existing(), stored(request=None), spec(fingerprint="another", **CLEARED))
    assert isinstance(bought, Submit), "what was asked for is not on record"


def test_after_a_clear_the_same_order_is_adopted_and_nobody_asks_for_its_request():
    def never():
        raise AssertionError

    step = decide_at_path(existing(), stored(request=OTHERWISE), spec(request=never, **CLEARED))
    assert (type(step), step.job_id) == (PollFirst, "j")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("size", [None, 7])
def test_where_pictory_does_not_have_this_tasks_job_any_longer_a_file_in_its_place_is_left_alone(size, overwrite):
    step = decide_at_path(existing(sidecar("bought"), size), stored(), spec(overwrite=overwrite))
    assert isinstance(step, PollFirst)
    if size is None or overwrite:
        assert step.if_gone is None
        return
    assert "Pictory no longer has this task's job, and another file is there" in step.if_gone.message
    assert isinstance(after_poll(step, Job(job_id="j", status="cleaned"), NOW), RequestInvalid)
    assert after_poll(step, Job(job_id="j", status="completed", url="u"), NOW).job_id == "j"


def test_a_sidecar_of_another_job_does_not_keep_this_tasks_job_from_being_bought_again():
    step = decide_at_path(existing(sidecar("bought", job_id="of another"), 7), stored(), spec())
    assert (step.job_id, step.if_gone) == ("j", None)


def test_a_sidecar_that_is_not_seen_is_reported_together_with_what_else_is_reported():
    unseen = f"Job j is on record for this task, and this worker does not see its sidecar {PATH}.json"
    step = decide_at_path(existing(), stored(), spec())
    assert step.warning == f"{unseen}: do the workers share this storage?"
    assert step.if_gone.fields == ("path",)
    assert step.if_gone.message.startswith(f"{unseen}; Pictory no longer has the job either.")
    step = decide_at_path(existing(), stored(), spec(**WANTS_ANOTHER))
    assert "rendered differently" in step.warning
    assert step.warning.endswith(f" {unseen}: do the workers share this storage?")


def test_a_saved_picture_of_the_same_order_is_taken_without_a_warning():
    assert decide_at_path(existing(sidecar(), SIZE), stored(), spec()).warning is None
    warned = decide_at_path(existing(sidecar(), SIZE), stored(), spec(**WANTS_ANOTHER)).warning
    assert "choose another path or set overwrite=True, and clear the task" in warned


def test_what_a_user_writes_into_a_sidecar_counts_where_the_store_knows_an_intent_of_the_same():
    beside = sidecar("bought")
    assert latest(stored(INTENT, fingerprint="another"), beside) == stored(INTENT, fingerprint="another")
    assert latest({"version": 9}, beside) == {"version": 9}
    assert latest(None, beside) == beside.submission.to_dict()
    assert latest(stored(), None) == stored()
    assert latest(stored(job_id="k"), beside)["jobId"] == "k"


@pytest.mark.parametrize(("map_index", "is_mapped"), [(-1, False), (0, True), (7, True)])
def test_a_mapped_task_has_an_index_from_0_on(map_index, is_mapped):
    assert spec(made_by=ME._replace(map_index=map_index)).is_mapped is is_mapped


def test_right_before_a_purchase_a_job_of_this_task_that_has_come_to_nothing_is_not_an_obstacle():
    left = next_step_at(existing(sidecar("bought"), SIZE), spec(), BUYS, {"j"})
    assert "its job gave no picture, and another file is there" in left.message
    step = next_step_at(existing(sidecar("bought", made_by=ANOTHER)), spec(), BUYS, {"k"})
    assert (type(step), step.job_id) == (PollFirst, "j")


# All of it together --------------------------------------------------------------------------------------

states = st.sampled_from(["intent", "bought", "saved"])
sidecars = st.none() | st.builds(
    sidecar,
    states,
    made_by=st.sampled_from([ME, ANOTHER]),
    request=st.sampled_from([ASKED, OTHERWISE]),
    fingerprint=st.sampled_from([FINGERPRINT, "another"]),
    max_tries=st.sampled_from([2, 5]),
)
records = st.none() | st.builds(
    stored,
    st.sampled_from([PURCHASE, INTENT]),
    fingerprint=st.sampled_from([FINGERPRINT, "another"]),
    max_tries=st.sampled_from([2, 5]),
)


@given(sidecars, records, st.sampled_from([None, SIZE, SIZE + 1]))
def test_without_overwrite_nothing_is_bought_where_a_job_of_this_request_is_known(beside, on_record, size):
    step = decide_at_path(existing(beside, size), on_record, spec())
    if isinstance(step, Submit):
        known = [beside.submission] if beside and beside.made_by == ME else []
        known += [Submission.from_dict(on_record)] if on_record else []
        assert not [found for found in known if found.job_id and found.fingerprint == FINGERPRINT]
        assert size is None or beside is not None, "nor where a file lies that nothing tells of"
        if beside and beside.made_by != ME:
            raise AssertionError("nor where another task's sidecar lies")


@given(sidecars, records, st.sampled_from([None, SIZE]), st.booleans())
def test_a_retry_after_an_intent_never_buys(beside, on_record, size, overwrite):
    if on_record is None or Submission.from_dict(on_record).max_tries != 2:
        return
    step = decide_at_path(existing(beside, size), on_record, spec(overwrite=overwrite))
    assert not isinstance(step, Submit)


def test_a_wish_replaces_nothing_unless_it_says_so():
    plain = spec()
    assert (plain.overwrite, plain.has_only_sidecar, plain.now) == (False, False, 0)
    assert sidecar().keeps_spending is False


# A picture that was moved aside ---------------------------------------------------------------------------


def redone(made_by=ANOTHER, size=None):
    """Return what exists after ``airflow pictory redo``; with its size, before the picture was removed."""
    moved = sidecar(made_by=made_by).as_moved("a.v1.png")
    return existing(replace(moved, saved=FILE) if size == SIZE else moved, size)


@pytest.mark.parametrize("made_by", [ME, ANOTHER])
@pytest.mark.parametrize("on_record", [None, stored(), stored(request=OTHERWISE), stored(submitted_at=None)])
@pytest.mark.parametrize("size", [None, SIZE])
@pytest.mark.parametrize("how", [{}, CLEARED, {"overwrite": True}, {"replaces_changed": True}, WANTS_ANOTHER])
def test_in_place_of_a_picture_that_was_moved_another_is_bought_whatever_names_its_job(
    made_by, on_record, size, how
):
    assert decide_at_path(redone(made_by, size), on_record, spec(**how)) == Submit()


@pytest.mark.parametrize("on_record", [None, stored()])
def test_another_file_in_its_place_is_only_replaced_with_overwrite(on_record):
    refused = decide_at_path(redone(ME, 7), on_record, spec())
    assert isinstance(refused, RequestInvalid)
    assert "next to a file of 7 bytes" in refused.message
    assert decide_at_path(redone(ME, 7), on_record, spec(overwrite=True)) == Submit()


@pytest.mark.parametrize(
    ("on_record", "expected"),
    [
        (stored(INTENT, fingerprint="another"), SubmitOutcomeUnknown),
        (stored(job_id="unsaved"), PollFirst),
        ("junk" * 9, PollFirst),
        ({"version": 9}, SubmitOutcomeUnknown),
    ],
)
def test_a_record_of_anything_but_the_job_whose_picture_was_moved_still_counts(on_record, expected):
    assert isinstance(decide_at_path(redone(), on_record, spec()), expected)


@pytest.mark.parametrize("state", ["intent", "bought", "saved"])
@pytest.mark.parametrize("is_cleared", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_was_bought_in_its_place_counts_and_not_the_old_record(state, is_cleared, overwrite):
    """The state store of the task that has bought the first picture still names the old job."""
    new = replace(sidecar(state, ANOTHER, job_id=None if state == "intent" else "new"), redone=("j",))
    how = {"overwrite": overwrite} | (CLEARED if is_cleared else {})
    step = decide_at_path(existing(new, SIZE if state == "saved" else None), stored(), spec(**how))
    if state == "intent":
        assert isinstance(step, Unavailable)
    elif state == "bought":
        assert (step.job_id, step.is_ours) == ("new", False)
    elif overwrite and is_cleared:
        assert step == Submit()
    else:
        assert step == Reuse(new, is_own=False)


REFUSED = {
    "no sidecar": (existing(size=SIZE), "has no sidecar"),
    "nothing": (existing(), "there is no picture"),
    "unreadable": (existing(problem="it is not JSON"), "it is not JSON"),
    "intent": (existing(sidecar("intent")), "has not finished with it (job not known)"),
    "bought": (existing(sidecar("bought")), "has not finished with it (job j)"),
    "being marked": (existing(replace(sidecar(), may_be=(FILE,)), SIZE), "has not finished with it"),
    "gone": (existing(sidecar()), "the picture is gone"),
    "another size": (existing(sidecar(), 7), "7 bytes instead of"),
    "another file": (redone(size=7), "another file is there now"),
    "a version": (existing(replace(sidecar(), file="b.png"), SIZE)._replace(path="/srv/b.v2.png"), "/srv/b.png."),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_redo_moves_nothing_but_a_saved_picture(what):
    found, text = REFUSED[what]
    refused = refused_redo(found)
    assert isinstance(refused, RequestInvalid)
    assert text in refused.message
    assert "Nothing was moved, and nothing was bought." in refused.message


@pytest.mark.parametrize("found", [existing(sidecar(), SIZE), redone(), redone(size=SIZE)])
def test_a_redo_moves_a_saved_picture_and_can_be_repeated(found):
    assert refused_redo(found) is None


@pytest.mark.parametrize(("file", "is_kept"), [("a.png", False), ("b.png", False), ("c.png", True)])
def test_a_version_is_not_replaced_by_a_changed_request(file, is_kept):
    found = existing(replace(sidecar(made_by=ANOTHER), file=file), SIZE)._replace(path="/srv/c.v12.png")
    step = decide_at_path(found, None, spec(replaces_changed=True, **WANTS_ANOTHER))
    assert isinstance(step, RequestInvalid if is_kept else Submit)
