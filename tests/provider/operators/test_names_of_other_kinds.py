# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A name that promises another kind of file than Pictory makes is said before anything is bought; the bytes decide."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG

from pictory_provider.core.picture_names import warning_of_kind
from pictory_provider.decorators.pictory import pictory_image
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from tests.driver import Attempts
from tests.provider.batches import lamps

SAID = "Pictory makes PNG files"


def single(path):
    return GenerateImageOperator(task_id="cover", prompt="A lamp", path=str(path), deferrable=False)


def decorated(path):
    with DAG(dag_id="covers", schedule=None):
        return pictory_image(path=str(path), deferrable=False)(lamp)().operator


def lamp():
    return "A lamp"


@pytest.mark.parametrize("make", [single, decorated])
@pytest.mark.parametrize(("name", "is_said"), [("a.jpg", True), ("a.WEBP", True), ("a.png", False), ("a", False)])
def test_a_task_says_so_before_it_buys_and_saves_the_bytes_as_they_come(
    fast, tmp_path, logged, make, name, is_said
):
    attempts = Attempts(lambda: make(tmp_path / name))
    attempts()
    log = logged()
    assert (SAID in log) is is_said
    if is_said:
        assert log.index(SAID) < log.index("Submitting a picture")
        assert repr(name) in log
    assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    attempts()
    assert SAID not in logged().replace(log, ""), "nothing is bought any more"


def test_a_batch_says_so_once_for_all_rows_before_it_buys(fast, one_try, folder, logged):
    table = [{"prompt": prompt, "file_name": f"{n}.{'jpg' if n else 'png'}"} for n, prompt in enumerate(lamps(5))]
    one_try(table)
    log = logged()
    assert log.count(SAID) == 1
    assert "4 of 5 do not, the first is '1.jpg'" in log
    one_try.of_another_run("second")(table)
    assert SAID not in logged().replace(log, "")


@pytest.mark.parametrize("through", ["the operator", "the hook"])
def test_a_download_says_so(context, hook, tmp_path, mocker, through):
    warning = mocker.patch.object(PictoryHook, "log").warning
    job_id, path = hook.generate_image("A lamp"), str(tmp_path / "a.jpg")
    if through == "the hook":
        hook.download_image(path, job_id=job_id)
    else:
        DownloadImageOperator(task_id="save", path=path, job_id=job_id).execute(context)
    assert [SAID in str(call) for call in warning.call_args_list] == [True]


@pytest.mark.parametrize(("name", "told"), [("a.jpg", "as its name says"), ("a.png", "whatever its name says")])
def test_the_received_kind_is_logged_when_the_picture_is_saved(fast, tmp_path, logged, name, told):
    fast.script("picture", "jpeg")
    Attempts(lambda: single(tmp_path / name))()
    assert f"it is a JPEG file and not a PNG, {told}" in logged()
    assert (tmp_path / name).read_bytes().startswith(b"\xff\xd8")


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a", "jpg", "a.jpg.png", ""])
def test_a_name_that_promises_nothing_else_is_passed_over(name):
    assert warning_of_kind([name]) is None
    assert warning_of_kind([]) is None


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png.webp", "b/c.gif", "a.tiff", "a.avif"])
def test_a_name_that_promises_another_kind_is_reported(name):
    assert f"{name!r} does not" in warning_of_kind([name])
    assert f"1 of 2 do not, the first is {name!r}." in warning_of_kind(["a.png", name])
