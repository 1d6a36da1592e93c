# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The commands, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from dataclasses import replace

import pytest

from pictory_provider import compat
from pictory_provider.__main__ import main
from pictory_provider.cli.spending import by_day, by_kind, by_model, rows
from pictory_provider.images.shelf import Shelf
from pictory_provider.images.sidecar import MadeBy, SavedFile, Sidecar
from pictory_provider.jobs.submission import Submission
from pictory_provider.provider_info import get_provider_info
from tests.provider.waits import buy

ENTRIES = [
    {"type": "debit", "amount": 0.6, "description": "flux-schnell", "transactionDate": "2026-04-04T06:03:38Z"},
    {"type": "debit", "amount": 2, "description": "seedream3.0", "transactionDate": "2026-04-04T23:00:00Z"},
    {"type": "credit", "amount": 100, "source": "Monthly Reset", "transactionDate": "2026-04-01T00:00:00Z"},
    {"type": "debit", "amount": "many"},
]


@pytest.fixture
def run(monkeypatch, capsys):
    """Return what a command printed, and its exit code."""

    def run(*line):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["pictory_provider", *line])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        text = ended.value.code if isinstance(ended.value.code, str) else printed.err
        code = 1 if isinstance(ended.value.code, str) else ended.value.code
        return code, printed.out, text

    return run


def findings(out):
    return {row["check"]: (row["is"], row["found"]) for row in json.loads(out)}


def test_the_check_finds_connection_key_credits_and_records(pictory, run, monkeypatch, on_airflow):
    on_airflow((3, 3))
    monkeypatch.setattr(compat, "living_triggerers", lambda: True)
    code, out, _ = run("check", "-o", "json")
    found = findings(out)
    assert code == 0
    assert {each for each, _ in found.values()} == {"ok"}
    assert found["connection"][1] == f"pictory_default leads to {pictory.base_url}"
    assert found["credits"][1] == "22,000 AI credits left of 22,000"
    assert "a retry buys nothing twice" in found["records"][1]


def test_a_check_that_finds_something_wrong_says_what_and_ends_with_1(pictory, run, monkeypatch):
    monkeypatch.setattr(compat, "living_triggerers", lambda: False)
    monkeypatch.setattr(pictory, "api_key", "another")
    code, out, _ = run("check", "-o", "json")
    found = findings(out)
    assert code == 1
    assert found["key"][0] == found["triggerer"][0] == "WRONG"
    assert "Pictory refused the API key (401)" in found["key"][1]


def test_what_cannot_be_told_from_here_is_no_failure(pictory, run, monkeypatch, on_airflow):
    def away():
        raise OSError("no database")

    monkeypatch.setattr(compat, "living_triggerers", away)
    on_airflow((3, 1))
    code, out, _ = run("check", "-o", "json")
    found = findings(out)
    assert (code, found["triggerer"][0], found["records"][0]) == (0, "?", "?")
    assert "retries=0" in found["records"][1]


def test_a_missing_connection_is_told_without_a_traceback(pictory, run):
    code, _, text = run("ledger", "--conn-id", "nowhere")
    assert code == 1
    assert text.startswith("Airflow has no connection 'nowhere'")
    assert "Traceback" not in text


def test_the_gallery_lists_pictures_without_the_keys_to_them(pictory, run):
    pictory.shape("url", "signed")
    for _ in range(3):
        buy(pictory)
    code, out, _ = run("gallery", "-o", "json", "--limit", "2")
    listed = json.loads(out)
    assert (code, len(listed)) == (0, 2)
    assert listed[0]["prompt"] == "A lighthouse at dawn"
    assert "?" not in out


def test_the_gallery_is_saved_once(pictory, run, tmp_path):
    for _ in range(2):
        buy(pictory)
    for _ in range(2):
        code, out, _ = run("gallery", "-o", "json", "--download", str(tmp_path))
        assert code == 0
        assert sorted(row["saved"] for row in json.loads(out)) == sorted(map(str, tmp_path.glob("*.png")))
    assert len([each for each in pictory.requests if each.host == "images"]) == 2


def test_a_picture_that_cannot_be_saved_takes_no_other_along(pictory, run, tmp_path):
    for _ in range(2):
        buy(pictory)
    pictory.script("picture", "truncated")
    code, out, text = run("gallery", "-o", "json", "--download", str(tmp_path))
    assert code == 1
    assert [row["saved"] is None for row in json.loads(out)] == [True, False]
    assert "cut short" in text


def test_the_ledger_shows_each_entry(pictory, run):
    buy(pictory)
    code, out, _ = run("ledger", "-o", "json")
    assert code == 0
    assert [(row["type"], row["credits"]) for row in json.loads(out)] == [("debit", 2)]


def test_the_ledger_is_summed_by_day_and_by_kind():
    assert by_day(ENTRIES)[1:] == [
        {"day": "2026-04-04", "spent": 2.6, "came in": 0, "entries": 2},
        {"day": "2026-04-01", "spent": 0, "came in": 100, "entries": 1},
    ]
    assert [(row["kind"], row["spent"]) for row in by_kind(ENTRIES)][:2] == [
        ("seedream3.0", 2),
        ("flux-schnell", 0.6),
    ]
    assert len(rows(ENTRIES)) == sum(row["entries"] for row in by_day(ENTRIES)) == 4


def test_the_ledger_is_summed_by_model():
    entries = [
        {"type": "debit", "amount": 14, "description": "nanobanana-pro image"},
        {"type": "debit", "amount": 4, "description": "Image by NanoBanana"},
        *ENTRIES,
    ]
    assert [(row["model"], row["spent"]) for row in by_model(entries)] == [
        ("nanobanana-pro", 14),
        ("nanobanana", 4),
        ("seedream3.0", 2),
        ("flux-schnell", 0.6),
        ("(no model named)", 0),
    ]


def test_the_check_shows_what_each_limit_leaves(pictory, run, monkeypatch):
    buy(pictory)
    limits = {"credits_per_day": 2, "credits_per_month": 100, "credits_reserve": 500}
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(**limits))
    code, out, _ = run("check", "-o", "json")
    found = findings(out)
    assert code == 1
    assert found["credits_per_day"] == ("WRONG", "0 of 2, since the account has spent 2 today")
    assert found["credits_per_month"] == ("ok", "98 of 100, since the account has spent 2 this month")
    assert found["credits_reserve"] == (
        "ok",
        "21,498 above it: the account has 21,998 left, and 500 of them are kept",
    )


def test_the_check_says_where_limits_cannot_be_compared(pictory, run, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(credits_per_day=2))
    pictory.enter(amount="much")
    code, out, _ = run("check", "-o", "json")
    assert code == 1
    assert "It cannot be known whether credits_per_day" in findings(out)["limits"][1]


def test_a_job_that_pictory_does_not_know_is_not_put_on_record(pictory, run, monkeypatch):
    monkeypatch.setattr(compat, "instances_of", lambda *_: pytest.fail("it was to be put on record"))
    code, _, text = run("adopt", "d", "r", "t", "no-such-job")
    assert code == 1
    assert text.startswith("Pictory knows no job")


def instance(map_index=-1, loop_index=None, **fields):
    of = {
        "key": 1,
        "dag_id": "d",
        "run_id": "r",
        "task_id": "t",
        "region_id": None,
        "region_index": None,
        "state": "failed",
        "path": None,
    }
    return compat.Instance(map_index=map_index, loop_index=loop_index, **of | fields)


@pytest.fixture
def database(monkeypatch, on_airflow):
    """Return the database of an Airflow 3.3: the task instances, what the state store holds, and what was cleared."""
    on_airflow((3, 3))

    class Database:
        def __init__(self):
            self.instances, self.state, self.cleared = (instance(),), {}, []

        def lost_a_reply(self):
            """Let the task have an intent on record, as one whose reply was lost."""
            self.state[self.instances[0], "pictory_submission"] = json.dumps(INTENT)

    database = Database()
    monkeypatch.setattr(compat, "instances_of", lambda *_: list(database.instances))
    monkeypatch.setattr(compat, "state_of", lambda each, key: database.state.get((each, key)))
    monkeypatch.setattr(
        compat, "keep_state_of", lambda each, key, value: database.state.update({(each, key): value})
    )
    monkeypatch.setattr(compat, "clear_keeping_state", lambda each: database.cleared.append(each) or 2)
    return database


INTENT = {
    "version": 1,
    "fingerprint": "f",
    "request": {"prompt": "A vase"},
    "max_tries": 1,
    "retries": 1,
    "intended_at": 1.0,
}


def test_a_job_is_put_on_the_record_that_the_operator_reads(pictory, run, database):
    each = instance(3)
    database.instances = (instance(2), each)
    database.state[each, "pictory_submission"] = json.dumps(INTENT)
    job_id = buy(pictory)
    code, out, text = run("adopt", "d", "r", "t", job_id, "--map-index", "3", "-o", "json")
    assert code == 0
    assert json.loads(out)[0]["task"] == "task t of DAG d, run r, map index 3"
    kept = json.loads(database.state[each, "pictory_submission"])
    assert kept == INTENT | {"jobId": job_id}  # a limit of the task still counts what it has bought
    assert Submission.read(kept).is_by_hand
    assert not database.cleared
    assert "Clear the task, and it takes this job: in its page, or here with --clear." in text


def test_a_task_without_a_record_is_left_alone_since_it_may_look_at_none(pictory, run, database):
    job_id = buy(pictory)
    code, _, text = run("adopt", "d", "r", "t", job_id, "--clear")
    assert code == 1
    assert (database.state, database.cleared) == ({}, [])
    assert "has no record of a submission that this command sees" in " ".join(text.split())
    assert "the error of a batch says how its rows are adopted" in " ".join(text.split())
    assert f"PictoryJobSensor(job_id='{job_id}')" in text


def test_a_record_that_cannot_be_read_gives_way(pictory, run, database):
    database.state[database.instances[0], "pictory_submission"] = '{"version": 9}'
    job_id = buy(pictory)
    assert run("adopt", "d", "r", "t", job_id)[0] == 0
    assert Submission.read(json.loads(*database.state.values())) == Submission(job_id=job_id)


@pytest.mark.parametrize("fate", ["failed", "cleaned"])
def test_a_job_without_a_picture_is_not_adopted_since_the_task_would_buy_another(pictory, run, database, fate):
    database.lost_a_reply()
    before = dict(database.state)
    code, _, text = run("adopt", "d", "r", "t", buy(pictory, fate), "--clear")
    assert code == 1
    assert f"is {fate}: there is no picture to take" in " ".join(text.split())
    assert (database.state, database.cleared) == (before, [])


def test_a_task_that_has_ended_well_is_left_alone(pictory, run, database):
    database.instances = (instance(state="success"),)
    code, _, text = run("adopt", "d", "r", "t", buy(pictory), "--clear")
    assert code == 1
    assert "has ended well, and has its picture. Nothing was put on record." in " ".join(text.split())
    assert (database.state, database.cleared) == ({}, [])


def test_another_job_that_was_on_record_is_named(pictory, run, database):
    database.lost_a_reply()
    one, other = buy(pictory), buy(pictory)
    assert "was on record before" not in run("adopt", "d", "r", "t", one)[2]
    assert f"Job {one} was on record before, and is left behind." in " ".join(
        run("adopt", "d", "r", "t", other)[2].split()
    )


def test_the_task_is_cleared_where_that_is_asked_for(pictory, run, database, monkeypatch):
    database.lost_a_reply()
    job_id = buy(pictory)
    code, _, text = run("adopt", "d", "r", "t", job_id, "--clear")
    assert code == 0
    assert database.cleared == [database.instances[0]]
    assert "The task and 2 below it are cleared; it takes this job, unless that fails at Pictory." in text
    monkeypatch.setattr(compat, "clear_keeping_state", lambda _: 1 / 0)
    code, _, text = run("adopt", "d", "r", "t", job_id, "--clear")
    assert code == 1
    assert "The job is on record, and the task could not be cleared: ZeroDivisionError" in " ".join(text.split())


def test_where_a_clear_throws_the_record_away_the_command_says_what_to_do(pictory, run, database, on_airflow):
    on_airflow((3, 4))
    database.lost_a_reply()
    code, _, text = run("adopt", "d", "r", "t", buy(pictory))
    assert code == 0
    assert "Run this again with --clear" in text
    assert "*Keep task state and resume*" in " ".join(text.split())


@pytest.mark.parametrize("version", [(3, 1), (3, 3), (3, 4)])
def test_a_job_is_put_beside_the_picture_where_no_clear_reaches_it(
    pictory, run, database, on_airflow, tmp_path, version
):
    on_airflow(version)
    region = uuid.UUID(int=7)
    database.instances = (instance(-1, 1, region_id=region, region_index=1, path=str(tmp_path / "a.png")),)
    made_by = MadeBy("d", "r", "t", -1, str(region), 1)
    shelf = Shelf(str(tmp_path / "a.png"))
    shelf.note(Sidecar(file="a.png", submission=Submission.read(INTENT), made_by=made_by))
    job_id = buy(pictory)
    code, _, text = run("adopt", "d", "r", "t", job_id, "--loop-index", "1")
    assert code == 0
    told = "takes the job out of" if version == (3, 4) else "Clear the task, and it takes this job"
    assert told in " ".join(text.split())
    found = shelf.look().sidecar
    assert (found.submission.job_id, found.submission.is_by_hand, found.made_by) == (job_id, True, made_by)
    assert not database.state  # that task keeps none there


@pytest.mark.parametrize(("iteration", "is_taken"), [(1, True), (0, False)])
def test_an_iteration_takes_over_the_intent_of_the_one_that_it_replaces_and_of_no_other(
    pictory, run, database, on_airflow, tmp_path, iteration, is_taken
):
    on_airflow((3, 4))
    path = str(tmp_path / "a.png")
    database.instances = (instance(-1, 1, region_id=uuid.UUID(int=8), region_index=1, path=path),)
    shelf, earlier = Shelf(path), MadeBy("d", "r", "t", -1, str(uuid.UUID(int=7)), iteration)
    shelf.note(Sidecar(file="a.png", submission=Submission.read(INTENT), made_by=earlier))
    job_id = buy(pictory)
    code, _, text = run("adopt", "d", "r", "t", job_id)
    assert code == (0 if is_taken else 1)
    found = shelf.look().sidecar
    if is_taken:
        assert found.made_by == MadeBy("d", "r", "t", -1, str(uuid.UUID(int=8)), 1)
        assert found.submission.job_id == job_id
    else:
        assert found.made_by == earlier
        assert "is of task t of DAG d, run r, iteration 0" in " ".join(text.split())


@pytest.mark.parametrize(
    ("lies", "says"),
    [
        (None, "is not seen from this machine"),
        ("another", "is of task other of DAG d, run r"),
        ("saved", "tells of the picture of job j, which is saved"),
        ("rubbish", "it is no JSON"),
    ],
)
def test_a_sidecar_that_is_not_the_tasks_own_is_left_alone_and_that_is_said(
    pictory, run, database, on_airflow, tmp_path, lies, says
):
    on_airflow((3, 1))
    path = str(tmp_path / "a.png")
    database.instances = (instance(path=path),)
    shelf, submission = Shelf(path), Submission.read(INTENT)
    if lies == "another":
        shelf.note(Sidecar(file="a.png", submission=submission, made_by=MadeBy("d", "r", "other", -1)))
    elif lies == "saved":
        saved = SavedFile(1, "0", 1, 1, 2, (), 1.0)
        bought = replace(submission, job_id="j", submitted_at=2.0)
        shelf.note(Sidecar(file="a.png", submission=bought, made_by=MadeBy("d", "r", "t", -1), saved=saved))
    elif lies:
        (tmp_path / "a.png.json").write_text("rubbish")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    code, _, text = run("adopt", "d", "r", "t", buy(pictory))
    assert code == 1
    assert f"has no record of a submission that this command sees ({path}.json {says}" in " ".join(text.split())
    assert "PictoryJobSensor(job_id=" in text
    on_airflow((3, 3))
    database.lost_a_reply()
    code, _, text = run("adopt", "d", "r", "t", buy(pictory))
    assert code == 0
    assert f"The record beside its picture stays as it is: {path}.json {says}" in " ".join(text.split())
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("state", ["running", "restarting", "queued", "deferred", "awaiting_input"])
def test_a_task_that_goes_on_is_left_alone(pictory, run, database, state):
    database.instances = (instance(state=state),)
    code, _, text = run("adopt", "d", "r", "t", buy(pictory), "--clear")
    assert code == 1
    assert f"is {state}: it may be about to put a job on record by itself." in " ".join(text.split())
    assert (database.state, database.cleared) == ({}, [])


def test_where_several_instances_could_be_meant_they_are_listed(pictory, run, database):
    database.instances = tuple(instance(index, loop) for index in range(12) for loop in range(2))
    job_id = buy(pictory)
    code, _, text = run("adopt", "d", "r", "t", job_id, "--map-index", "1")
    assert code == 1
    assert "has more than one such task. Nothing was put on record." in " ".join(text.split())
    assert "--map-index 0 --loop-index 1  (failed)" in text
    assert "and 4 more" in text
    assert "has no such task" in run("adopt", "d", "r", "t", job_id, "--map-index", "12")[2]
    database.state[instance(1, 0), "pictory_submission"] = json.dumps(INTENT)
    assert run("adopt", "d", "r", "t", job_id, "--map-index", "1", "--loop-index", "0")[0] == 0
    database.instances = ()
    assert "Airflow has no task 't' in run 'r' of DAG 'd'." in run("adopt", "d", "r", "t", job_id)[2]


def test_a_command_without_airflows_database_says_where_to_run_it(pictory, run):
    code, _, text = run("adopt", "d", "r", "t", buy(pictory))
    assert code == 1
    assert "Airflow's database could not be used from here: OperationalError" in text
    assert "Run this where Airflow's scheduler or API server runs." in text


def test_a_wrong_command_line_ends_with_2(run):
    assert run("chekc")[0] == 2


def test_the_key_is_on_no_screen(pictory):
    for line in (["check"], ["gallery"], ["ledger"]):
        done = subprocess.run(
            [sys.executable, "-m", "pictory_provider", *line],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"AIRFLOW_CONN_PICTORY_DEFAULT": pictory.connection_json()},
        )
        assert done.returncode in (0, 1), done.stderr
        assert pictory.api_key not in done.stdout + done.stderr


def test_airflow_finds_the_commands_by_their_name():
    (name,) = get_provider_info()["cli"]
    module, _, function = name.rpartition(".")
    (group,) = getattr(__import__(module, fromlist=[function]), function)()
    assert [each.name for each in group.subcommands] == ["check", "gallery", "ledger", "adopt"]
