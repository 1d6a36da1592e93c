# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``@task.pictory_image``: a function that says what to draw, as a task that has it drawn."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    context_merge,
    task_decorator_factory,
)

from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import ImageRequest
from pictory_provider.compat import SET_DURING_EXECUTION, determine_kwargs
from pictory_provider.jobs.submission import asked_for
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.order import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator

_FIELDS = tuple(field.name for field in fields(ImageRequest))
_LONGEST_TOLD = 500
_ANY_PROMPT = "Whatever the function is going to return."


class DecoratedImageOperator(DecoratedOperator, GenerateImageOperator):
    """A :class:`GenerateImageOperator` whose prompt is a function's result.

    The function is called right before the purchase and not otherwise: a retry that adopts a job does not call it.
    So what tells one purchase from another is what the function is given, and not what it returns.
    """

    custom_operator_name = "@task.pictory_image"
    template_fields: Sequence[str] = tuple(
        dict.fromkeys((*DecoratedOperator.template_fields, *GenerateImageOperator.template_fields))
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **GenerateImageOperator.template_fields_renderers,
    }

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if "prompt" in kwargs:
            raise TypeError("@task.pictory_image takes no prompt: the function returns it")
        if kwargs.get("multiple_outputs"):
            raise ValueError("@task.pictory_image has one result, the jobId: multiple_outputs cannot be on")
        if inspect.iscoroutinefunction(python_callable) or inspect.isgeneratorfunction(python_callable):
            raise TypeError("@task.pictory_image takes a plain function, neither a coroutine nor a generator")
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            prompt=SET_DURING_EXECUTION,
            **kwargs,
        )

    def _order(self, context: Context) -> Order:
        given = {**{name: getattr(self, name) for name in _FIELDS}, "prompt": _ANY_PROMPT}
        identity = asked_for(ImageRequest(**given))
        del identity["prompt"]
        identity["arguments"] = _told({"args": list(self.op_args), "kwargs": dict(self.op_kwargs)})

        def request() -> ImageRequest:
            for name, value in self._returned(context).items():
                setattr(self, name, value)
            return ImageRequest.of(self)

        return Order(identity, request)

    def _returned(self, context: Context) -> dict[str, Any]:
        """Call the function, and return the fields of the request that it gives."""
        context_merge(context, self.op_kwargs)
        returned = self.python_callable(
            *self.op_args, **determine_kwargs(self.python_callable, self.op_args, context)
        )
        if isinstance(returned, str):
            return {"prompt": returned}
        if not isinstance(returned, dict) or "prompt" not in returned:
            raise RequestInvalid(
                f"The function returned {repr(returned)[:200]}. It returns the prompt, a string, or a dict with "
                f"`prompt` and other fields of the request: {', '.join(_FIELDS)}. "
                "Nothing was sent and nothing was spent.",
                fields=["prompt"],
            )
        if unknown := sorted(str(name) for name in returned if name not in _FIELDS):
            raise RequestInvalid(
                f"The function returned a dict with {', '.join(unknown)}, which a request does not have. "
                f"It has {', '.join(_FIELDS)}. Nothing was sent and nothing was spent.",
                fields=unknown,
            )
        return returned


def _told(arguments: dict[str, Any]) -> str:
    """Return what a function is given, the same at every try; long ones as a digest.

    Of what is no JSON only the type is told: its ``repr`` may hold an address in memory. Where nothing can be told
    all arguments look alike, and a job on record is adopted.
    """
    try:
        told = json.dumps(arguments, sort_keys=True, default=lambda value: type(value).__name__)
    except (TypeError, ValueError):  # keys of different types, a list within itself
        return "that are no JSON"
    return told if len(told) <= _LONGEST_TOLD else hashlib.sha256(told.encode()).hexdigest()


def pictory_image(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Have drawn what the decorated function says; the same as ``@task.pictory_image``.

    ::

        @pictory_image(model="flux-schnell", aspect_ratio="9:16", wait_for_completion=True)
        def cover(article: dict) -> str:
            return f"A magazine cover about {article['title']}, paper cut, two colours"

    The function returns the prompt, or a dict with ``prompt`` and other fields of the request, which win over the
    decorator's. What it returns is no template. The task's result is the jobId, a string.

    :param kwargs: arguments of :class:`~pictory_provider.operators.pictory.GenerateImageOperator`, without
        ``prompt``, and of ``BaseOperator``.
    :raises PictoryRequestInvalid: in the task, for a result that is no request; nothing was sent.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=DecoratedImageOperator,
        # Else a function that is annotated `-> dict` turns it on, and the task would fail after the purchase.
        **{"multiple_outputs": False, **kwargs},
    )
