# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The API's values: requests, jobs, gallery items and quotas.

Limits, models and credits are those of https://docs.pictory.ai/api-reference/ai-studio/generate-image.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, NamedTuple, TypedDict

from pictory_provider.api.checks import check_listed, check_prompt, check_reference, check_url

DEFAULT_MAX_BYTES = 100 * 1024 * 1024
"""The largest picture that is downloaded by default."""
DEFAULT_MODEL = "seedream3.0"
FIRST_POLL = 10.0
"""Seconds after a submission when a picture of most models may be ready. Our value: Pictory names none."""


class Model(NamedTuple):
    """One image model.

    :param aspect_ratios: in documented order.
    :param credits: the price of a picture in AI credits.
    :param first_poll: seconds after a submission when a picture may be ready.
    """

    name: str
    aspect_ratios: tuple[str, ...]
    credits: float
    first_poll: float = FIRST_POLL


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("seedream3.0", ("1:1", "16:9", "9:16"), 2),
        Model("flux-schnell", ("1:1", "16:9", "9:16"), 0.6, first_poll=5.0),
        Model("nanobanana", ("1:1", "16:9", "9:16"), 4),
        Model("nanobanana-pro", ("1:1", "16:9", "9:16"), 14),
    )
}
"""The models that this release knows, by name."""


def first_poll_of(model: object) -> float:
    """Return the seconds after a submission at which a model's job is first worth polling."""
    known = MODELS.get(model) if isinstance(model, str) else None
    return known.first_poll if known else FIRST_POLL


STYLES = ("photorealistic", "artistic", "cartoon", "minimalist", "vintage", "futuristic")
"""The styles that this release knows."""


class ImageOptions(TypedDict, total=False):
    """The arguments of an :class:`ImageRequest` without the prompt."""

    model: str
    aspect_ratio: str | None
    style: str | None
    reference_image_url: str | None
    webhook: str | None
    allow_unlisted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """A request for one picture. The constructor checks it, so every instance can be sent.

    :param prompt: 5 to 5,000 characters.
    :param model: one of :data:`MODELS`.
    :param aspect_ratio: one of the model's ratios; with ``None`` Pictory uses the model's first.
    :param style: one of :data:`STYLES`, or ``None``.
    :param reference_image_url: absolute ``http(s)`` URL that Pictory can read without logging in; an object in
        a storage that can sign URLs, such as ``s3://bucket/key.png``; or the name of a picture that is uploaded
        right before the request (:func:`~pictory_provider.api.checks.upload_name`).
    :param webhook: absolute ``http(s)`` URL that Pictory calls when the job ends.
    :param allow_unlisted: accept a model, style or ratio that this release does not know. Pictory
        answers an unknown one with 400, at no cost.
    :raises RequestInvalid: names the field, the value and what is supported.
    """

    prompt: str
    model: str = DEFAULT_MODEL
    aspect_ratio: str | None = None
    style: str | None = None
    reference_image_url: str | None = None
    webhook: str | None = None
    allow_unlisted: bool = False

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        unlisted = self.allow_unlisted
        check_listed("model", self.model, tuple(MODELS), allow_unlisted=unlisted)
        if (ratio := self.aspect_ratio) is not None:
            ratios = MODELS[self.model].aspect_ratios if self.model in MODELS else ()
            owner = f" of model {self.model!r}"
            check_listed("aspect_ratio", ratio, ratios, allow_unlisted=unlisted, owner=owner)
        if self.style is not None:
            check_listed("style", self.style, STYLES, allow_unlisted=unlisted)
        if self.reference_image_url is not None:
            check_reference("reference_image_url", self.reference_image_url)
        if self.webhook is not None:
            check_url("webhook", self.webhook)

    @classmethod
    def of(cls, holder: object, **changes: Any) -> ImageRequest:
        """Return a request from an object that has its fields as attributes, such as an operator.

        :param changes: fields with other values.
        """
        return cls(**{field.name: getattr(holder, field.name) for field in fields(cls)} | changes)

    def body(self) -> dict[str, str]:
        """Return the JSON body: documented names only, without the fields that are ``None``."""
        body = {
            "prompt": self.prompt,
            "model": self.model,
            "aspectRatio": self.aspect_ratio,
            "style": self.style,
            "referenceImageUrl": self.reference_image_url,
            "webhook": self.webhook,
        }
        return {name: value for name, value in body.items() if value is not None}

    @property
    def credits(self) -> float | None:
        """The list price in AI credits, ``None`` for a model that this release does not know."""
        known = MODELS.get(self.model)
        return known.credits if known else None


class JobState(Enum):
    """The meaning of a job's status."""

    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CLEANED = "cleaned"
    UNKNOWN = "unknown"
    """A status that Pictory does not document. The job counts as running, never as completed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as Pictory describes it. A value that is missing in the reply is ``None``.

    :param status: Pictory's status, unchanged.
    :param success: Pictory's flag; ``False`` means failed, whatever the status is.
    :param url: where the finished picture (PNG) can be downloaded.
    :param width: pixels.
    :param height: pixels.
    :param ai_credits_used: may be fractional.
    """

    job_id: str
    status: str | None = None
    success: bool | None = None
    url: str | None = None
    width: int | None = None
    height: int | None = None
    ai_credits_used: float | None = None
    error_code: str | None = None
    error_message: str | None = None

    @property
    def state(self) -> JobState:
        """The meaning of :attr:`status` and :attr:`success` together."""
        if self.success is False:
            return JobState.FAILED
        try:
            return JobState(self.status)
        except ValueError:
            return JobState.UNKNOWN

    def record(self) -> dict[str, Any]:
        """Return the image record: the plain JSON that every task pushes as its XCom."""
        names = ("job_id", "status", "url", "width", "height", "ai_credits_used")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedImage:
    """One item of the gallery (``GET /v1/aistudio/images``). It has no job id."""

    id: str | None
    url: str | None
    prompt: str | None = None
    model: str | None = None
    aspect_ratio: str | None = None
    style: str | None = None
    reference_image_url: str | None = None
    width: int | None = None
    height: int | None = None
    created_date: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The AI credits of the subscription, as ``GET /v1/quota`` reports them.

    :param raw: the full reply, with the minutes of video, transcription and voice-over.
    """

    ai_credits_used: float
    ai_credits_limit: float
    raw: dict[str, Any]

    @property
    def ai_credits_left(self) -> float:
        """The limit minus the used credits, rounded to a hundredth: prices are in tenths."""
        return round(self.ai_credits_limit - self.ai_credits_used, 2)
