# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""``@task.pictory_image``: a task that generates an image from the prompt that a function returns."""

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
from pictory_provider.core.submission import canonical_request
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.services.generate import LazyRequest
from pictory_provider.services.uploads import Uploads
from pictory_provider.version_compat import SET_DURING_EXECUTION, determine_kwargs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator

_FIELDS = tuple(field.name for field in fields(ImageRequest))
_LONGEST_ARGUMENTS = 500
_ANY_PROMPT = "A prompt that the function returns later."


class DecoratedImageOperator(DecoratedOperator, GenerateImageOperator):
    """A :class:`GenerateImageOperator` whose prompt is a function's result.

    The function is called only right before a submission: a retry that adopts a job does not call it. So requests
    are distinguished by the function's arguments, and not by its result.
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
            raise ValueError("@task.pictory_image has one result, the jobId, so multiple_outputs cannot be on")
        if inspect.iscoroutinefunction(python_callable) or inspect.isgeneratorfunction(python_callable):
            raise TypeError("@task.pictory_image takes a plain function, not a coroutine or a generator")
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            prompt=SET_DURING_EXECUTION,
            **kwargs,
        )

    def _lazy_request(self, context: Context) -> LazyRequest:
        uploads = Uploads.of(self)
        url = uploads.references.name_of(self.reference_image_url)
        identity = canonical_request(ImageRequest.of(self, prompt=_ANY_PROMPT, reference_image_url=url))
        del identity["prompt"]
        identity["arguments"] = _as_text({"args": list(self.op_args), "kwargs": dict(self.op_kwargs)})

        def request() -> ImageRequest:
            for name, value in self._call(context).items():
                setattr(self, name, value)
            url = uploads.references.identify(self.reference_image_url)
            return ImageRequest.of(self, reference_image_url=url)

        return LazyRequest(identity, request, uploads)

    def _call(self, context: Context) -> dict[str, Any]:
        """Call the function, and return the fields of the request."""
        context_merge(context, self.op_kwargs)
        returned = self.python_callable(
            *self.op_args, **determine_kwargs(self.python_callable, self.op_args, context)
        )
        if isinstance(returned, str):
            return {"prompt": returned}
        if not isinstance(returned, dict) or "prompt" not in returned:
            raise RequestInvalid.unsent(
                f"The function returned {repr(returned)[:200]}. It must return the prompt, a string, or a dict "
                f"with `prompt` and other fields of the request: {', '.join(_FIELDS)}",
                fields=["prompt"],
            )
        if unknown := sorted(str(name) for name in returned if name not in _FIELDS):
            raise RequestInvalid.unsent(
                f"The function returned a dict with {', '.join(unknown)}, which is not a field of a request. "
                f"The fields are {', '.join(_FIELDS)}",
                fields=unknown,
            )
        return returned


def _as_text(arguments: dict[str, Any]) -> str:
    """Return a function's arguments as text that is the same in every attempt; a digest if it is long.

    A value that is not JSON is represented by its type, since its ``repr`` may contain a memory address. If the
    arguments cannot be written as JSON at all, all calls look alike, and a job on record is adopted.
    """
    try:
        text = json.dumps(arguments, sort_keys=True, default=lambda value: type(value).__name__)
    except (TypeError, ValueError):  # keys of different types, or a list that contains itself
        return "that are no JSON"  # part of stored fingerprints
    return text if len(text) <= _LONGEST_ARGUMENTS else hashlib.sha256(text.encode()).hexdigest()


def pictory_image(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Generate an image from the prompt that the decorated function returns; the same as ``@task.pictory_image``.

    ::

        @pictory_image(model="flux-schnell", aspect_ratio="9:16", wait_for_completion=True)
        def cover(article: dict) -> str:
            return f"A magazine cover about {article['title']}, paper cut, two colours"

    The function returns the prompt, or a dict with ``prompt`` and other fields of the request, which win over the
    decorator's. The result is not rendered as a template. The task's result is the jobId, a string.

    :param kwargs: arguments of :class:`~pictory_provider.operators.pictory.GenerateImageOperator`, without
        ``prompt``, and of ``BaseOperator``.
    :raises PictoryRequestInvalid: in the task, if the result is not a request; nothing was sent.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=DecoratedImageOperator,
        # Otherwise a function annotated with `-> dict` turns it on, and the task would fail after the submission.
        **{"multiple_outputs": False, **kwargs},
    )
