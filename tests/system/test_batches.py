# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A batch in a real Airflow: its worker is given away, its progress is seen meanwhile, and every row is paid once."""

from __future__ import annotations

import json
from pathlib import Path


def test_sixty_pictures_are_made_by_one_task_that_defers(airflow, runs, crowd):
    run = runs["sixty"]
    assert airflow.finish(*run) == {"draw": "success"}

    result = airflow.xcom(*run, "draw")
    folder = Path(result["manifest"]).parent
    assert (result["of"], result["saved"], result["ai_credits_used"]) == (60, 60, 36)
    assert airflow.xcom(*run, "draw", "progress") == {name: result[name] for name in result if name != "manifest"}
    asked = [request.body["prompt"] for request in crowd.submissions]
    assert sum(prompt.startswith("A lamp, number") for prompt in asked) == 60

    lines = [json.loads(line) for line in Path(result["manifest"]).read_text().splitlines()]
    assert [line["file_name"] for line in lines] == [f"{number:03d}.png" for number in range(60)]
    assert all((folder / line["file_name"]).stat().st_size == line["size"] for line in lines)
    records = [*airflow.xcom(*run, "draw", "pictures_0"), *airflow.xcom(*run, "draw", "pictures_1")]
    assert [record["job_id"] for record in records] == [line["job_id"] for line in lines]

    log = airflow.task_log(*run, "draw")
    assert "60 pictures to submit, for 36 AI credits as listed" in log
    assert "Resumed: " in log
    assert "pictai_canary" not in log
