# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Sensors that end, or begin and end, in the triggerer, and those that must not."""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, Asset, task, task_group

from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor

PULLED = "{{{{ ti.xcom_pull(task_ids='generate'{}) }}}}"


def sensor(task_id, job_id, **more):
    return PictoryJobSensor(task_id=task_id, job_id=job_id, **{"poke_interval": 3, "timeout": 600, **more})


with DAG(
    dag_id="system_triggerer",
    schedule=None,
    max_active_tasks=32,
    default_args={"retries": 0},
    params={"suffix": ""},
):
    generate = GenerateImageOperator(
        task_id="generate", prompt="One job for the triggerer, simulate:seconds=3600", model="flux-schnell"
    )
    start = {"start_from_trigger": True}
    generate >> [
        sensor("end", generate.output, end_from_trigger=True),
        sensor("start", generate.output, **start),
        sensor("start_template", PULLED.format(", map_indexes=-1"), **start),
        sensor("worker_slice", PULLED.format(""), **start),
        sensor("worker_multiple", generate.output, multiple_outputs=True, **start),
        sensor("worker_outlet", generate.output, outlets=[Asset("system_picture")], **start),
        sensor(
            "worker_execution_timeout", generate.output, execution_timeout=pendulum.duration(minutes=5), **start
        ),
        PictoryJobSensor.partial(task_id="worker_mapped", poke_interval=3, **start).expand(
            job_id=[generate.output]
        ),
    ]

    over_fields = sensor("worker_for_mapped", generate.output, **start)

    @task
    def each_field(field):
        return field[0]

    each_field.expand(field=over_fields.output)

    @task(show_return_value_in_logs=False)  # with such a URL anyone can read the picture
    def pulled(ended, began, mapped):
        """Return the results of the sensors that ended in the triggerer, as other tasks get them."""
        return [ended, began, *mapped]

    ended = [sensor(f"read_{way}", generate.output, **{f"{way}_from_trigger": True}) for way in ("end", "start")]
    in_turn = PictoryJobSensor.partial(task_id="read_mapped", poke_interval=3, end_from_trigger=True).expand(
        job_id=[generate.output, generate.output]
    )
    pulled(*(wait.output for wait in ended), in_turn.output.map(lambda image: image["job_id"]))

    @task_group
    def each(prompt):
        submit = GenerateImageOperator(task_id="submit", prompt=prompt)
        submit >> sensor("worker_in_group", submit.output, **start)

    each.expand(prompt=["In a mapped group, one", "In a mapped group, two"])

    sensor("no_job", "{{ dag_run.conf.get('nothing') }}", **start)
    sensor("no_param", "{{ params.suffix }}", **start)
    for fate in ("failed", "stuck"):
        submit = GenerateImageOperator(task_id=f"submit_{fate}", prompt=f"A job that ends simulate:{fate}")
        for soft_fail in (False, True):
            name = f"start_{fate}{'_soft' if soft_fail else ''}"
            submit >> sensor(name, submit.output, timeout=4, soft_fail=soft_fail, **start)
