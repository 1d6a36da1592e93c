# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What may follow a task whose result is one string?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pictory_provider.api.errors import RequestInvalid

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context


def check_what_follows(task: BaseOperator, context: Context) -> None:
    """Refuse, before anything is bought, what Airflow would refuse after it: the result is a string.

    :raises RequestInvalid: names what is to be changed.
    """
    problem = None
    map_index = context["ti"].map_index
    is_mapped = map_index is not None and map_index >= 0
    if task.multiple_outputs:
        problem = "multiple_outputs is on, and asks for a dict. Leave it out"
    elif task.get_dag() and not is_mapped and next(task.iter_mapped_dependants(), None):
        problem = (
            "another task expands over it, and takes a list. Map this task, and expand over its outputs; "
            "or hand the jobId over by .partial()"
        )
    if problem:
        raise RequestInvalid(
            f"The result of this task is one jobId, a string; {problem}. Nothing was sent and nothing was spent.",
            fields=["multiple_outputs" if task.multiple_outputs else "job_id"],
        )
