# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Take, adopt, buy or refuse: what a task does about what lies where its picture is to go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.errors import JobNotFound, RequestInvalid, SubmitOutcomeUnknown, Unavailable
from pictory_provider.api.models import Job
from pictory_provider.images.mark import mark
from pictory_provider.images.reuse import Lying, Reuse, Wish, first_step_at, latest, next_step_at
from pictory_provider.images.sidecar import MadeBy, SavedFile, Sidecar
from pictory_provider.jobs.submission import LookFirst, Submission, Submit, after_look

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


def there(beside=None, size=None, problem=None):
    return Lying(PATH, beside, problem, size)


def wish(**changes):
    fields = {
        "me": ME,
        "fingerprint": FINGERPRINT,
        "order": ASKED,
        "request": lambda: ASKED,
        "max_tries": 2,
        "retries": 2,
        **changes,
    }
    return Wish(**fields)


def stored(submission=PURCHASE, **changes):
    return replace(submission, **changes).plain()


CLEARED = {"max_tries": 5}
WANTS_ANOTHER = {"fingerprint": "another", "order": OTHERWISE, "request": lambda: OTHERWISE}


# Nothing is on record of this task -----------------------------------------------------------------------


def test_where_nothing_lies_it_is_bought():
    assert first_step_at(there(), None, wish()) == Submit()


def test_a_file_that_nothing_tells_of_is_left_alone():
    refused = first_step_at(there(size=7), None, wish())
    assert isinstance(refused, RequestInvalid)
    assert "a file of 7 bytes" in refused.message
    assert refused.fields == ("path",)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("on_record", [None, stored(), stored(INTENT)])
def test_a_sidecar_that_cannot_be_read_is_never_replaced(overwrite, on_record):
    refused = first_step_at(there(problem="it is no JSON", size=SIZE), on_record, wish(overwrite=overwrite))
    assert isinstance(refused, RequestInvalid)
    assert "it is no JSON" in refused.message


def test_the_picture_of_the_same_request_is_taken_whoever_had_it_made():
    found = first_step_at(there(sidecar(made_by=ANOTHER), SIZE), None, wish())
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
def test_a_picture_is_taken_only_if_it_has_the_size_that_is_told(marks, size, is_taken):
    found = first_step_at(there(sidecar(made_by=ANOTHER, marks=marks), size), None, wish())
    assert isinstance(found, Reuse if is_taken else RequestInvalid)


@pytest.mark.parametrize("state", ["bought", "saved"])
@pytest.mark.parametrize("size", [SIZE, None])
def test_the_picture_of_another_request_is_refused_and_both_are_shown(state, size):
    beside = sidecar(state, made_by=ANOTHER, request=OTHERWISE)
    refused = first_step_at(there(beside, size), None, wish())
    if (state, size) == ("bought", None):
        refused = after_look(refused, Job(job_id="j", status="in-progress"), NOW)
    assert isinstance(refused, RequestInvalid)
    for shown in ("lighthouse at dawn", "lighthouse at dusk", "run first", "job j", "Nothing was sent"):
        assert shown in refused.message


@pytest.mark.parametrize("made_by", [ME, ANOTHER])
def test_where_the_job_of_another_request_has_come_to_nothing_this_one_is_bought(made_by):
    beside = sidecar("bought", made_by=made_by, request=OTHERWISE, fingerprint="of another")
    step = first_step_at(there(beside), None, wish(**CLEARED))
    assert isinstance(after_look(step, Job(job_id="j", status="failed"), NOW), Submit)
    assert isinstance(after_look(step, Job(job_id="j", status="completed", url="u"), NOW), RequestInvalid)
    assert isinstance(after_look(step, Unavailable("x"), NOW), RequestInvalid)


def test_a_job_that_another_task_has_bought_for_the_same_picture_is_adopted():
    step = first_step_at(there(sidecar("bought", made_by=ANOTHER)), None, wish())
    assert (type(step), step.job_id, step.found.submitted_at) == (LookFirst, "j", NOW - 99)
    assert "run first" in step.warning


@pytest.mark.parametrize("answer", [JobNotFound("x"), Job(job_id="j", status="cleaned")])
def test_where_pictory_does_not_have_another_tasks_job_nothing_is_bought(answer):
    step = first_step_at(there(sidecar("bought", made_by=ANOTHER)), None, wish())
    refused = after_look(step, answer, NOW)
    assert isinstance(refused, RequestInvalid)
    assert "delete the sidecar" in refused.message


def test_another_tasks_job_may_be_missing_in_its_first_minute():
    step = first_step_at(there(sidecar("bought", made_by=ANOTHER)), None, wish())
    assert after_look(step, JobNotFound("x"), NOW - 99 + 59).job_id == "j"


def test_another_tasks_job_is_waited_for_from_now_on_and_stays_on_that_tasks_record():
    adopted = after_look(
        first_step_at(there(sidecar("bought", made_by=ANOTHER)), None, wish()), Job(job_id="j", status="x"), NOW
    )
    assert (adopted.submitted_at, adopted.is_to_keep) == (NOW, False)


def test_where_another_tasks_job_has_failed_it_is_bought_again():
    step = first_step_at(there(sidecar("bought", made_by=ANOTHER)), None, wish())
    assert isinstance(after_look(step, Job(job_id="j", status="failed"), NOW), Submit)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("request_", [ASKED, OTHERWISE])
def test_what_another_task_is_buying_may_be_there_for_a_retry(overwrite, request_):
    beside = sidecar("intent", made_by=ANOTHER, request=request_)
    refused = first_step_at(there(beside), None, wish(overwrite=overwrite))
    assert isinstance(refused, Unavailable)
    assert "run first" in refused.message


@pytest.mark.parametrize(
    "found",
    [
        there(size=7),
        there(sidecar(made_by=ANOTHER), SIZE),
        there(sidecar(made_by=ANOTHER), SIZE - 1),
        there(sidecar(made_by=ANOTHER), None),
        there(sidecar(made_by=ANOTHER, request=OTHERWISE), SIZE),
        there(sidecar("bought", made_by=ANOTHER, request=OTHERWISE), SIZE),
    ],
)
def test_overwrite_buys_where_else_it_would_be_refused_or_taken(found):
    assert isinstance(first_step_at(found, None, wish(overwrite=True)), Submit)


@pytest.mark.parametrize(("age", "is_refused"), [(60, True), (86_399, True), (86_400, False), (86_401, False)])
def test_without_a_store_a_purchase_is_not_taken_off_its_only_record_while_it_may_come_back(age, is_refused):
    beside = sidecar("bought", made_by=ANOTHER, request=OTHERWISE)
    again = wish(overwrite=True, is_only_here=True, now=NOW - 99 + age)
    step = first_step_at(there(beside), None, again)
    if is_refused:
        assert isinstance(after_look(step, Job(job_id="j", status="failed"), NOW), Submit)
        step = after_look(step, Job(job_id="j", status="completed", url="u"), NOW)
    assert isinstance(step, Unavailable if is_refused else Submit)


# Another task may come while this one looks at its job.

BUYS = Submit("the job of before has failed")


@pytest.mark.parametrize("overwrite", [False, True])
def test_right_before_a_purchase_what_lies_there_by_then_is_looked_at_once_more(overwrite):
    again = wish(overwrite=overwrite)
    others = sidecar(made_by=ANOTHER, job_id="of another")
    assert next_step_at(there(), again, BUYS) is BUYS
    assert next_step_at(there(sidecar("bought")), again, BUYS, {"j"}) is BUYS
    taken = next_step_at(there(others, SIZE), again, BUYS, {"j"})
    assert taken is BUYS if overwrite else taken == Reuse(others, is_own=False)
    assert isinstance(next_step_at(there(sidecar("intent", made_by=ANOTHER)), again, BUYS), Unavailable)
    assert isinstance(next_step_at(there(problem="it is no JSON"), again, BUYS), RequestInvalid)
    left = next_step_at(there(sidecar("bought"), SIZE), again, BUYS, {"j"})
    assert left is BUYS if overwrite else isinstance(left, RequestInvalid)


def test_what_another_task_has_bought_and_not_saved_is_named_when_it_is_left_behind():
    beside = sidecar("bought", made_by=ANOTHER, request=OTHERWISE)
    step = first_step_at(there(beside), None, wish(overwrite=True))
    assert "j of task cover of DAG covers, run first is left behind" in step.warning


def test_the_request_of_a_function_is_asked_for_only_to_compare_it_with_another_tasks():
    def never():
        raise AssertionError

    quiet = wish(request=never)
    for found, on_record in (
        (there(), None),
        (there(size=7), None),
        (there(sidecar("intent", made_by=ANOTHER)), None),
        (there(sidecar("bought")), stored()),
        (there(sidecar(), SIZE), stored()),
        (there(sidecar("bought")), None),
    ):
        first_step_at(found, on_record, quiet)


# A purchase of this task is on record --------------------------------------------------------------------


@pytest.mark.parametrize("on_record", [stored(), None], ids=["in both places", "beside the picture"])
@pytest.mark.parametrize("is_cleared", [False, True])
class TestOfThisTask:
    def test_a_job_is_adopted_by_a_retry_and_by_a_clear(self, on_record, is_cleared):
        step = first_step_at(there(sidecar("bought")), on_record, wish(**CLEARED if is_cleared else {}))
        assert (type(step), step.job_id) == (LookFirst, "j")
        assert (step.begins_anew, step.found.submitted_at) == (is_cleared, NOW - 99)

    def test_a_saved_picture_is_taken_and_pictory_is_not_asked(self, on_record, is_cleared):
        step = first_step_at(there(sidecar(), SIZE), on_record, wish(**CLEARED if is_cleared else {}))
        assert step == Reuse(sidecar(), is_own=not is_cleared)

    def test_a_picture_that_is_gone_is_saved_again(self, on_record, is_cleared):
        step = first_step_at(there(sidecar()), on_record, wish(**CLEARED if is_cleared else {}))
        assert (type(step), step.job_id) == (LookFirst, "j")

    def test_a_picture_that_someone_has_changed_is_not_replaced(self, on_record, is_cleared):
        step = first_step_at(there(sidecar(), SIZE + 1), on_record, wish(**CLEARED if is_cleared else {}))
        assert isinstance(step, RequestInvalid)

    def test_with_overwrite_a_clear_buys_and_a_retry_does_not(self, on_record, is_cleared):
        again = wish(overwrite=True, **CLEARED if is_cleared else {})
        bought = first_step_at(there(sidecar("bought")), on_record, again)
        saved = first_step_at(there(sidecar(), SIZE), on_record, again)
        assert (type(bought), type(saved)) == ((Submit, Submit) if is_cleared else (LookFirst, Reuse))

    def test_an_intent_is_unknown_to_a_retry_and_bought_again_after_a_clear(self, on_record, is_cleared):
        value = on_record and stored(INTENT)
        step = first_step_at(there(sidecar("intent")), value, wish(**CLEARED if is_cleared else {}))
        assert isinstance(step, Submit if is_cleared else SubmitOutcomeUnknown)

    def test_another_request_is_adopted_by_a_retry_and_refused_after_a_clear(self, on_record, is_cleared):
        another = wish(**WANTS_ANOTHER, **CLEARED if is_cleared else {})
        bought = first_step_at(there(sidecar("bought")), on_record, another)
        saved = first_step_at(there(sidecar(), SIZE), on_record, another)
        assert (type(bought), type(saved)) == (LookFirst, RequestInvalid if is_cleared else Reuse)
        assert bool(bought.if_alive) == is_cleared
        if not is_cleared:
            assert "rendered differently" in saved.warning

    def test_a_mapped_task_refuses_another_request(self, on_record, is_cleared):
        mapped = MadeBy("covers", "second", "cover", 0)
        another = wish(me=mapped, **WANTS_ANOTHER, **CLEARED if is_cleared else {})
        bought = first_step_at(there(sidecar("bought", made_by=mapped)), on_record, another)
        if is_cleared:
            bought = after_look(bought, Unavailable("x"), NOW)
        saved = first_step_at(there(sidecar(made_by=mapped), SIZE), on_record, another)
        for refused in (bought, saved):
            assert isinstance(refused, RequestInvalid)


def test_a_job_of_this_task_is_adopted_whatever_another_has_put_there():
    for beside in (sidecar("intent", made_by=ANOTHER), sidecar(made_by=ANOTHER, request=OTHERWISE), None):
        assert isinstance(first_step_at(there(beside, SIZE), stored(), wish()), LookFirst)


@pytest.mark.parametrize("answer", [Job(job_id="j", status="cleaned"), JobNotFound("x")])
def test_a_worker_that_does_not_see_the_sidecar_of_a_job_on_record_says_so_and_buys_nothing(answer):
    step = first_step_at(there(), stored(), wish())
    assert "do the workers share this storage" in step.warning
    refused = after_look(step, answer, NOW)
    assert isinstance(refused, RequestInvalid)
    assert f"{PATH}.json" in refused.message


def test_a_job_that_a_person_has_put_into_the_store_is_adopted():
    step = first_step_at(there(sidecar("intent"), None), {"jobId": "found"}, wish(**CLEARED))
    assert (type(step), step.job_id) == (LookFirst, "found")


def test_after_a_clear_a_changed_request_with_a_changed_path_is_bought():
    step = first_step_at(there(), stored(), wish(**WANTS_ANOTHER, **CLEARED))
    assert isinstance(step, Submit)
    assert "j, is left behind" in step.warning


def test_a_record_in_the_store_that_cannot_be_read_is_an_unknown_outcome():
    assert isinstance(first_step_at(there(), {"version": 9}, wish()), SubmitOutcomeUnknown)


def test_what_one_place_has_taken_and_the_other_has_not_is_on_record():
    assert latest(stored(INTENT), sidecar("bought"))["jobId"] == "j"
    assert latest(stored(), sidecar("intent"))["jobId"] == "j"
    assert "jobId" not in latest(stored(INTENT, max_tries=5), sidecar("bought"))
    assert latest(None, None) is None


# What is said of what lies there -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "has_its_picture", "told_"),
    [
        (there(), False, "no picture"),
        (there(size=0), False, "a file of 0 bytes"),
        (there(size=1_234), False, "a file of 1,234 bytes"),
        (there(sidecar("intent")), False, "a sidecar in state `intent` and no picture, job not known, of"),
        (there(sidecar("intent"), 0), False, "`intent` beside a file of 0 bytes, job not known, of"),
        (there(sidecar("bought")), False, "`bought` and no picture, job j, of"),
        (there(sidecar("bought"), 1_234), False, "`bought` beside a file of 1,234 bytes, job j, of"),
        (there(sidecar(), SIZE), True, "`saved` with its picture, job j, of"),
        (there(sidecar()), False, "`saved` and the picture is gone, job j, of"),
        (there(sidecar(), 1_234), False, "`saved` and the picture has 1,234 bytes in place of 1,000, job j, of"),
        (there(sidecar(), 0), False, "`saved` and the picture has 0 bytes in place of 1,000, job j, of"),
    ],
)
def test_what_lies_there_is_described_with_its_state_its_size_its_job_its_task_and_its_request(
    found, has_its_picture, told_
):
    assert found.has_its_picture is has_its_picture
    if found.sidecar:
        told_ += " task cover of DAG covers, run second, for prompt 'A lighthouse at dawn', model 'flux-schnell'"
    assert found.described.endswith(told_)


@pytest.mark.parametrize(
    ("marks", "is_marked"), [((), False), (("xmp",), True), (("c2pa",), False), (("c2pa", "xmp"), False)]
)
def test_a_changed_picture_can_be_saved_again_as_it_was(marks, is_marked):
    way = 'DownloadImageOperator(job_id="j", path=..., overwrite=True'
    for found, on_record in ((sidecar(made_by=ANOTHER, marks=marks), None), (sidecar(marks=marks), stored())):
        refused = first_step_at(there(found, SIZE + 1), on_record, wish())
        assert "the picture there is not the one that its sidecar tells of" in refused.message
        assert f"{way}{', mark_ai_generated=True' if is_marked else ''}) saves that one again" in refused.message
        assert "Choose another path" in refused.message


def test_a_sidecar_that_cannot_be_read_beside_a_job_on_record_says_that_it_is_paid_for():
    broken = there(problem="it is no JSON")
    for on_record in (None, stored(INTENT)):
        assert "Who wrote it? Move it away" in first_step_at(broken, on_record, wish()).message
    paid = first_step_at(broken, stored(), wish()).message
    assert "Job j is on record for this task, and paid for: move the sidecar away and clear the task" in paid
    assert f"its sidecar {PATH}.json cannot be read: it is no JSON" in paid
    assert "Who wrote it?" in next_step_at(broken, wish(), BUYS).message


def test_a_refusal_names_the_path_what_lies_there_and_that_nothing_was_spent():
    refused = first_step_at(there(size=7), None, wish())
    assert refused.message == (
        "path '/srv/a.png' cannot be used: something is there, without the sidecar that would tell what it is. "
        "There is: a file of 7 bytes. Nothing was sent and nothing was spent. Choose another path, one with the "
        "run in it for example, or set overwrite=True to buy and replace it."
    )


def test_what_another_task_is_buying_is_told_with_its_sidecar():
    refused = first_step_at(there(sidecar("intent", made_by=ANOTHER)), None, wish())
    assert refused.message.startswith(f"A picture for '{PATH}' is being bought by another task")
    assert f"delete {PATH}.json and clear this task" in refused.message


def test_a_job_that_is_gone_is_told_with_its_sidecar():
    step = first_step_at(there(sidecar("bought", made_by=ANOTHER)), None, wish())
    assert step.if_gone.fields == ("path",)
    assert step.if_gone.message.startswith(f"The sidecar {PATH}.json tells of job j, bought by task cover of DAG")
    assert (step.begins_anew, step.is_ours, step.if_alive) == (True, False, None)
    assert step.found.fingerprint == FINGERPRINT


def test_a_picture_on_its_way_that_would_be_replaced_is_told_with_its_sidecar():
    beside = sidecar("bought", made_by=ANOTHER, request=OTHERWISE)
    step = first_step_at(there(beside), None, wish(overwrite=True, is_only_here=True, now=NOW))
    assert f"on its way to '{PATH}'" in step.if_alive.message
    assert f"delete {PATH}.json and clear this task" in step.if_alive.message
    assert step.is_ours is False


@pytest.mark.parametrize(("is_only_here", "submitted_at"), [(False, NOW - 99), (True, None)])
def test_where_its_task_can_learn_of_it_elsewhere_or_nobody_knows_its_age_a_purchase_is_left_behind(
    is_only_here, submitted_at
):
    beside = sidecar("bought", made_by=ANOTHER, request=OTHERWISE, submitted_at=submitted_at)
    again = wish(overwrite=True, is_only_here=is_only_here, now=NOW)
    assert isinstance(first_step_at(there(beside), None, again), Submit)


# What is on record of this task, in part -----------------------------------------------------------------


def test_after_a_clear_the_same_request_is_adopted_though_its_order_was_another():
    step = first_step_at(there(), stored(), wish(fingerprint="over another connection", **CLEARED))
    assert (type(step), step.job_id, step.begins_anew) == (LookFirst, "j", True)
    bought = first_step_at(there(), stored(request=None), wish(fingerprint="another", **CLEARED))
    assert isinstance(bought, Submit), "what was asked for is not on record"


def test_after_a_clear_the_same_order_is_adopted_and_nobody_asks_for_its_request():
    def never():
        raise AssertionError

    step = first_step_at(there(), stored(request=OTHERWISE), wish(request=never, **CLEARED))
    assert (type(step), step.job_id) == (LookFirst, "j")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("size", [None, 7])
def test_where_pictory_does_not_have_this_tasks_job_any_more_a_file_in_its_place_is_left_alone(size, overwrite):
    step = first_step_at(there(sidecar("bought"), size), stored(), wish(overwrite=overwrite))
    assert isinstance(step, LookFirst)
    if size is None or overwrite:
        assert step.if_gone is None
        return
    assert "Pictory does not have this task's job any more, and something lies there" in step.if_gone.message
    assert isinstance(after_look(step, Job(job_id="j", status="cleaned"), NOW), RequestInvalid)
    assert after_look(step, Job(job_id="j", status="completed", url="u"), NOW).job_id == "j"


def test_a_sidecar_of_another_job_does_not_keep_this_tasks_job_from_being_bought_again():
    step = first_step_at(there(sidecar("bought", job_id="of another"), 7), stored(), wish())
    assert (step.job_id, step.if_gone) == ("j", None)


def test_a_sidecar_that_is_not_seen_is_told_beside_what_else_is_told():
    unseen = f"Job j is on record for this task, and this worker does not see its sidecar {PATH}.json"
    step = first_step_at(there(), stored(), wish())
    assert step.warning == f"{unseen}: do the workers share this storage?"
    assert step.if_gone.fields == ("path",)
    assert step.if_gone.message.startswith(f"{unseen}, nor does Pictory have the job any more.")
    step = first_step_at(there(), stored(), wish(**WANTS_ANOTHER))
    assert "rendered differently" in step.warning
    assert step.warning.endswith(f" {unseen}: do the workers share this storage?")


def test_a_saved_picture_of_the_same_order_is_taken_without_a_warning():
    assert first_step_at(there(sidecar(), SIZE), stored(), wish()).warning is None
    warned = first_step_at(there(sidecar(), SIZE), stored(), wish(**WANTS_ANOTHER)).warning
    assert "choose another path or set overwrite=True, and clear the task" in warned


def test_what_is_put_beside_a_picture_by_hand_counts_where_the_store_knows_an_intent_of_the_same():
    beside = sidecar("bought")
    assert latest(stored(INTENT, fingerprint="another"), beside) == stored(INTENT, fingerprint="another")
    assert latest({"version": 9}, beside) == {"version": 9}
    assert latest(None, beside) == beside.submission.plain()
    assert latest(stored(), None) == stored()
    assert latest(stored(job_id="k"), beside)["jobId"] == "k"


@pytest.mark.parametrize(("map_index", "is_mapped"), [(-1, False), (0, True), (7, True)])
def test_a_mapped_task_has_an_index_from_0_on(map_index, is_mapped):
    assert wish(me=ME._replace(map_index=map_index)).is_mapped is is_mapped


def test_right_before_a_purchase_a_job_of_this_task_that_has_come_to_nothing_is_no_obstacle():
    left = next_step_at(there(sidecar("bought"), SIZE), wish(), BUYS, {"j"})
    assert "its job has come to nothing, and something else lies there" in left.message
    step = next_step_at(there(sidecar("bought", made_by=ANOTHER)), wish(), BUYS, {"k"})
    assert (type(step), step.job_id) == (LookFirst, "j")


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
    step = first_step_at(there(beside, size), on_record, wish())
    if isinstance(step, Submit):
        known = [beside.submission] if beside and beside.made_by == ME else []
        known += [Submission.read(on_record)] if on_record else []
        assert not [found for found in known if found.job_id and found.fingerprint == FINGERPRINT]
        assert size is None or beside is not None, "nor where a file lies that nothing tells of"
        if beside and beside.made_by != ME:
            raise AssertionError("nor where another task's sidecar lies")


@given(sidecars, records, st.sampled_from([None, SIZE]), st.booleans())
def test_a_retry_after_an_intent_never_buys(beside, on_record, size, overwrite):
    if on_record is None or Submission.read(on_record).max_tries != 2:
        return
    step = first_step_at(there(beside, size), on_record, wish(overwrite=overwrite))
    assert not isinstance(step, Submit)


def test_a_wish_replaces_nothing_unless_it_says_so():
    plain = wish()
    assert (plain.overwrite, plain.is_only_here, plain.now) == (False, False, 0)
    assert sidecar().keeps_spending is False
