# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The record of a batch, and how an attempt continues from it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pictory_provider.api.errors import RequestInvalid, StorageFailed, SubmitOutcomeUnknown, Unavailable
from pictory_provider.api.models import Quota
from pictory_provider.core.batch.decision import SUBMIT, Decision, RowState, decide
from pictory_provider.core.batch.journal import (
    BOUGHT,
    FAILED,
    HEADER,
    INTENT,
    PAGE_ROWS,
    SAVED,
    UNKNOWN,
    Entry,
    Header,
    Journal,
    budget_of,
    page_name,
    page_of,
    purchases_of,
    spending_to_keep,
)
from pictory_provider.core.batch.plan import WAVE
from pictory_provider.core.batch.resume import StartKind, check_shared, is_held, left_over, open_batch, start_of
from pictory_provider.core.batch.rows import digest_of
from pictory_provider.core.budget import Limits
from pictory_provider.core.ledger import Charge
from pictory_provider.core.submission import canonicalize
from tests.pure.core.batch.existing import ANOTHER, SIZE, existing, row_image
from tests.pure.core.batch.tables import checked, rows_of

MADE_BY = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": None}


def table(size, word="lamp"):
    return rows_of([{"n": n} for n in range(size)], prompt=f"A {word} {{n}}")


def entry(row, state, **changes):
    job_id = "j" if state in (BOUGHT, SAVED) else None
    submitted_at = 2.0 if job_id else None
    fields = {"state": state, "job_id": job_id, "submitted_at": submitted_at, **changes}
    return replace(Entry.intent(row, Charge(1.0, 2.0), tried=1), **fields)


def opened(rows, header=None, pages=(), **more):
    task = {"folder": "/f", "made_by": MADE_BY, "max_tries": 2, "retries": 2, **more}
    return open_batch(header, dict(pages), checked(rows), **task)


def record_of(rows, entries=(), **changes):
    """Return header and pages as they are in the folder after an attempt."""
    journal = opened(rows).journal
    for one in entries:
        journal.put(one)
    journal.set_header(**changes)
    existing = {name: json.loads(json.dumps(value)) for name, value in journal.writes()}
    pages = {page: existing[page_name(1, page)] for page in range(9) if page_name(1, page) in existing}
    return existing[HEADER], pages


# Header and pages ----------------------------------------------------------------------------------------


texts = st.text(st.characters(exclude_categories=()))
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
requests = st.dictionaries(
    st.sampled_from(["aspectRatio", "style", "referenceImageUrl", "seed"])
    | texts.filter(lambda name: len(name) > 9),
    json_like,
)


@example({"aspectRatio": 7, "style": None, "referenceImageUrl": ["a"], "seed": {"a": 1}})
@given(requests)
def test_whatever_was_asked_for_the_page_that_keeps_it_can_be_read(more):
    (row,) = table(1)
    requested = canonicalize({**more, **row.canonical_request})
    header, pages = record_of([row], [replace(entry(row, BOUGHT), request=requested)])
    journal = Journal.from_pages(Header.from_dict(header), pages)
    assert (journal.unreadable, journal.get(row.key).request) == (frozenset(), requested)
    (held,) = opened([], header, pages).rows  # held to the record: the table is another
    assert (held.key, held.request.prompt) == (row.key, row.request.prompt)


def test_a_wave_never_crosses_a_page():
    assert PAGE_ROWS % WAVE == 0


def test_a_header_survives_the_storage():
    rows = table(3)
    header = replace(opened(rows).journal.header, stopped={"kind": "RateLimited"}, begun=(0, 2), has_ended=True)
    assert Header.from_dict(json.loads(json.dumps(header.to_dict()))) == header


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": None},
        {"digest": None},
        {"of": "3"},
        {"of": True},
        {"tries": -1},
        {"parts": "x"},
        {"begun": None},
        {"begun": ["0"]},
        {"made_by": None},
        {"has_ended": None},
        {"stopped": 1},
        {"retries": "2"},
    ],
)
def test_a_header_that_is_none_of_this_release_cannot_be_read(changes):
    assert Header.from_dict({**opened(table(3)).journal.header.to_dict(), **changes}) is None


def test_a_header_keeps_every_field_under_its_name():
    rows = table(100)
    header = replace(
        opened(rows).journal.header,
        has_ended=True,
        tries=5,
        since=4,
        cleared=3,
        generation=2,
        begun=(0, 2),
        stopped={"kind": "RateLimited"},
        spending={"before_clear": 2.0},
        unsaved=7,
    )
    plain = header.to_dict()
    assert plain == {
        "version": 1,
        "digest": digest_of(rows),
        "parts": [digest_of(rows[first : first + 48])[:8] for first in (0, 48, 96)],
        "of": 100,
        "folder": "/f",
        "made_by": MADE_BY,
        "max_tries": 2,
        "retries": 2,
        "has_ended": True,
        "tries": 5,
        "since": 4,
        "cleared": 3,
        "generation": 2,
        "begun": [0, 2],
        "stopped": {"kind": "RateLimited"},
        "spending": {"before_clear": 2.0},
        "unsaved": 7,
    }
    assert Header.from_dict(json.loads(json.dumps(plain))) == header
    assert "unsaved" not in replace(header, unsaved=0).to_dict()


def test_the_first_header_of_a_batch_is_that_of_its_first_attempt():
    header = opened(table(3)).journal.header
    assert (header.tries, header.since, header.cleared, header.generation) == (1, 1, 0, 1)
    assert (header.has_ended, header.begun, header.stopped, header.spending, header.unsaved) == (
        False,
        (),
        None,
        None,
        0,
    )


@pytest.mark.parametrize(("unsaved", "read"), [(3, 3), (0, 0), (-1, 0), ("3", 0), (None, 0), (True, 0)])
def test_a_count_of_pictures_that_were_not_saved_is_read_or_begins_anew(unsaved, read):
    assert Header.from_dict({**opened(table(3)).journal.header.to_dict(), "unsaved": unsaved}).unsaved == read


@pytest.mark.parametrize("name", ["of", "max_tries", "tries", "since", "cleared", "generation"])
@pytest.mark.parametrize("value", [None, "1", 1.0, True, -1])
def test_a_count_of_a_header_is_whole_and_from_0_on(name, value):
    plain = opened(table(3)).journal.header.to_dict()
    assert Header.from_dict({**plain, name: value}) is None
    assert getattr(Header.from_dict({**plain, name: 0}), name) == 0


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("digest", 7),
        ("folder", None),
        ("parts", [7]),
        ("begun", [-1]),
        ("begun", "0"),
        ("made_by", []),
        ("has_ended", 1),
        ("retries", -1),
        ("retries", True),
        ("stopped", []),
        ("spending", "x"),
    ],
)
def test_a_field_of_a_header_that_is_of_another_kind_makes_it_unreadable(name, wrong):
    assert Header.from_dict({**opened(table(3)).journal.header.to_dict(), name: wrong}) is None


def test_a_header_without_a_field_is_unreadable_and_one_with_a_field_more_is_not():
    plain = opened(table(3)).journal.header.to_dict()
    for name in ("digest", "parts", "of", "folder", "made_by", "max_tries", "has_ended", "tries", "begun"):
        assert Header.from_dict({each: value for each, value in plain.items() if each != name}) is None, name
    assert Header.from_dict({**plain, "of_a_later_release": 1}) == Header.from_dict(plain)
    assert Header.from_dict({**plain, "retries": None}).retries is None


@pytest.mark.parametrize(("of", "pages"), [(0, 0), (1, 1), (48, 1), (49, 2), (96, 2), (97, 3)])
def test_a_table_takes_a_page_for_each_48_rows(of, pages):
    assert replace(opened(table(1)).journal.header, of=of).table_pages == pages
    assert PAGE_ROWS == 48
    assert {page_of(index) for index in range(of)} == set(range(pages))


def test_an_intent_is_put_on_record_with_what_was_bought_before_for_its_row():
    row = table(2)[1]
    first = Entry.intent(row, Charge(1.0, 2.0, 3, 4.0), tried=5)
    assert first.to_dict() == {
        "index": 1,
        "file_name": "00001.png",
        "request": {"prompt": "A lamp 1", "model": "seedream3.0"},
        "state": "intent",
        "tried": 5,
        "intended_at": 1.0,
        "shown_before": 3,
        "used_before": 4.0,
    }
    assert (first.key, first.purchases) == (row.key, (Charge(1.0, 2, 3, 4.0),))
    second = Entry.intent(row, Charge(6.0, 2.0), tried=5, again=True, before=first)
    assert (second.again, second.earlier) == (True, first.purchases)
    assert second.purchases == (*first.purchases, Charge(6.0, 2))


def test_an_entry_keeps_every_field_under_its_name():
    everything = replace(
        Entry.intent(table(1)[0], Charge(1.0, 2.0, 3, 4.0), tried=5),
        state=FAILED,
        job_id="j",
        submitted_at=2.0,
        code="C",
        message="m",
        adoptable=True,
        again=True,
        earlier=(Charge(0.5, 2.0, 1, 7.0),),
    )
    plain = everything.to_dict()
    assert plain == {
        "index": 0,
        "file_name": "00000.png",
        "request": {"prompt": "A lamp 0", "model": "seedream3.0"},
        "state": "failed",
        "tried": 5,
        "jobId": "j",
        "intended_at": 1.0,
        "submitted_at": 2.0,
        "code": "C",
        "message": "m",
        "adoptable": True,
        "again": True,
        "shown_before": 3,
        "used_before": 4.0,
        "earlier": [[0.5, 2.0]],
        "earlier_before": [[1, 7.0]],
    }
    assert Entry.from_dict(everything.key, json.loads(json.dumps(plain))) == everything


@pytest.mark.parametrize(
    ("state", "job_id", "is_bought"),
    [
        (INTENT, None, True),
        (UNKNOWN, None, True),
        (BOUGHT, "j", True),
        (SAVED, "j", True),
        (FAILED, "j", True),
        (FAILED, None, False),
    ],
)
def test_all_but_what_was_refused_counts_as_bought(state, job_id, is_bought):
    one = entry(table(1)[0], state, job_id=job_id, earlier=(Charge(0.5, 2.0),))
    assert len(one.purchases) == 1 + is_bought
    assert replace(one, intended_at=None).purchases == one.earlier


@pytest.mark.parametrize(
    ("state", "adoptable", "is_owed"),
    [
        (BOUGHT, False, True),
        (FAILED, True, True),
        (FAILED, False, False),
        (SAVED, True, False),
        (INTENT, False, False),
        (UNKNOWN, False, False),
    ],
)
def test_a_picture_is_owed_that_was_paid_for_and_may_still_come(state, adoptable, is_owed):
    assert entry(table(1)[0], state, adoptable=adoptable).is_owed is is_owed


@pytest.mark.parametrize("value", ["x", True, [], {}])
def test_a_field_of_an_entry_that_cannot_be_read_is_not_known(value):
    plain = entry(table(1)[0], BOUGHT).to_dict()
    names = ("intended_at", "submitted_at", "shown_before", "used_before")
    found = Entry.from_dict("k", {**plain, **dict.fromkeys(names, value)})
    assert [getattr(found, name) for name in names] == [None] * 4
    assert (
        Entry.from_dict("k", {**plain, "code": 7}).code,
        Entry.from_dict("k", {**plain, "message": 7}).message,
    ) == (
        None,
        None,
    )


def test_only_a_plain_yes_makes_an_entry_adoptable_or_says_that_it_was_bought_again():
    plain = entry(table(1)[0], FAILED, job_id="j").to_dict()
    for value, is_so in ((True, True), (1, False), ("yes", False)):
        found = Entry.from_dict("k", {**plain, "adoptable": value, "again": value})
        assert (found.adoptable, found.again) == (is_so, is_so)
    assert Entry.from_dict("k", {**plain, "jobId": "None", "adoptable": True}).adoptable is False


def test_what_was_bought_with_a_job_id_that_is_none_says_so():
    plain = entry(table(1)[0], BOUGHT, message="m").to_dict()
    found = Entry.from_dict("k", {**plain, "jobId": "None"})
    assert (found.state, found.message) == (UNKNOWN, "its jobId on record is 'None', which is not a jobId")
    assert Entry.from_dict("k", {**plain, "state": "failed", "jobId": ""}).message == "m"


def test_an_entry_without_a_name_is_none():
    plain = entry(table(1)[0], BOUGHT).to_dict()
    assert Entry.from_dict(7, plain) is None
    assert Entry.from_dict("k", [plain]) is None
    assert Entry.from_dict("k", {**plain, "earlier": [[1]]}) is None


@pytest.mark.parametrize("state", [INTENT, BOUGHT, SAVED, FAILED, UNKNOWN])
def test_an_entry_survives_the_storage(state):
    one = entry(table(1)[0], state, code="C", message="m", again=True)
    assert Entry.from_dict(one.key, json.loads(json.dumps(one.to_dict()))) == one


@pytest.mark.parametrize("state", [INTENT, UNKNOWN])
def test_a_job_id_added_by_a_user_to_what_is_unknown_is_adopted(state):
    value = {**entry(table(1)[0], state).to_dict(), "jobId": " j-7 ", "submitted_at": 2.0}
    found = Entry.from_dict("k", value)
    assert (found.state, found.job_id, found.submitted_at) == (BOUGHT, "j-7", None)


BAD_ENTRIES = [
    {"state": "sold"},
    {"state": None},
    {"request": None},
    {"request": {"prompt": "A lamp"}},
    {"request": {"prompt": "x", "model": "nanobanana"}},
    {"file_name": None},
    {"index": "0"},
    {"tried": None},
    {"jobId": 7},
    {"state": "bought"},
    {"state": "saved"},
]


@pytest.mark.parametrize("state", [INTENT, BOUGHT, SAVED])
@pytest.mark.parametrize("job_id", ["", "None", " None "])
def test_a_job_id_that_is_none_makes_its_row_unknown_and_leaves_its_page_alone(state, job_id):
    rows = table(50)
    header, pages = record_of(rows, [entry(rows[0], state), entry(rows[1], BOUGHT)])
    pages[0]["rows"][rows[0].key]["jobId"] = job_id
    journal = Journal.from_pages(Header.from_dict(header), pages)
    assert journal.unreadable == frozenset()
    entry_on_record = journal.get(rows[0].key)
    assert (entry_on_record.state, entry_on_record.job_id) == (INTENT if state == INTENT else UNKNOWN, None)
    assert journal.get(rows[1].key).job_id == "j"


@pytest.mark.parametrize("changes", BAD_ENTRIES)
def test_one_entry_that_cannot_be_read_makes_its_page_unreadable(changes):
    rows = table(50)
    header, pages = record_of(rows, [entry(rows[0], INTENT), entry(rows[48], BOUGHT)])
    pages[0]["rows"][rows[0].key].update(changes)
    journal = Journal.from_pages(Header.from_dict(header), pages)
    assert journal.unreadable == {0}
    assert journal.get(rows[48].key).job_id == "j"


@pytest.mark.parametrize(
    "change",
    [None, [], {}, {"version": 2}, {"generation": 2}, {"page": 1}, {"rows": []}, {"rows": {"k": None}}],
)
def test_a_page_that_is_none_of_this_batch_is_unreadable_and_never_empty(change):
    rows = table(3)
    header, pages = record_of(rows, [entry(rows[0], BOUGHT)])
    page = {**pages[0], **change} if change else change
    assert Journal.from_pages(Header.from_dict(header), {0: page}).unreadable == {0}


def test_a_page_that_the_header_names_and_that_is_gone_is_missing():
    rows = table(3)
    header, _ = record_of(rows, [entry(rows[0], BOUGHT)])
    assert Journal.from_pages(Header.from_dict(header), {}).missing == {0}


def test_pages_are_written_before_the_header_that_names_them_and_only_those_that_changed():
    rows = table(100)
    journal = opened(rows).journal
    assert [write.name for write in journal.writes()] == [HEADER]
    journal.put(entry(rows[99], INTENT))
    journal.put(entry(rows[0], INTENT))
    assert [write.name for write in journal.writes()] == [page_name(1, 0), page_name(1, 2), HEADER]
    assert not journal.is_changed
    journal.put(entry(rows[0], BOUGHT))
    assert [write.name for write in journal.writes()] == [page_name(1, 0)]


# The kind of attempt -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "now", "start"),
    [
        (None, {}, StartKind.FIRST),
        ({}, {}, StartKind.RETRY),
        ({}, {"is_resumed": True}, StartKind.RESUMED),
        ({}, {"max_tries": 3}, StartKind.CLEAR),
        ({}, {"max_tries": 3, "is_resumed": True}, StartKind.RESUMED),
        ({"has_ended": True}, {}, StartKind.RETRY),
        ({"has_ended": True}, {"retries": 1}, StartKind.CLEAR),
        ({}, {"retries": 1}, StartKind.RETRY),
        ({}, {"made_by": {**MADE_BY, "run_id": "s"}}, StartKind.OTHER),
        ({}, {"made_by": {**MADE_BY, "map_index": 0}, "is_resumed": True}, StartKind.OTHER),
    ],
)
def test_a_clear_a_retry_a_resumed_run_and_another_run_are_distinguished(found, now, start):
    header = None if found is None else Header.from_dict(record_of(table(1), **found)[0])
    assert start_of(header, **{"made_by": MADE_BY, "max_tries": 2, "retries": 2, **now}) is start


def test_a_folder_that_another_task_may_be_buying_into_is_left_alone():
    header, pages = record_of(table(3))
    with pytest.raises(StorageFailed, match="in use by another batch: dag_id d, run_id r, task_id t"):
        opened(table(3), header, pages, made_by={**MADE_BY, "map_index": 1})
    header["has_ended"] = True
    assert opened(table(3), header, pages, made_by={**MADE_BY, "map_index": 1}).start is StartKind.OTHER


@pytest.mark.parametrize("header", [{}, [], 0, "", {"version": 2}])
def test_a_header_that_cannot_be_read_buys_nothing_after_a_clear_neither(header):
    with pytest.raises(SubmitOutcomeUnknown, match="cannot be read"):
        opened(table(3), header, max_tries=9)


def test_pages_or_a_deferral_without_a_header_are_never_nothing_on_record():
    rows = table(3)
    _, pages = record_of(rows, [entry(rows[0], BOUGHT)])
    for more in ({"pages": pages}, {"is_resumed": True}):
        with pytest.raises(SubmitOutcomeUnknown, match="is missing, although this batch has a record"):
            opened(rows, None, **more)


@pytest.mark.parametrize(
    ("rows", "more", "reported"),
    [
        (table(101), {}, "the table had 100 rows and has 101; requests differ among rows 96 to 100"),
        (table(100, "desk"), {}, "requests differ among rows 0 to 47, 48 to 95, 96 to 99"),
        (table(96), {}, "the table had 100 rows and has 96"),
        (table(0), {}, "the table had 100 rows and has 0"),
        (table(100), {"folder": "/g"}, "the folder was /f and is /g"),
        (list(reversed(table(100))), {"is_resumed": True}, "requests differ among rows"),
    ],
)
def test_a_retry_or_a_resumed_run_that_differs_is_held_to_the_record_and_says_the_difference(rows, more, reported):
    old = table(100)
    header, pages = record_of(old, [entry(old[50], BOUGHT)])
    resumed = opened(rows, header, pages, **more)
    assert isinstance(resumed.error, RequestInvalid)
    assert reported in resumed.error.message
    assert (resumed.of, [row.key for row in resumed.rows]) == (100, [old[50].key])
    assert resumed.rows[0].canonical_request == old[50].canonical_request


def test_the_same_table_is_not_a_difference():
    header, pages = record_of(table(100))
    for more in ({}, {"is_resumed": True}, {"max_tries": 3}):
        assert opened(table(100), header, pages, **more).error is None


def test_a_clear_with_a_new_table_keeps_what_was_paid_for_and_says_what_it_leaves_behind():
    old, new = table(60), table(60, "desk")
    states = [BOUGHT, INTENT, UNKNOWN, SAVED, FAILED]
    header, pages = record_of(old, [entry(row, state) for row, state in zip(old, states, strict=False)])
    resumed = opened([*new, *old[:1]], header, pages, max_tries=3)
    assert resumed.error is None
    assert "2 rows that may or may not have been paid for: 00001.png, 00002.png" in resumed.warning
    assert resumed.journal.get(old[0].key).job_id == "j"
    assert [entry.key for entry in left_over(resumed.journal)] == [old[1].key, old[2].key]
    resumed = opened(new, header, pages, max_tries=3)
    assert [entry.key for entry in left_over(resumed.journal)] == [row.key for row in old[:3]]


def test_a_clear_settles_what_is_unknown_only_if_the_attempt_before_has_reported_it():
    old = table(2)
    header, pages = record_of(old, [entry(old[0], UNKNOWN)], has_ended=True)
    other = {"made_by": {**MADE_BY, "run_id": "s"}}
    journal = opened(old[1:], header, pages, **other).journal  # another run whose table leaves the row out

    def written():
        journal.set_header(has_ended=True)
        journal.writes()
        begun = journal.header.begun
        return journal.header.to_dict(), {page: journal.page(page) for page in begun}

    for rows, max_tries, state in (
        (old[1:], 3, None),  # a clear with the same table
        (old, 4, RowState.UNKNOWN),  # a clear with the row, which no attempt has reported
        (old, 5, RowState.TO_DO),  # a clear after it was reported
    ):
        journal = opened(rows, *written(), max_tries=max_tries, **other).journal
        if state:
            assert decide(old[0], journal, None, overwrite=False, resubmit=False).state is state


def test_a_new_table_is_not_bought_while_a_page_of_the_old_one_cannot_be_read():
    old = table(60)
    header, pages = record_of(old, [entry(old[0], BOUGHT), entry(old[50], BOUGHT)])
    resumed = opened(table(60, "desk"), header, {**pages, 1: {"version": 2}}, max_tries=3)
    assert isinstance(resumed.error, SubmitOutcomeUnknown)
    assert "/f/.pictory/1-00001.json" in resumed.error.message
    assert [row.key for row in resumed.rows] == [old[0].key]
    assert opened(table(60, "desk"), header, {0: pages[0]}, max_tries=3).error is None


def test_a_new_table_that_was_not_written_to_its_end_leaves_nothing_that_a_later_attempt_would_read():
    old = table(60)
    header, pages = record_of(old, [entry(old[0], BOUGHT)])
    first, *unfinished, _ = opened(table(60, "desk"), header, pages, max_tries=3).journal.writes()
    assert first.name == HEADER
    assert (first.value["digest"], first.value["max_tries"]) == (header["digest"], header["max_tries"])
    after = opened(table(60, "chair"), first.value, pages, max_tries=3)
    assert after.start is StartKind.CLEAR
    first, *finished, last = after.journal.writes()
    assert (first.name, last.name) == (HEADER, HEADER)
    assert finished
    assert not {write.name for write in unfinished} & {write.name for write in finished}
    assert last.value["generation"] == last.value["tries"]


def test_a_new_table_of_which_nothing_is_known_is_on_record_before_anything_is_bought():
    header, pages = record_of(table(3))
    journal = opened(table(3, "desk"), header, pages, max_tries=3).journal
    assert (journal.is_changed, journal.is_urgent) == (True, True)
    first, last = journal.writes()
    assert (first.name, last.name) == (HEADER, HEADER)
    assert (first.value["digest"], last.value["digest"]) == (header["digest"], digest_of(table(3, "desk")))
    assert last.value["begun"] == []


def test_an_attempt_that_was_overtaken_by_another_knows_it():
    header, pages = record_of(table(3))
    mine = Header.from_dict(header)
    assert is_held(header, mine)
    later = opened(table(3), header, pages).journal.header
    assert not is_held(later.to_dict(), mine)
    assert not is_held(None, mine)
    assert not is_held({**header, "made_by": {}}, mine)


def test_a_worker_that_does_not_see_the_journal_that_is_known_buys_nothing():
    rows = table(3)
    header, pages = record_of(rows)
    later = opened(rows, header, pages).journal.header.to_dict()
    check_shared(None, None, "/f")
    check_shared(header, header, "/f")
    check_shared(header, later, "/f")
    check_shared(header, None, "/g")
    for seen in (None, header):
        with pytest.raises(StorageFailed, match="workers do not share the storage"):
            check_shared(later, seen, "/f")
    with pytest.raises(StorageFailed):
        check_shared({"version": 9}, None, "/f")
    check_shared(header, {"version": 9}, "/f")  # what is wrong with it is said where the batch is opened
    with pytest.raises(
        StorageFailed, match=r"has a record in /f/\.pictory, but this worker does not see its last state"
    ):
        check_shared({**header, "generation": 2}, header, "/f")


# What becomes of a row -----------------------------------------------------------------------------------


def decided(one=None, found=None, *, header=None, overwrite=False, replaces_changed=False, resubmit=False):
    """Decide for a row in the fifth attempt; the fourth followed another run's, the third a clear."""
    row = table(1)[0]
    journal = Journal(header=replace(opened([row]).journal.header, tries=5, since=4, cleared=3, **(header or {})))
    if one:
        state, tried, *more = one
        journal.put(entry(row, state, tried=tried, **(more[0] if more else {})))
    if found:
        found = existing(**{"request": row.canonical_request, **found})
    return decide(row, journal, found, overwrite=overwrite, replaces_changed=replaces_changed, resubmit=resubmit)


WHOLE = {"state": "saved", "job_id": "j", "size": SIZE}
OTHER_JOB = {**WHOLE, "job_id": "k"}
CUT = {**WHOLE, "size": SIZE - 1}
LATE = {"job_id": "j", "adoptable": True}


@pytest.mark.parametrize(
    ("one", "found", "place", "with_overwrite"),
    [
        (None, None, "to_do", "to_do"),
        (None, WHOLE, "reused", "to_do"),
        (None, {**WHOLE, "request": {}}, "not_bought", "to_do"),
        (None, CUT, "not_bought", "to_do"),
        (None, {"size": SIZE}, "not_bought", "to_do"),
        (None, {"state": "saved", "job_id": "j"}, "to_do", "to_do"),
        (None, {"state": "bought", "job_id": "k"}, "waiting", "to_do"),
        (None, {"state": "bought", "job_id": "k", "request": {}}, "not_bought", "to_do"),
        (None, {"state": "intent"}, "unknown", "unknown"),
        ((BOUGHT, 5), None, "waiting", "waiting"),
        ((BOUGHT, 5), WHOLE, "saved", "saved"),
        ((BOUGHT, 5), OTHER_JOB, "waiting", "waiting"),
        ((BOUGHT, 5), {"size": SIZE}, "waiting", "waiting"),
        ((BOUGHT, 1), None, "waiting", "waiting"),
        ((BOUGHT, 1), WHOLE, "saved", "to_do"),
        ((SAVED, 4), WHOLE, "saved", "saved"),
        ((SAVED, 4), None, "waiting", "waiting"),
        ((SAVED, 3), WHOLE, "reused", "to_do"),
        ((SAVED, 3), None, "to_do", "to_do"),
        ((SAVED, 3), OTHER_JOB, "reused", "to_do"),
        ((SAVED, 3, LATE), None, "to_do", "to_do"),
        ((BOUGHT, 5), CUT, "waiting", "waiting"),
        ((SAVED, 4), CUT, "waiting", "waiting"),
        ((SAVED, 3), CUT, "not_bought", "to_do"),
        ((FAILED, 5, LATE), WHOLE, "saved", "saved"),
        ((FAILED, 3, {**LATE, "adoptable": False}), WHOLE, "reused", "to_do"),
        ((FAILED, 4, {**LATE, "adoptable": False}), WHOLE, "failed", "failed"),
        ((FAILED, 1, LATE), WHOLE, "saved", "to_do"),
        ((BOUGHT, 5), {"folder": "/f/00000.png"}, "waiting", "waiting"),
        (None, {"folder": "/f/00000.png"}, "not_bought", "not_bought"),
        ((FAILED, 3), {"folder": "/f/00000.png"}, "not_bought", "not_bought"),
        (None, {**WHOLE, "problem": "it is not JSON"}, "not_bought", "not_bought"),
        (None, {"state": "bought", "request": None, "job_id": "k"}, "not_bought", "to_do"),
        ((FAILED, 4), None, "failed", "failed"),
        ((FAILED, 3), None, "to_do", "to_do"),
        ((FAILED, 3), WHOLE, "reused", "to_do"),
        ((FAILED, 5, LATE), None, "owed", "owed"),
        ((FAILED, 4, LATE), None, "waiting", "waiting"),
        ((FAILED, 1, LATE), None, "waiting", "waiting"),
        ((FAILED, 4, LATE), WHOLE, "saved", "saved"),
        ((INTENT, 3), None, "unknown", "unknown"),
        ((UNKNOWN, 5), WHOLE, "unknown", "unknown"),
        ((INTENT, 2), None, "to_do", "to_do"),
        ((UNKNOWN, 2), WHOLE, "reused", "to_do"),
    ],
)
def test_each_row_of_the_table_of_decisions(one, found, place, with_overwrite):
    assert decided(one, found).state.value == place
    assert decided(one, found, overwrite=True).state.value == with_overwrite


@pytest.mark.parametrize(
    ("one", "found", "decision"),
    [
        (None, WHOLE, Decision(RowState.REUSED, picture=row_image("j"))),
        ((SAVED, 3), WHOLE, Decision(RowState.REUSED, picture=row_image("j"))),
        ((BOUGHT, 5), WHOLE, Decision(RowState.SAVED, picture=row_image("j"))),
        ((BOUGHT, 5), None, Decision(RowState.WAITING, "j", 2.0)),
        ((SAVED, 4), None, Decision(RowState.WAITING, "j", 2.0)),
        ((FAILED, 4, {**LATE, "submitted_at": 3.0}), None, Decision(RowState.WAITING, "j", 3.0)),
        (
            (FAILED, 5, {**LATE, "code": "C", "message": "m"}),
            None,
            Decision(RowState.OWED, "j", code="C", message="m"),
        ),
        ((FAILED, 5, {"code": "C", "message": "m"}), None, Decision(RowState.FAILED, code="C", message="m")),
        (None, {"state": "bought", "job_id": "k", "submitted_at": 7.0}, Decision(RowState.WAITING, "k", 7.0)),
        (
            (UNKNOWN, 5, {"message": "cut"}),
            None,
            Decision(RowState.UNKNOWN, code="SUBMIT_OUTCOME_UNKNOWN", message="cut"),
        ),
        (
            None,
            {"state": "intent"},
            Decision(
                RowState.UNKNOWN,
                code="SUBMIT_OUTCOME_UNKNOWN",
                message=f"its sidecar says that {ANOTHER} was about to buy a picture for this file name: it is "
                "doing so now, or the outcome is unknown",
            ),
        ),
    ],
)
def test_what_is_decided_of_a_row_says_its_job_its_picture_and_why(one, found, decision):
    assert decided(one, found) == decision


@pytest.mark.parametrize(
    ("found", "code", "message"),
    [
        ({"folder": "/f/00000.png"}, "PLACE_TAKEN", "/f/00000.png is a folder"),
        ({"problem": "it is not JSON"}, "SIDECAR_UNREADABLE", "its sidecar cannot be read: it is not JSON"),
        ({"size": SIZE}, "PLACE_TAKEN", "a file exists there, without a sidecar that says what it is"),
        (
            {"state": "bought", "job_id": "k", "request": {}},
            "PLACE_TAKEN",
            f"its sidecar says that {ANOTHER} has bought a picture of another request for this file name",
        ),
        (
            {**WHOLE, "request": {"prompt": "A desk"}},
            "PLACE_TAKEN",
            "the picture of another request exists there ('A desk')",
        ),
        ({**WHOLE, "request": {}}, "PLACE_TAKEN", "the picture of another request exists there (None)"),
        (
            {**CUT, "request": {}},
            "PLACE_TAKEN",
            "a file exists there whose size is not the one in its sidecar",
        ),
    ],
)
def test_what_nobody_may_replace_unasked_is_refused_with_what_exists(found, code, message):
    decision = decided(None, found)
    is_changed = message.startswith("the picture of another request")
    assert decision == Decision(
        RowState.NOT_BOUGHT, code=code, message=message, is_refused=True, is_changed=is_changed
    )
    # With overwrite="changed" that is replaced, and nothing else.
    changed = decided(None, found, replaces_changed=True)
    assert changed == (SUBMIT._replace(is_changed=True) if is_changed else decision)


def test_what_is_only_not_known_is_not_a_refusal():
    for one, found in (((UNKNOWN, 5), None), (None, {"state": "intent"}), ((BOUGHT, 5), {"size": SIZE})):
        assert decided(one, found).is_refused is False


def test_a_row_of_a_page_that_cannot_be_read_or_is_lost_names_the_page():
    row = table(1)[0]
    for name, what in (("unreadable", "cannot be read"), ("missing", "is missing")):
        journal = Journal(header=opened([row]).journal.header, **{name: frozenset({0})})
        decision = decide(row, journal, None, overwrite=False, resubmit=False)
        assert decision == Decision(
            RowState.UNKNOWN,
            code="RECORD_UNREADABLE",
            message=f"the record of its page, /f/.pictory/1-00000.json, {what}",
        )


def test_resubmit_buys_what_is_unknown_unless_this_attempt_has_done_so():
    assert decided((UNKNOWN, 4), resubmit=True).state is RowState.TO_DO
    assert decided((UNKNOWN, 5), resubmit=True).state is RowState.TO_DO
    assert decided((UNKNOWN, 4, {"again": True}), resubmit=True).state is RowState.TO_DO
    assert decided((UNKNOWN, 5, {"again": True}), resubmit=True).state is RowState.UNKNOWN


def test_what_is_unknown_says_why_and_what_is_refused_says_what_exists():
    assert "after it recorded its intent to submit" in decided((INTENT, 5)).message
    assert decided((UNKNOWN, 5, {"message": "the cable was cut"})).message == "the cable was cut"
    assert "without a sidecar" in decided(None, {"size": SIZE}).message
    assert (
        "another request exists there ('A desk')"
        in decided(None, {**WHOLE, "request": {"prompt": "A desk"}}).message
    )
    assert "whose size is not" in decided(None, CUT).message


@pytest.mark.parametrize("start", [{}, {"max_tries": 3}])
def test_rows_of_a_page_that_cannot_be_read_are_unknown_after_a_clear_too_and_those_of_a_lost_page_are_not(start):
    rows = table(60)
    header, pages = record_of(rows, [entry(rows[0], BOUGHT), entry(rows[50], BOUGHT)])
    for value, then in ({0: None}, RowState.UNKNOWN), ({}, RowState.TO_DO if start else RowState.UNKNOWN):
        journal = opened(rows, header, {1: pages[1], **value}, **start).journal
        ends = [decide(row, journal, None, overwrite=True, resubmit=True).state for row in rows]
        assert ends == [then] * 48 + [RowState.TO_DO] * 2 + [RowState.WAITING] + [RowState.TO_DO] * 9


def test_a_page_that_was_lost_and_then_cleared_is_not_lost_again_for_the_retry_of_that_attempt():
    rows = table(3)
    header, _ = record_of(rows, [entry(rows[0], BOUGHT)])
    cleared = opened(rows, header, {}, max_tries=3).journal.header.to_dict()
    journal = opened(rows, cleared, {}, max_tries=3).journal
    assert decide(rows[0], journal, None, overwrite=False, resubmit=False).state is RowState.TO_DO


def test_what_rows_that_are_gone_have_cost_is_forgotten_when_no_limit_needs_it_any_longer():
    header, hours = None, 0
    for night in range(5):
        rows = rows_of([f"A lamp of night {night}, number {n}" for n in range(20)])
        value, pages = (None, {}) if header is None else header
        resumed = open_batch(
            value,
            pages,
            checked(rows),
            folder="/f",
            made_by={"run_id": night},
            max_tries=0,
            retries=0,
            conn_id="c",
        )
        journal = resumed.journal
        budget = budget_of(journal, Limits())
        assert budget.this_task == pytest.approx(0)
        for row in rows:
            bought = Charge(hours * 3_600.0, 2.0, 0, 0.0)
            journal.put(replace(Entry.intent(row, bought, tried=journal.header.tries), state=SAVED, job_id="j"))
        assert budget_of(journal, Limits()).this_task == pytest.approx(40)
        journal.set_header(has_ended=True)
        writes = {write.name: write.value for write in journal.writes()}
        header = writes.pop(HEADER), dict(enumerate(writes.values()))
        hours += 24
    assert len(header[0]["spending"].get("dropped", [])) <= 20


@pytest.mark.parametrize(("seconds_later", "left"), [(60, 66), (7_200, 62)])
def test_what_version_0_1_0_knew_of_the_quota_before_a_batch_is_heeded_for_as_long_as_it_may_matter(
    seconds_later, left
):
    rows = table(3)
    header, _ = record_of(rows, spending={"before_clear": 0.0, "baseline": [1_000.0, 30.0]})
    journal = Journal(header=Header.from_dict(header))
    for row in rows[:2]:
        intent = Entry.intent(row, Charge(1_000.0 + seconds_later, 2.0), tried=1)
        journal.put(replace(intent, state=BOUGHT, job_id="j"))
    now = 1_000.0 + seconds_later + 1
    budget = budget_of(journal, Limits(reserve=0.0))
    # 30 of 100 were used before, and two pictures of 2 credits were bought: so 34 count them, if 30 is still of use.
    budget.update(quota=Quota(ai_credits_used=34, ai_credits_limit=100, raw={}), ledgers=[], now=now)
    assert budget.left == left


# What a batch has spent ----------------------------------------------------------------------------------


def spending_of(bought=(), **spending):
    """Return a journal whose rows were bought like this, and that keeps this of its spending."""
    rows = table(max(1, len(bought)))
    journal = Journal(header=Header.from_dict(record_of(rows, spending=spending or None)[0]))
    for row, purchase in zip(rows, bought, strict=False):
        journal.put(replace(Entry.intent(row, purchase, tried=1), state=BOUGHT, job_id="j"))
    return journal


def test_what_a_batch_has_bought_is_that_of_its_rows_and_of_rows_that_are_gone():
    bought = [Charge(1_000.0, 2, 1, 7.0), Charge(1_001.0, 2)]
    journal = spending_of(bought, dropped=[[900.0, 4.0]], before_clear=5.0)
    assert purchases_of(journal) == [Charge(900.0, 4.0), *bought]
    budget = budget_of(journal, Limits(per_task=9.0))
    assert (budget.own, budget.this_task, budget.limits) == (
        [Charge(900.0, 4.0), *bought],
        3,
        Limits(per_task=9.0),
    )
    assert budget_of(spending_of(bought), Limits()).this_task == 4


@pytest.mark.parametrize("skew", [0.0, 30 * 86_400.0, -30 * 86_400.0])
def test_a_batch_that_is_resumed_on_a_machine_with_a_wrong_clock_forgets_no_recent_charge(skew):
    bought = [Charge(1e9 - 1_000.0, 2), Charge(1e9, 2)]
    budget = budget_of(spending_of(bought), Limits(per_day=5.0))
    budget.update(quota=None, ledgers=[[]], now=1e9 + 60 - skew, skew=skew)
    assert (budget.own, budget.today) == (bought, 4)


@pytest.mark.parametrize(
    "spending",
    [
        {"before_clear": "2"},
        {"before_clear": None},
        {"before_clear": True},
        {"dropped": "x"},
        {"dropped": [[1.0]]},
        {"baseline": 7},
        {"baseline": [1.0]},
        {"baseline": ["1", 2.0]},
    ],
)
def test_a_batch_whose_spending_cannot_be_read_buys_nothing_and_shows_it(spending):
    with pytest.raises(Unavailable) as caught:
        budget_of(spending_of(**spending), Limits())
    assert "so this attempt buys nothing" in caught.value.message
    assert f"`spending` in batch.json is {spending}." in caught.value.message


@pytest.mark.parametrize(
    ("at", "is_heeded"), [(999.0, False), (1_000.0, True), (1_001.0, True), (4_600.0, True), (4_601.0, False)]
)
def test_what_was_known_before_a_batch_is_of_use_for_an_hour(at, is_heeded):
    own = budget_of(spending_of([Charge(at, 2)], baseline=[1_000.0, 30.0]), Limits()).own
    assert own == [Charge(at, 2, used_before=30.0 if is_heeded else None)]


def test_what_is_known_of_a_purchase_itself_is_not_replaced_and_later_ones_know_no_more():
    first = Charge(1_000.0, 2, used_before=40.0)
    assert budget_of(spending_of([first], baseline=[1_000.0, 30.0]), Limits()).own == [first]
    own = [Charge(1_000.0, 2), Charge(1_001.0, 2)]
    found = budget_of(spending_of(own, baseline=[1_000.0, 30.0]), Limits()).own
    assert [each.used_before for each in found] == [30.0, None]
    assert budget_of(spending_of(baseline=[1_000.0, 30.0]), Limits()).own == []


def test_a_batch_that_begins_anew_keeps_what_rows_that_are_gone_have_cost_for_as_long_as_a_limit_needs_it():
    old, recent, own = Charge(1.0, 2.0), Charge(9_000.0, 4.0), Charge(9_001.0, 0.6)
    header = spending_of(dropped=[[1.0, 2.0]], before_clear=1.0, baseline=[0.5, 7.0]).header
    assert spending_to_keep(header, [old, recent, own]) == {"baseline": [0.5, 7.0], "before_clear": 4.6}
    assert spending_to_keep(header, [old, recent, own], [recent]) == {
        "baseline": [0.5, 7.0],
        "before_clear": 4.6,
        "dropped": [[9_000.0, 4.0]],
    }
    known = recent._replace(shown_before=3)
    assert spending_to_keep(spending_of().header, [known, own], [known]) == {
        "before_clear": 4.6,
        "dropped": [[9_000.0, 4.0]],
        "dropped_before": [[3, None]],
    }
    assert spending_to_keep(spending_of().header, []) == {"before_clear": 0}


def test_what_was_bought_before_a_clear_counts_no_more_for_the_task_and_still_for_the_account():
    rows = table(3)
    header, pages = record_of(rows, [entry(rows[0], BOUGHT), entry(rows[1], SAVED)])
    for more, spent in (({}, 4), ({"max_tries": 3}, 0)):
        budget = budget_of(opened(rows, header, pages, **more).journal, Limits())
        assert (budget.this_task, len(budget.own)) == (spent, 2)
    budget = budget_of(opened(table(3, "desk"), header, pages, max_tries=3).journal, Limits())
    assert (budget.this_task, len(budget.own)) == (0, 2)


# What an attempt does with the record-----------------------------------------------------------------------


def test_a_retry_is_an_attempt_of_its_own_and_a_resumed_run_is_the_same_attempt():
    rows = table(3)
    header, pages = record_of(rows, [entry(rows[0], BOUGHT)], stopped={"kind": "x"}, has_ended=True, unsaved=3)
    retry = opened(rows, header, pages, retries=2).journal
    assert (retry.header.tries, retry.header.since, retry.header.cleared) == (2, 1, 0)
    assert (retry.header.has_ended, retry.header.stopped, retry.header.unsaved) == (False, None, 3)
    assert retry.is_changed
    run = opened(rows, header, pages, is_resumed=True).journal
    assert (run.header, run.is_changed) == (Header.from_dict(header), False)


def test_a_retry_notes_the_attempts_that_airflow_gives_it():
    rows = table(3)
    header, pages = record_of(rows)
    retried = opened(rows, header, pages, retries=7).journal.header
    assert (retried.max_tries, retried.retries) == (2, 7)
    cleared = opened(rows, header, pages, max_tries=5, retries=7).journal.header
    assert (cleared.max_tries, cleared.retries) == (5, 7)


@pytest.mark.parametrize(
    ("made_by", "max_tries", "cleared", "unsaved"), [(MADE_BY, 3, 2, 0), ({**MADE_BY, "run_id": "s"}, 2, 1, 5)]
)
@pytest.mark.parametrize("word", ["lamp", "desk"])
def test_a_clear_and_another_run_begin_anew_and_only_a_clear_settles_what_is_unknown(
    made_by, max_tries, cleared, unsaved, word
):
    rows = table(3)
    header, pages = record_of(rows, has_ended=True, unsaved=5, cleared=1, stopped={"kind": "x"})
    resumed = opened(table(3, word), header, pages, made_by=made_by, max_tries=max_tries)
    found = resumed.journal.header
    assert (found.tries, found.since, found.cleared, found.unsaved) == (2, 2, cleared, unsaved)
    assert (found.has_ended, found.stopped, found.made_by) == (False, None, made_by)
    assert found.generation == (1 if word == "lamp" else 2)
    assert (resumed.start, resumed.of, len(resumed.rows), resumed.error) == (
        StartKind.CLEAR if made_by == MADE_BY else StartKind.OTHER,
        3,
        3,
        None,
    )


def test_a_clear_goes_on_in_a_folder_that_was_moved():
    rows = table(3)
    header, pages = record_of(rows, [entry(rows[0], BOUGHT)])
    resumed = opened(rows, header, pages, max_tries=3, folder="/g")
    assert (resumed.error, resumed.journal.header.folder) == (None, "/g")
    assert resumed.journal.get(rows[0].key).job_id == "j"


def test_a_task_that_was_cleared_with_fewer_retries_is_distinguished_from_one_that_is_tried_again():
    for found, retries, start in (
        ({"has_ended": True, "retries": None}, 1, StartKind.RETRY),
        ({"has_ended": True}, None, StartKind.RETRY),
        ({"has_ended": True}, 2, StartKind.RETRY),
        ({"has_ended": True}, 0, StartKind.CLEAR),
        ({"has_ended": False}, 0, StartKind.RETRY),
    ):
        header = Header.from_dict(record_of(table(1), **found)[0])
        assert start_of(header, made_by=MADE_BY, max_tries=2, retries=retries) is start


def test_a_folder_is_named_where_it_cannot_be_gone_on_with():
    with pytest.raises(SubmitOutcomeUnknown, match=r"/f/\.pictory/batch\.json is missing") as caught:
        opened(table(1), None, is_resumed=True)
    assert "This attempt sent nothing." in caught.value.message
    assert "delete /f/.pictory and clear the task" in caught.value.message
    with pytest.raises(StorageFailed, match=r"/f is in use by another batch: dag_id d, run_id r, task_id t\. Its"):
        opened(table(1), record_of(table(1))[0], made_by={"dag_id": "e"})


def test_a_row_that_is_held_to_the_record_is_that_of_the_record():
    old = rows_of(
        [{"n": n} for n in range(3)], prompt="A lamp {n}", style="vintage", reference_image_url="s3://b/{n}.png"
    )
    header, pages = record_of(old, [entry(old[2], BOUGHT), entry(old[0], BOUGHT)])
    rows = opened(table(3, "desk"), header, pages).rows
    assert [row.index for row in rows] == [0, 2]
    for row, then in zip(rows, (old[0], old[2]), strict=True):
        assert (row.file_name, row.key, row.canonical_request, row.columns) == (
            then.file_name,
            then.key,
            then.canonical_request,
            {},
        )
        assert (row.request, row.line) == (replace(then.request, allow_unlisted=True), None)


@pytest.mark.parametrize(
    ("size", "changed", "reported"),
    [
        (240, [0], "among rows 0 to 47."),
        (240, [48, 100], "among rows 48 to 95, 96 to 143."),
        (240, [0, 48, 96, 144, 192], "among rows 0 to 47, 48 to 95, 96 to 143, 144 to 191, 192 to 239."),
        (
            250,
            [0, 48, 96, 144, 192, 249],
            "among rows 0 to 47, 48 to 95, 96 to 143, 144 to 191, 192 to 239 and 1 more.",
        ),
    ],
)
def test_a_table_that_differs_is_described_by_its_first_five_pages_that_do(size, changed, reported):
    old, new = table(size), table(size)
    for index in changed:
        new[index] = replace(new[index], key=f"another {index}")
    header, pages = record_of(old)
    error = opened(new, header, pages).error
    assert f"requests differ {reported}" in error.message
    assert error.fields == ("requests",)


def test_a_table_whose_digest_alone_differs_is_another():
    header, pages = record_of(table(3))
    error = opened(table(3), {**header, "digest": "of another"}, pages).error
    assert (
        "differs from that of the attempt before: the table is another. Nothing more was bought" in error.message
    )


@pytest.mark.parametrize(("number", "more"), [(5, ""), (6, " and 1 more")])
def test_the_first_five_pages_that_cannot_be_read_and_rows_that_are_left_behind_are_named(number, more):
    old = table(48 * number)
    header, pages = record_of(old, [entry(row, UNKNOWN) for row in old[::48]])
    names = ", ".join(f"/f/.pictory/1-{page:05d}.json" for page in range(5))
    error = opened(table(3, "desk"), header, dict.fromkeys(pages), max_tries=3).error
    assert f"and {names}{more} of the old one's record cannot be read" in error.message
    warning = opened(table(3, "desk"), header, pages, max_tries=3).warning
    files = ", ".join(row.file_name for row in old[::48][:5])
    assert f"no longer has {number:,} rows that may or may not have been paid for: {files}{more}. They" in warning


def test_another_run_with_a_new_table_leaves_what_is_unknown_on_record():
    old = table(3)
    header, pages = record_of(old, [entry(old[0], UNKNOWN), entry(old[1], BOUGHT)], has_ended=True)
    resumed = opened(table(3, "desk"), header, pages, made_by={**MADE_BY, "run_id": "s"})
    assert resumed.warning is None
    assert {one.key: one.state for one in resumed.journal} == {old[0].key: UNKNOWN, old[1].key: BOUGHT}
    assert resumed.journal.is_left_over(old[0].key)
    assert [entry.key for entry in left_over(resumed.journal)] == [old[0].key, old[1].key]


def test_a_page_that_is_lost_is_not_an_obstacle_for_the_new_table_of_a_clear_and_one_for_that_of_another_run():
    old = table(60)
    header, pages = record_of(old, [entry(old[0], BOUGHT), entry(old[50], BOUGHT)], has_ended=True)
    for more, is_one in (({"max_tries": 3}, False), ({"made_by": {**MADE_BY, "run_id": "s"}}, True)):
        error = opened(table(60, "desk"), header, {0: pages[0]}, **more).error
        assert isinstance(error, SubmitOutcomeUnknown) is is_one


def test_a_page_that_is_lost_stays_lost_for_the_retries_of_another_run():
    rows = table(60)
    header, pages = record_of(rows, [entry(rows[0], BOUGHT), entry(rows[50], BOUGHT)], has_ended=True)
    another = {**MADE_BY, "run_id": "s"}
    first = opened(rows, header, {1: pages[1]}, made_by=another).journal
    assert (first.header.begun, first.missing) == ((0, 1), {0})
    assert opened(rows, first.header.to_dict(), {1: pages[1]}, made_by=another).journal.missing == {0}
    assert opened(rows, header, {1: pages[1]}, max_tries=3).journal.header.begun == (1,)


# A paid picture under another name -----------------------------------------------------------------------


def named(*names, prompt="A lamp", **others):
    """Return rows of these names; others are rows before them, by their prompts' last words."""
    before = [{"prompt": f"A {word}", "file_name": name} for word, name in others.items()]
    return rows_of(before + [{"prompt": prompt, "file_name": name} for name in names])


def renamed(old, new, *, state=BOUGHT, **more):
    header, pages = record_of(old, [entry(row, state) for row in old])
    return opened(new, header, pages, **{"max_tries": 3, "conn_id": "c", **more}).journal


def test_a_job_that_is_paid_for_is_taken_by_the_row_that_asks_for_the_same_under_another_name():
    old, new = named("a:b.png"), named("x.png", "a-b.png")
    journal = renamed(old, new)
    (taken,) = journal
    assert (taken.key, taken.index, taken.file_name, taken.job_id) == (new[0].key, 0, "x.png", "j")
    assert left_over(journal) == []
    assert len(purchases_of(journal)) == 1


@pytest.mark.parametrize(
    ("new", "more"),
    [
        (named("b.png"), {"conn_id": "another"}),
        (named("b.png"), {"conn_id": None}),
        (named("b.png", prompt="A desk"), {}),
        (named("b.png"), {"is_free": lambda name: name != "b.png"}),
        (named("b.png", desk="a.png"), {}),
        (named("b.png", desk="A.PNG"), {}),
    ],
    ids=[
        "another account",
        "no connection",
        "another picture",
        "a place that is taken",
        "its name",
        "nearly its name",
    ],
)
def test_a_job_that_is_paid_for_is_left_where_no_row_may_take_it(new, more):
    old = named("a.png")
    journal = renamed(old, new, **more)
    assert [row.key for row in left_over(journal)] == [old[0].key]
    assert all(journal.get(row.key) is None for row in new)


def test_a_row_whose_new_name_a_disk_takes_for_the_old_one_takes_the_job_itself():
    journal = renamed(named("a.png"), named("x.png", "A.png"))
    assert [one.file_name for one in journal] == ["A.png"]


def test_each_job_is_taken_once_and_each_row_takes_one():
    journal = renamed(named("a.png", "b.png", "c.png"), named("x.png", "y.png"))
    assert sorted(one.file_name for one in journal) == ["c.png", "x.png", "y.png"]
    assert [row.file_name for row in left_over(journal)] == ["c.png"]


@pytest.mark.parametrize("state", [SAVED, FAILED, INTENT, UNKNOWN])
def test_only_a_picture_that_is_owed_is_taken_under_another_name(state):
    journal = renamed(named("a.png"), named("b.png"), state=state)
    assert [entry.file_name for entry in journal] == (["a.png"] if state in (INTENT, UNKNOWN) else [])


def test_a_row_that_is_on_record_itself_takes_no_other_job():
    old = named("a.png", "b.png")
    journal = renamed(old, named("b.png"))
    assert {one.key: one.file_name for one in journal} == {old[0].key: "a.png", old[1].key: "b.png"}


# The pages -----------------------------------------------------------------------------------------------


def test_a_page_says_what_it_is_and_whose():
    rows = table(50)
    journal = opened(rows).journal
    journal.put(entry(rows[49], BOUGHT))
    page = journal.page(1)
    assert page == {
        "version": 1,
        "generation": 1,
        "page": 1,
        "rows": {rows[49].key: entry(rows[49], BOUGHT).to_dict()},
    }
    assert (page_of(47), page_of(48), page_name(1, 1), HEADER) == (
        0,
        1,
        ".pictory/1-00001.json",
        ".pictory/batch.json",
    )


def test_a_row_that_is_taken_off_the_record_leaves_its_page():
    rows = table(2)
    journal = opened(rows).journal
    for row in rows:
        journal.put(entry(row, INTENT), is_urgent=False)
    journal.writes()
    journal.drop("of nobody")
    assert (journal.is_changed, journal.is_urgent) == (False, False)
    journal.drop(rows[0].key)
    assert (journal.is_changed, journal.is_urgent, journal.get(rows[0].key)) == (True, True, None)
    assert [write.name for write in journal.writes()] == [page_name(1, 0)]
    assert [one.key for one in journal] == [rows[1].key]


def test_what_can_be_found_out_again_does_not_make_what_cannot_less_urgent():
    rows = table(2)
    journal = opened(rows).journal
    journal.writes()
    assert (journal.is_changed, journal.is_urgent) == (False, False)
    journal.put(entry(rows[0], SAVED), is_urgent=False)
    assert (journal.is_changed, journal.is_urgent) == (True, False)
    journal.put(entry(rows[0], INTENT))
    journal.put(entry(rows[1], SAVED), is_urgent=False)
    assert journal.is_urgent
    journal.writes()
    assert not journal.is_urgent


def test_a_header_that_changed_is_written_and_is_not_urgent():
    journal = opened(table(2)).journal
    journal.writes()
    journal.set_header(unsaved=3)
    assert (journal.is_changed, journal.is_urgent) == (True, False)
    (write,) = journal.writes()
    assert (write.name, write.value["unsaved"]) == (HEADER, 3)
    assert journal.writes() == []


def test_a_page_is_named_by_the_header_from_its_first_write_on():
    rows = table(100)
    journal = opened(rows).journal
    journal.put(entry(rows[50], INTENT))
    journal.writes()
    journal.put(entry(rows[0], INTENT))
    assert journal.writes()[-1].value["begun"] == [0, 1]
    assert journal.header.begun == (0, 1)


def test_known_rows_find_their_places_in_a_new_table_and_others_lie_behind_it():
    old, new = table(3), table(97, "desk")
    header, pages = record_of(old, [entry(row, BOUGHT) for row in old])
    journal = opened([*new, replace(old[2], index=97)], header, pages, max_tries=3).journal
    assert journal.is_urgent
    assert {one.key: one.index for one in journal}[old[2].key] == 97
    assert [journal.is_left_over(row.key) for row in old] == [True, True, False]
    assert [write.name for write in journal.writes()] == [HEADER, page_name(2, 2), page_name(2, 3), HEADER]


def test_what_is_after_a_table_takes_pages_of_48_rows_too():
    old = table(50)
    header, pages = record_of(old, [entry(row, BOUGHT) for row in old])
    journal = opened(table(48, "desk"), header, pages, max_tries=3).journal
    assert [write.name for write in journal.writes()] == [HEADER, page_name(2, 1), page_name(2, 2), HEADER]
    assert [len(journal.page(page)["rows"]) for page in (1, 2)] == [48, 2]
    assert len(left_over(journal)) == 50


def test_what_nobody_has_said_of_a_row_is_the_harmless_thing():
    assert Decision(RowState.TO_DO).is_refused is False
    one = Entry.intent(table(1)[0], Charge(1.0, 2.0), tried=1)
    assert (one.adoptable, one.again, one.earlier) == (False, False, ())
    journal = Journal(header=opened(table(1)).journal.header)
    assert (journal.is_changed, journal.is_urgent, journal.writes()) == (False, False, [])
