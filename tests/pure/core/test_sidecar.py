# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Sidecars are written and read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.ledger import Charge
from pictory_provider.core.picture_names import is_version_name, version_name
from pictory_provider.core.sidecar import SavedFile, Sidecar, Unreadable, request_sha256
from pictory_provider.core.submission import Submission, canonicalize, describe_request, is_same_request

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
    return json.dumps({**json.loads(SIDECAR.to_json()), **changes})


def test_it_is_read_as_what_was_written():
    assert Sidecar.from_json(SIDECAR.to_json()) == SIDECAR


def test_it_says_what_a_reader_of_the_folder_wants_to_know():
    assert json.loads(SIDECAR.to_json()) == {
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
    assert "für alle 🗼" in SIDECAR.to_json().decode()


def test_what_the_account_had_used_is_in_it_only_until_the_picture_is_saved():
    bought = replace(SIDECAR, submission=replace(BOUGHT, credits_before=4.6), saved=None)
    assert Sidecar.from_json(bought.to_json()) == bought
    assert b"credits_before" not in replace(bought, saved=SAVED).to_json()


def test_the_digest_of_a_request_can_be_computed_independently():
    text = '{"request":{"model":"flux-schnell","prompt":"Ein Leuchtturm für alle 🗼"},"version":1}'
    assert request_sha256(REQUEST) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("submission", "saved", "state"),
    [(Submission(max_tries=0), None, "intent"), (BOUGHT, None, "bought"), (BOUGHT, SAVED, "saved")],
)
def test_its_state_follows_from_what_is_known(submission, saved, state):
    sidecar = Sidecar(file="a.png", submission=submission, made_by=MadeBy("d", "r", "t", -1), saved=saved)
    assert (
        sidecar.state
        == Sidecar.from_json(sidecar.to_json()).state
        == json.loads(sidecar.to_json())["state"]
        == state
    )


def test_a_job_id_that_a_person_wrote_into_an_intent_is_a_job():
    intent = Sidecar(file="a.png", submission=Submission(max_tries=0), made_by=MadeBy("d", "r", "t", -1))
    read = Sidecar.from_json(json.dumps({**json.loads(intent.to_json()), "job_id": "found"}))
    assert (read.state, read.submission.job_id, read.submission.is_from_user) == ("bought", "found", True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[1]", "list"),
        ('"saved"', "str"),
        (changed(version=2), "version is 2"),
        (changed(version=None), "version is None"),
        (changed(version=True), "version is True"),
        (changed(version=1.0), "version is 1.0"),
        (changed(version=0), "this release reads 1"),
        (changed(state="bought", job_id=None), "its state is 'bought' and its job_id None"),
        (changed(state=None), "its state is None"),
        (changed(earlier=7), "its state is"),
        (changed(size="12"), "size or sha256 is missing"),
        (changed(sha256=7), "size or sha256 is missing"),
        (changed(request=[]), "its request or made_by is missing"),
        (changed(made_by=[]), "its request or made_by is missing"),
        (changed(request=None), "its request or made_by"),
        (changed(made_by="me"), "made_by is missing"),
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
        Sidecar.from_json(text)


def test_half_a_character_in_a_prompt_is_kept():
    half = replace(SIDECAR, submission=replace(BOUGHT, request={"prompt": "half \ud83d"}))
    assert Sidecar.from_json(half.to_json().decode("utf-8")) == half


texts = st.text(st.characters(exclude_categories=()))  # halves of surrogate pairs too
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
requests = st.dictionaries(st.sampled_from(["prompt", "model", "referenceImageUrl", "seed"]) | texts, json_like)


@example({"prompt": "\ud83d\ude00", "model": None})
@example({"prompt": 7, "loras": [{"name": "a", "weight": 0.5}], "seed": None})
@given(requests)
def test_whatever_was_asked_for_its_sidecar_and_its_record_in_the_store_can_be_read(request):
    bought = replace(BOUGHT, request=canonicalize(request))
    for submission in (bought, replace(BOUGHT, request=request)):
        sidecar = replace(SIDECAR, submission=submission)
        assert Sidecar.from_json(sidecar.to_json()) == replace(SIDECAR, submission=bought)
        assert Sidecar.from_json(sidecar.to_json()).to_json() == sidecar.to_json()
        describe_request(submission.request)
    assert Submission.from_dict(json.loads(json.dumps(bought.to_dict()))) == bought
    assert is_same_request(request, json.loads(json.dumps(request)))


@given(requests, requests)
def test_two_requests_are_the_same_if_they_are_the_same_on_record(one, other):
    written = [json.dumps(canonicalize(each), sort_keys=True) for each in (one, other)]
    assert is_same_request(one, other) == (written[0] == written[1])
    assert not is_same_request(one, None)


def test_a_request_is_compared_without_what_decides_no_picture():
    private, public = "s3://conn@bucket/a?b.png", "https://host/a.png?signature=1"
    assert is_same_request({"referenceImageUrl": private}, {"referenceImageUrl": "s3://bucket/a?b.png"})
    assert is_same_request({"referenceImageUrl": public}, {"referenceImageUrl": "https://host/a.png"})
    assert not is_same_request({"seed": 1}, {"seed": True})


@given(st.dictionaries(st.sampled_from(sorted(json.loads(SIDECAR.to_json()))), json_like))
def test_whatever_someone_has_written_into_it_it_is_read_or_refused(changes):
    try:
        read = Sidecar.from_json(changed(**changes))
    except Unreadable:
        return
    assert Sidecar.from_json(read.to_json()).to_json() == read.to_json()


@given(st.text(), st.text())
def test_requests_that_differ_have_digests_that_differ(one, other):
    assert (request_sha256({"prompt": one}) == request_sha256({"prompt": other})) == (one == other)


SPENT = replace(
    BOUGHT,
    credits_before=4.6,
    shown_before=3,
    used_before=4.5,
    earlier=(Charge(AT - 9, 2.0, 1, 2.5),),
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
    reported = json.loads(bought.to_json())
    assert {name: reported[name] for name in ("credits_before", *OF_SPENDING)} == {
        "credits_before": 4.6,
        **OF_SPENDING,
    }
    assert not {"sha256", "size", "saved_at", "marks"} & set(reported)
    assert Sidecar.from_json(bought.to_json()) == bought
    saved = replace(bought, saved=SAVED)
    assert not {"credits_before", *OF_SPENDING} & set(json.loads(saved.to_json()))
    assert Sidecar.from_json(saved.to_json()).keeps_spending is False
    kept = replace(saved, keeps_spending=True)
    reported = json.loads(kept.to_json())
    assert {name: reported[name] for name in OF_SPENDING} == OF_SPENDING
    assert "credits_before" not in reported
    read = Sidecar.from_json(kept.to_json())
    assert (read.keeps_spending, read.submission.purchases) == (True, SPENT.purchases)
    assert Sidecar.from_json(bought.to_json()).keeps_spending is False


@pytest.mark.parametrize(
    ("map_index", "reported"),
    [
        (-1, "task t of DAG d, run r"),
        (0, "task t of DAG d, run r, map index 0"),
        (3, "task t of DAG d, run r, map index 3"),
    ],
)
def test_a_task_instance_is_reported_with_its_map_index_if_it_has_one(map_index, reported):
    assert str(MadeBy("d", "r", "t", map_index)) == reported


REGION = UUID("01a22412-677c-706b-9270-d8e0531eedca")


class InALoop:
    dag_id, run_id, task_id, map_index, region_id, region_index = "d", "r", "t", -1, REGION, 2


def test_iterations_of_a_loop_are_distinguished_and_each_is_read_as_it_was_written():
    second = MadeBy.from_task_instance(InALoop)
    assert second == MadeBy("d", "r", "t", -1, str(REGION), 2)
    assert str(second) == "task t of DAG d, run r, iteration 2"
    assert str(second._replace(map_index=4)) == "task t of DAG d, run r, map index 4"
    written = second.to_dict()
    assert (written["region_id"], written["region_index"]) == (str(REGION), 2)
    assert MadeBy.from_dict(written) == second
    assert Sidecar.from_json(replace(SIDECAR, made_by=second).to_json()).made_by == second
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
    assert MadeBy.from_task_instance(Outside) == MadeBy("d", "r", "t", -1)
    assert MadeBy.from_task_instance(Outside).to_dict() == {
        "dag_id": "d",
        "run_id": "r",
        "task_id": "t",
        "map_index": -1,
    }


def test_an_iteration_is_replaced_by_the_one_of_its_number_in_another_region():
    first = MadeBy("d", "r", "t", -1, "one", 1)
    assert first.is_replaced_by(first._replace(region_id="two"))
    assert not first.is_replaced_by(first)
    assert not first.is_replaced_by(first._replace(region_id="two", region_index=2))
    assert not first.is_replaced_by(first._replace(region_id="two", run_id="another"))
    assert not first.is_replaced_by(first._replace(region_id=None))
    assert not MadeBy("d", "r", "t", 0, "one", 0).is_replaced_by(MadeBy("d", "r", "t", 0, "two", 0))


def test_half_a_region_is_none():
    assert MadeBy.from_dict({"map_index": 1, "region_id": str(REGION)}) == MadeBy(None, None, None, 1)
    assert MadeBy.from_dict({"map_index": 1, "region_index": 1}) == MadeBy(None, None, None, 1)
    assert MadeBy.from_dict({"region_id": 7, "region_index": 1}) == MadeBy(None, None, None, -1)


def test_what_it_does_not_say_is_not_known():
    value = json.loads(SIDECAR.to_json())
    for name in ("width", "height", "ai_credits_used", "marks", "saved_at", "intended_at", "submitted_at"):
        del value[name]
    read = Sidecar.from_json(json.dumps({**value, "made_by": {"map_index": "3"}}))
    assert read.saved == SavedFile(12, "ab", None, None, None, (), None)
    assert (read.submission.intended_at, read.submission.submitted_at) == (None, None)
    assert read.made_by == MadeBy(None, None, None, -1)
    assert Sidecar.from_json(changed(marks="xmp", saved_at="soon")).saved[5:7] == ((), None)


SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.mark.parametrize("source", [SOURCE, None])
def test_what_a_file_says_of_its_source_is_in_it_once_the_file_was_read_for_that(source):
    examined = replace(SIDECAR, saved=SAVED._replace(digital_source_type=source, is_examined=True))
    assert json.loads(examined.to_json())["digital_source_type"] == source
    assert Sidecar.from_json(examined.to_json()) == examined
    assert "digital_source_type" not in json.loads(SIDECAR.to_json())
    assert Sidecar.from_json(SIDECAR.to_json()).saved.is_examined is False
    assert Sidecar.from_json(changed(digital_source_type=7)).saved.digital_source_type is None


@pytest.mark.parametrize(
    ("marks", "source", "is_examined", "may_lack_mark"),
    [
        ((), None, False, True),  # a PNG that says nothing
        ((), None, True, False),  # a JPEG
        (("xmp",), None, False, True),  # of version 0.1.0
        (("xmp",), None, True, True),  # a packet that may be added to
        (("xmp",), SOURCE, True, False),
        (("xmp",), "digitalCapture", True, False),
        (("c2pa",), None, False, False),
        (("c2pa",), None, True, False),
        (("c2pa", "xmp"), None, False, True),  # of version 0.1.0
        (("c2pa", "xmp"), None, True, False),
        (("aigc", "xmp"), SOURCE, True, False),
    ],
)
def test_a_picture_is_read_for_a_mark_only_if_that_can_change_something(marks, source, is_examined, may_lack_mark):
    saved = SAVED._replace(marks=marks, digital_source_type=source, is_examined=is_examined)
    assert saved.may_lack_mark is may_lack_mark


def test_what_exists_while_it_is_replaced_is_recognised_by_its_digest():
    before, after = SAVED._replace(sha256="before"), SAVED._replace(sha256="after", size=99, is_examined=True)
    replaced = replace(SIDECAR, saved=None, may_be=(before, after))
    read = Sidecar.from_json(replaced.to_json())
    assert (read, read.state) == (replaced, "bought")
    assert read.as_saved(12, lambda: "before").saved == before
    assert read.as_saved(99, lambda: "after").saved == after
    for size, digest in ((12, "after"), (99, "before"), (12, "another"), (None, "before"), (7, "before")):
        assert read.as_saved(size, lambda digest=digest: digest) == read
    assert SIDECAR.as_saved(12, lambda: "another") == SIDECAR
    assert read.as_saved(7, None) == read, "and what has another size is not read"
    assert b"may_be" not in replace(read, saved=after).to_json()


@pytest.mark.parametrize("may_be", [7, [7], [{"size": "12"}], {}, [{}], "x"])
def test_what_cannot_be_read_of_that_is_left_out(may_be):
    bought = {**json.loads(replace(SIDECAR, saved=None).to_json()), "may_be": may_be}
    assert Sidecar.from_json(json.dumps(bought)).may_be == ()


def test_the_sidecar_of_a_picture_that_is_to_be_replaced_is_kept_until_then():
    old = replace(SIDECAR, file="old.png")
    bought = replace(SIDECAR, saved=None, replaces=old)
    assert Sidecar.from_json(bought.to_json()) == bought
    assert b"replaces" not in replace(bought, saved=SAVED).to_json()
    assert Sidecar.from_json(old.to_json()).replaces is None


@pytest.mark.parametrize(
    "replaces", [7, [], "x", {}, {"state": "saved"}, json.loads(replace(SIDECAR, saved=None).to_json())]
)
def test_what_cannot_be_read_of_a_replaced_one_or_is_not_saved_replaces_nothing(replaces):
    bought = {**json.loads(replace(SIDECAR, saved=None).to_json()), "replaces": replaces}
    assert Sidecar.from_json(json.dumps(bought)).replaces is None


def test_a_time_that_no_calendar_has_is_not_known():
    odd = replace(SIDECAR, submission=replace(BOUGHT, intended_at=1e30, submitted_at=float("nan")))
    assert Sidecar.from_json(odd.to_json()).submission.intended_at is None


def test_a_time_is_read_in_any_zone():
    read = Sidecar.from_json(changed(saved_at="2027-01-15T09:00:09.125+01:00"))
    assert read == SIDECAR


def test_an_intent_without_a_request_has_the_digest_of_nothing():
    intent = Sidecar(file="a.png", submission=Submission(max_tries=0), made_by=MadeBy("d", "r", "t", -1))
    assert intent.request_sha256 == request_sha256({})
    assert json.loads(intent.to_json())["request"] == {}
    assert intent.to_json().endswith(b"}\n")
    assert b'\n  "version": 1,\n' in intent.to_json()


# A picture that was moved aside ---------------------------------------------------------------------------

MOVED = SIDECAR.as_moved("a.v1.png")


def test_a_picture_that_was_moved_is_told_apart_and_read_back():
    value = json.loads(MOVED.to_json())
    assert (value["state"], value["job_id"], value["moved_to"]) == ("redo", "j", "a.v1.png")
    assert (value["may_be"][0]["sha256"], value["redone"]) == ("ab", ["j"])
    assert Sidecar.from_json(MOVED.to_json()) == MOVED
    assert "size" not in value


def test_while_it_is_still_there_its_digest_says_so():
    assert MOVED.as_saved(12, lambda: "ab").saved == SAVED
    assert MOVED.as_saved(12, lambda: "ab").state == "redo"
    assert MOVED.as_saved(12, lambda: "another").saved is None


@pytest.mark.parametrize(
    "wrong", [{"moved_to": None}, {"moved_to": ""}, {"moved_to": 1}, {"job_id": None}, {"request": {}}]
)
def test_one_that_does_not_say_where_it_was_moved_cannot_be_read(wrong):
    with pytest.raises(Unreadable):
        Sidecar.from_json(json.dumps(json.loads(MOVED.to_json()) | wrong))


def test_later_sidecars_name_the_jobs_whose_pictures_were_moved():
    second = replace(SIDECAR, submission=replace(BOUGHT, job_id="k"), redone=MOVED.redone)
    assert Sidecar.from_json(second.to_json()).redone == ("j",)
    assert second.as_moved("a.v2.png").redone == ("j", "k")
    assert [second.overrides(job) for job in ("j", "k", None)] == [True, False, False]


@pytest.mark.parametrize("redone", [None, [], "j", [1], {"j": 1}])
def test_a_picture_that_was_moved_overrides_its_own_job_in_any_case(redone):
    edited = json.dumps(json.loads(MOVED.to_json()) | {"redone": redone})
    assert Sidecar.from_json(edited).overrides("j")


@pytest.mark.parametrize(
    ("name", "number", "version"),
    [
        ("a.png", 1, "a.v1.png"),
        ("a.b.png", 12, "a.b.v12.png"),
        ("a", 2, "a.v2"),
        (".png", 2, ".png.v2"),
        ("below/a.v1.png", 1, "below/a.v1.v1.png"),
    ],
)
def test_a_version_has_its_number_before_the_suffix(name, number, version):
    assert version_name(name, number) == version
    assert is_version_name(version.rpartition("/")[2], name.rpartition("/")[2])


@given(st.text(min_size=1, max_size=300), st.integers(min_value=1, max_value=99_999))
def test_versions_of_a_name_are_different_and_no_longer_than_a_spare_name(stem, number):
    name = f"{stem.replace('/', '_')}.png"
    versions = [version_name(name, each) for each in (number, number + 1)]
    assert len({*versions, name}) == 3
    assert all(
        len(each.encode("utf-8", "surrogatepass")) <= max(100, len(name.encode("utf-8", "surrogatepass")))
        for each in versions
    )


@pytest.mark.parametrize(
    "name", ["a.png", "a.v0.png", "a.v01.png", "a.vx.png", "b.v1.png", "a.v1.jpg", "a.v1.png.json"]
)
def test_other_names_are_not_those_of_a_version(name):
    assert not is_version_name(name, "a.png")
