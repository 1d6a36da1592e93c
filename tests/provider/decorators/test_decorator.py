# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``@task.pictory_image``: a function returns the prompt."""

from __future__ import annotations

import json

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk import DAG, task

from pictory_provider.api.models import Job
from pictory_provider.core import events
from pictory_provider.core.submission import KEY
from pictory_provider.decorators.pictory import DecoratedImageOperator, pictory_image
from pictory_provider.exceptions import PictoryRequestInvalid, PictorySubmitOutcomeUnknown
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.provider_info import get_provider_info
from tests.stand_ins import says

ARTICLE = {"title": "Tea, and how to take the time for it"}


def operator_of(function, *arguments, **options):
    """Return the task that a decorated function becomes in a DAG."""
    with DAG(dag_id="covers", schedule=None):
        return pictory_image(**options)(function)(*arguments).operator


def cover(article):
    return f"A magazine cover about {article['title']}"


def test_the_functions_result_is_the_prompt(pictory, context, ti):
    job_id = operator_of(cover, ARTICLE, model="flux-schnell").execute(context)
    assert pictory.submissions[0].body == {
        "prompt": f"A magazine cover about {ARTICLE['title']}",
        "model": "flux-schnell",
    }
    assert ti.xcoms.pop("pictory_request")["prompt"] == f"A magazine cover about {ARTICLE['title']}"
    assert ti.xcoms == {"jobId": job_id, "return_value": job_id}


def test_a_dict_gives_other_fields_too_and_they_win(pictory, context):
    def said(article) -> dict[str, str]:
        return {"prompt": cover(article), "style": "vintage", "aspect_ratio": "9:16"}

    made = operator_of(said, ARTICLE, style="cartoon")
    assert made.multiple_outputs is False, "a dict annotation must not turn it on"
    made.execute(context)
    body = pictory.submissions[0].body
    assert (body["style"], body["aspectRatio"]) == ("vintage", "9:16")


@pytest.mark.parametrize(
    ("returned", "why"),
    [
        (None, "The function returned None"),
        ({"style": "vintage"}, "It must return the prompt"),
        ({"prompt": "A lighthouse", "aspectRatio": "1:1"}, "dict with aspectRatio"),
        ("Tea", "prompt"),
        ({"prompt": "A lighthouse", "style": "gothic"}, "gothic"),
        (["A lighthouse"], "The function returned"),
    ],
)
def test_a_result_that_is_no_request_is_refused_before_anything_is_sent(pictory, context, store, returned, why):
    def said():
        return returned

    with pytest.raises(PictoryRequestInvalid, match=says(why)):
        operator_of(said).execute(context)
    assert (pictory.submissions, store.rows) == ([], {})


def test_mistakes_in_the_decorators_own_arguments_are_reported_before_the_function_is_called(pictory, context):
    calls = []

    def unwanted():
        calls.append(1)

    with pytest.raises(PictoryRequestInvalid, match="gothic"):
        operator_of(unwanted, style="gothic").execute(context)
    assert calls == []


def test_a_retry_adopts_the_job_and_does_not_call_the_function(pictory, context):
    calls = []

    def dreamed(article):  # as by a language model: another prompt at every call
        calls.append(article)
        return f"{cover(article)}, version {len(calls)}"

    first = operator_of(dreamed, ARTICLE).execute(context)
    assert operator_of(dreamed, ARTICLE).execute(context) == first
    assert (len(calls), len(pictory.submissions)) == (1, 1)


def test_a_mapped_retry_of_the_same_argument_adopts_and_one_of_another_refuses(pictory, context, ti):
    ti.map_index = 3
    first = operator_of(cover, ARTICLE).execute(context)
    assert operator_of(cover, ARTICLE).execute(context) == first
    with pytest.raises(PictoryRequestInvalid, match=says("was bought for another request")) as caught:
        operator_of(cover, {"title": "Coffee"}).execute(context)
    assert "Coffee" in str(caught.value)
    assert len(pictory.submissions) == 1


def test_an_argument_that_is_not_json_looks_the_same_in_every_attempt(pictory, context, ti):
    ti.map_index = 0

    class Article(dict):
        title = "Tea"

    def named(article, other):
        return f"A cover about {article['title']}"

    first = operator_of(named, Article(ARTICLE), object()).execute(context)
    assert operator_of(named, Article(ARTICLE), object()).execute(context) == first


@pytest.mark.parametrize("argument", [{1: "a", "b": 2}, {("a", "b"): 1}, {"words": "tea " * 1000}])
def test_a_retry_adopts_whatever_arguments_the_function_gets(pictory, context, ti, argument):
    ti.map_index = 0

    def drawn(given):
        return f"A cover about {len(given)} things"

    first = operator_of(drawn, argument).execute(context)
    assert operator_of(drawn, argument).execute(context) == first


def test_a_long_argument_is_put_on_record_as_a_digest(pictory, context, store):
    job_id = PictoryHook().generate_image("A cup")
    store.set(KEY, {"jobId": job_id})
    assert operator_of(cover, {"title": "tea " * 1000}).execute(context) == job_id
    assert len(json.dumps(store.get(KEY))) < 1000


def test_a_function_that_fails_buys_nothing_and_may_be_retried(pictory, context, store):
    def failing():
        raise KeyError("title")

    with pytest.raises(KeyError):
        operator_of(failing).execute(context)
    assert (pictory.submissions, store.rows) == ([], {})


def test_a_lost_reply_is_reported_with_the_gallerys_pictures_of_the_functions_prompt(pictory, context):
    pictory.script("submit", "drop-after")
    with pytest.raises(PictorySubmitOutcomeUnknown):
        operator_of(cover, ARTICLE).execute(context)
    calls = []

    def unwanted(article):
        calls.append(article)

    with pytest.raises(PictorySubmitOutcomeUnknown, match=says("Pictures of this request in the gallery")):
        operator_of(unwanted, ARTICLE).execute(context)
    assert (calls, len(pictory.submissions)) == ([], 1)


def test_it_defers_and_resumes_like_the_operator(pictory, context, ti):
    pictory.plan(seconds=60)
    made = operator_of(cover, ARTICLE, wait_for_completion=True)
    with pytest.raises(TaskDeferred) as deferred:
        made.execute(context)
    assert deferred.value.method_name == "execute_complete"


def test_context_and_keyword_arguments_reach_the_function(pictory, context):
    context["run_id"] = "manual__1"

    def named(article, *, colour, run_id=None):
        return f"{article['title']} in {colour} for {run_id}"

    with DAG(dag_id="covers", schedule=None):
        made = pictory_image(named)(ARTICLE, colour="blue").operator
    made.execute(context)
    assert pictory.submissions[0].body["prompt"] == f"{ARTICLE['title']} in blue for manual__1"


async def _coroutine():
    return "A lighthouse"


@pytest.mark.parametrize(
    ("function", "options", "error"),
    [
        (cover, {"prompt": "A lighthouse"}, TypeError),
        (cover, {"multiple_outputs": True}, ValueError),
        (_coroutine, {}, TypeError),
    ],
)
def test_unsupported_functions_are_refused_when_the_dag_is_parsed(function, options, error):
    with pytest.raises(error, match=r"@task\.pictory_image"):
        operator_of(function, *([ARTICLE] if function is cover else []), **options)


def test_it_maps_over_what_an_earlier_task_returns():
    with DAG(dag_id="covers", schedule=None) as dag:

        @task
        def articles():
            return [ARTICLE]

        pictory_image(model="flux-schnell")(cover).expand(article=articles())
    assert dag.get_task("cover").is_mapped


def test_airflow_knows_the_decorator():
    (told,) = get_provider_info()["task-decorators"]
    assert told["name"] == "pictory_image"
    assert told["class-name"] == f"{pictory_image.__module__}.{pictory_image.__qualname__}"
    assert DecoratedImageOperator.custom_operator_name == "@task.pictory_image"


# With a path ---------------------------------------------------------------------------------------------


def saving(function, path, *arguments, **options):
    return operator_of(function, *arguments, path=str(path), deferrable=False, **options)


@pytest.mark.parametrize("has_store", [True, False])
def test_the_function_is_called_once_for_one_picture_over_retries_and_clears(
    pictory, context, context_without_store, ti, tmp_path, has_store
):
    given, calls = context if has_store else context_without_store, []

    def different_each_time(article):
        calls.append(article)
        return f"{cover(article)}, in the style of {len(calls)} painters"

    job_id = saving(different_each_time, tmp_path / "a.png", ARTICLE).execute(given)
    assert saving(different_each_time, tmp_path / "a.png", ARTICLE).execute(given) == job_id
    ti.clear()
    assert saving(different_each_time, tmp_path / "a.png", ARTICLE).execute(given) == job_id
    assert (len(calls), len(pictory.submissions)) == (1, 1)
    assert ti.xcoms["image"]["prompt"].endswith("1 painters")
    assert json.loads((tmp_path / "a.png.json").read_text())["request"]["prompt"] == ti.xcoms["image"]["prompt"]


def test_another_run_takes_the_picture_of_the_same_prompt_and_refuses_that_of_another(
    pictory, ti, context_without_store, tmp_path
):
    saving(cover, tmp_path / "a.png", ARTICLE, model="flux-schnell").execute(context_without_store)
    ti.run_id = "another"
    saving(cover, tmp_path / "a.png", ARTICLE, model="flux-schnell").execute(context_without_store)
    assert (ti.xcoms["image"]["reused"], len(pictory.submissions)) == (True, 1)

    def rewritten(article):
        return f"{cover(article)}, on linen"

    with pytest.raises(PictoryRequestInvalid, match=says("on linen")):
        saving(rewritten, tmp_path / "a.png", ARTICLE, model="flux-schnell").execute(context_without_store)
    assert len(pictory.submissions) == 1


def test_a_deferred_function_is_not_called_again_when_it_saves(pictory, context, ti, tmp_path):
    pictory.account.seconds = 60
    calls = []

    def once(article):
        calls.append(article)
        return cover(article)

    with pytest.raises(TaskDeferred) as deferral:
        operator_of(once, ARTICLE, path=str(tmp_path / "a.png")).execute(context)
    (job,) = pictory.account.jobs.values()
    job.seconds = 0
    event = events.build(
        events.Ended(job.job_id, Job(job_id=job.job_id, status="completed", url="http://h/a"), 0.0)
    )
    resumed = operator_of(once, ARTICLE, path=str(tmp_path / "a.png"))
    assert resumed.execute_complete(context, event, **deferral.value.kwargs) == job.job_id
    assert (len(calls), ti.xcoms["image"]["prompt"]) == (1, cover(ARTICLE))
