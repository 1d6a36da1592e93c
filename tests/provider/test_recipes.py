# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What the recipe with a vision model does with any answer of the model, which can be anything."""

from __future__ import annotations

import pytest
from airflow.sdk.execution_time.context import OutletEventAccessors

from dags.recipes import recipe_let_a_model_choose as recipe


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """Return a function that runs the task with an answer, and returns its result and the extras of its events."""
    images = []
    for number in (1, 2, 3):
        path = tmp_path / f"cover.{number}.png"
        path.write_bytes(b"picture %d" % number)
        images.append(
            {
                "path": str(path),
                "sha256": "0" * 64,
                "job_id": f"job {number}",
                "candidate": number,
                "prompt": "A hall",
            }
        )

    def run(answer):
        monkeypatch.setattr(recipe, "ask_model", lambda *_: answer)
        events = OutletEventAccessors()
        result = recipe.dag.get_task("choose").python_callable(images, outlet_events=events)
        return result, events[recipe.cover].extra

    return run


@pytest.mark.parametrize(
    "answer",
    [
        *("", "2", "null", "the second", None, '["number", "reason"]', '{"number": 2}', '{"reason": "nice"}'),
        *(f'{{"number": {number}, "reason": "nice"}}' for number in ("0", "4", "-1", "true", "2.0", '"2"', "[2]")),
    ],
)
def test_an_answer_that_names_no_picture_fails_and_says_what_it_was(choose, answer):
    with pytest.raises(ValueError, match="did not name a picture from 1 to 3") as failed:
        choose(answer)
    assert repr(str(answer)) in str(failed.value)


def test_the_picture_that_is_named_is_published_with_a_reason_of_limited_length(choose):
    result, extra = choose('{"number": 3, "reason": "' + "nice " * 1_000 + '"}')
    assert extra == result
    assert (result["candidate"], result["job_id"], len(result["reason"])) == (3, "job 3", 500)
