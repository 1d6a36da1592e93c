# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that ``make live`` buys at most one picture, and nothing without consent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.live import gathering
from tests.live.__main__ import main
from tests.live.buying import CannotBuy, Private
from tests.live.gathering import INVALID_BODY


def purchases(pictory):
    return [post for post in pictory.submissions if post.body != INVALID_BODY]


@pytest.fixture
def known(pictory, tmp_path):
    """Return the environment of a user with all required variables."""
    out = str(tmp_path / "out")
    return {"PICTORY_API_KEY": pictory.api_key, "PICTORY_BASE_URL": pictory.base_url, "LIVE_OUT": out}


@pytest.fixture
def run(pictory, known, capsys, monkeypatch):
    """Return a function that runs the program as a user does, and returns exit code and output."""

    def run(*arguments, at_a_terminal=(), **environment):
        lines = iter(at_a_terminal)
        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: bool(at_a_terminal)))
        monkeypatch.setattr("builtins.input", lambda _: next(lines))
        capsys.readouterr()
        code = main(list(arguments), known | environment)
        printed = capsys.readouterr()
        assert pictory.api_key not in printed.out + printed.err
        return code, printed.out

    return run


def test_the_program_runs_from_a_shell_and_leaves_no_airflow_home(pictory, known, tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.live"],
        env=env | known | {"LIVE": "yes", "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert pictory.api_key not in done.stdout + done.stderr
    assert len(purchases(pictory)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("answers", "sent"),
    [(["n"], []), ([""], []), (["y", "n"], [True]), (["yes", ""], [False, True]), (["y", "y"], [False, True])],
)
def test_it_asks_before_it_buys_and_before_it_sends_the_invalid_request(run, pictory, answers, sent):
    code, out = run(at_a_terminal=answers)
    assert [post.body != INVALID_BODY for post in pictory.submissions] == sent
    assert (code, "nothing was spent" in out) == (0, not sent)


def test_without_a_yes_or_a_key_nothing_is_sent(run, pictory, tmp_path):
    code, out = run()
    assert code == 1
    assert "buys one flux-schnell picture (16:9) for 0.6 AI credits" in out
    assert "a prompt of 2 characters" in out
    assert "Set LIVE=yes to agree" in out
    assert "Nothing was sent and nothing was spent." in out
    code, out = run(PICTORY_API_KEY="", LIVE="yes")
    assert code == 1
    assert "Set PICTORY_API_KEY" in out
    assert pictory.requests == []
    assert not (tmp_path / "out").exists()


def test_the_program_buys_one_picture_and_can_request_it_again(run, pictory, tmp_path):
    pictory.shape("url", "signed")
    code, out = run(LIVE="yes")
    assert code == 0, out
    assert len(purchases(pictory)) == len(pictory.account.jobs) == 1
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == [
        "picture.png",
        "private.json",
        "report.md",
        "samples",
    ]
    assert (folder / "private.json").stat().st_mode & 0o077 == 0

    assert "200, the same bytes; the job is completed, with the same URL |" in run("again", str(folder))[1]
    pictory.set(url_seconds=0.001)
    code, out = run("again", str(folder / "report.md"), PICTORY_API_KEY="")
    assert out.rstrip().endswith("| 200, the same bytes |")  # its query still says an hour
    jobs, pictory.account.jobs = pictory.account.jobs, {}
    assert "403; the job: JobNotFound |" in run("again", str(folder))[1]
    pictory.account.jobs = jobs
    rows = [line for line in (folder / "report.md").read_text().splitlines() if line.startswith("| 20")]
    assert len(rows) == 4

    code, out = run(LIVE="yes")
    assert "polls a job that was bought before, and buys nothing" in out
    assert len(purchases(pictory)) == 1


def test_the_invalid_request_can_be_skipped(run, pictory):
    assert run(LIVE="yes", LIVE_INVALID="no")[0] == 0
    assert [post.body["model"] for post in pictory.submissions] == ["flux-schnell"]
    assert pictory.account.credits_billed == 0.6


def test_a_custom_user_agent_is_sent(run, pictory):
    assert run(LIVE="yes", LIVE_USER_AGENT="somebody/1")[0] == 0
    assert {post.headers["User-Agent"] for post in pictory.submissions} == {"somebody/1"}


def test_unknown_arguments_print_the_usage(run, pictory):
    code, out = run("buy")
    assert (code, pictory.requests) == (2, [])
    assert "LIVE_JOB" in out


@pytest.mark.parametrize("fault", ["drop-after", "drop-before", "unavailable", "garbage", "drop-during"])
def test_an_unknown_outcome_is_reported_and_never_sent_again(run_tool, pictory, tmp_path, fault):
    pictory.script("submit", fault)
    result = run_tool(with_invalid=False)
    assert "cannot be known" in result.report or "unknown" in result.facts.stopped.lower()
    assert Private(tmp_path).known["state"] == "intent"
    for _ in range(2):
        with pytest.raises(CannotBuy, match="did not receive its jobId"):
            run_tool()
    assert len(purchases(pictory)) == 1


def test_after_an_unknown_outcome_a_run_continues_with_the_job_that_the_user_has_found(
    run_tool, pictory, tmp_path
):
    pictory.script("submit", "drop-after")
    run_tool(with_invalid=False)
    (job_id,) = pictory.account.jobs
    result = run_tool(job_id=job_id)
    assert "The picture had been bought before this run." in result.report
    assert "It was there. Type `debit`, amount 0.6" in result.says("row")
    assert result.says("visible at").startswith("- Not measured")
    assert len(purchases(pictory)) == 1
    with pytest.raises(CannotBuy, match="another job"):
        run_tool(job_id="another")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("a bug")])
def test_a_run_that_fails_after_the_purchase_writes_a_report_and_continues_without_buying(
    run_tool, pictory, tmp_path, monkeypatch, error
):
    def breaks(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(gathering, "_follow", breaks)
        result = run_tool()
    assert Private(tmp_path).known["job_id"] in pictory.account.jobs
    assert "run the same command to continue" in result.report
    assert "in the shape of the sample `submit-accepted/200`" in result.report
    assert run_tool().says("completed job").startswith("200")
    assert len(purchases(pictory)) == 1


@pytest.mark.parametrize("fault", ["unauthorized", "forbidden", "edge-block"])
def test_a_refused_purchase_can_be_repeated(run_tool, pictory, tmp_path, fault):
    pictory.script("submit", fault)
    result = run_tool(with_invalid=False)
    assert result.facts.stopped
    assert Private(tmp_path).known["state"] == "nothing bought"
    assert pictory.account.jobs == {}
    assert not run_tool().facts.stopped
    assert pictory.account.credits_billed == 0.6


def test_without_enough_credits_nothing_is_bought(run_tool, pictory):
    pictory.account.credits_limit = 0.5
    result = run_tool()
    assert "The account has 0.5 AI credits left, and 0.6 are needed." in result.report
    assert purchases(pictory) == []


@pytest.mark.parametrize("endpoint", ["quota", "usage"])
def test_if_quota_or_ledger_cannot_be_read_nothing_is_bought(run_tool, pictory, endpoint):
    pictory.script(endpoint, "server-error", times=-1)
    assert "Nothing was bought: Pictory could not answer (500)" in run_tool().report
    assert purchases(pictory) == []


def test_polls_that_sometimes_fail_do_not_end_the_run(run_tool, pictory):
    pictory.set(ledger_lag=0.2, quota_lag=0.2)
    pictory.plan("completed", seconds=0.2)
    for endpoint in ("quota", "usage", "job"):
        pictory.script(endpoint, "unavailable", times=-1, every=2)
    result = run_tool()
    assert not result.facts.stopped
    assert {"visible", "ended", "ledger", "quota"} <= set(result.facts.after)


def test_a_short_prompt_that_pictory_accepts_is_reported(run_tool, pictory, monkeypatch):
    monkeypatch.setattr("pictory_provider.simulator.rules.problems", lambda _: {})
    result = run_tool()
    assert "**It may have been billed (0.6 AI credits)**" in result.says("400")


def test_the_intent_is_on_disk_before_the_request_is_sent(run_tool, pictory, tmp_path, monkeypatch):
    seen = []
    accept = pictory.account.accept
    monkeypatch.setattr(
        pictory.account,
        "accept",
        lambda body: seen.append(json.loads((tmp_path / "private.json").read_text())) or accept(body),
    )
    run_tool()
    assert [known["state"] for known in seen] == ["intent"]
