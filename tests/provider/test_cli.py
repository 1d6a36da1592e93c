# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The commands, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pictory_provider import compat
from pictory_provider.__main__ import main
from pictory_provider.cli.spending import by_day, by_kind, by_model, rows
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
    monkeypatch.setattr(compat, "keep_state_of", lambda *_, **__: pytest.fail("it was put on record"))
    code, _, text = run("adopt", "d", "r", "t", "no-such-job")
    assert code == 1
    assert text.startswith("Pictory knows no job")


def test_a_job_is_put_on_the_record_that_the_operator_reads(pictory, run, monkeypatch):
    kept = {}
    monkeypatch.setattr(compat, "keep_state_of", lambda *place, key, value: kept.update({(*place, key): value}))
    job_id = buy(pictory)
    code, _, text = run("adopt", "d", "r", "t", job_id, "--map-index", "3")
    assert code == 0
    assert kept == {("d", "r", "t", 3, "pictory_submission"): json.dumps({"jobId": job_id})}
    assert "airflow tasks clear d" in text


def test_an_airflow_without_a_store_says_so_and_names_the_way_that_is_left(pictory, run, on_airflow):
    on_airflow((3, 2))
    code, _, text = run("adopt", "d", "r", "t", buy(pictory))
    assert code == 1
    assert "Airflow 3.2 keeps no state of a task" in text
    assert "PictoryJobSensor(job_id=" in text


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
