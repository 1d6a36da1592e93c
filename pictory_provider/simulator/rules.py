# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The documented rules for a request.

Source: https://docs.pictory.ai/api-reference/ai-studio/generate-image. The rules are duplicated on purpose: a
simulator that shared the provider's tables could not contradict them.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

RATIOS = ("1:1", "16:9", "9:16")
PRICES = {"seedream3.0": 2.0, "flux-schnell": 0.6, "nanobanana": 4.0, "nanobanana-pro": 14.0}
STYLES = ("photorealistic", "artistic", "cartoon", "minimalist", "vintage", "futuristic")
FIELDS = ("prompt", "model", "aspectRatio", "style", "referenceImageUrl", "webhook")
DEFAULTS = {"model": "seedream3.0", "aspectRatio": "1:1"}


def problems(body: dict[str, Any]) -> dict[str, str]:
    """Return the problems of a body, by field. Unknown fields are not a problem."""
    found: dict[str, str] = {}
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        found["prompt"] = "prompt is required and must be a string"
    elif not 5 <= len(prompt) <= 5000:
        found["prompt"] = "prompt must be between 5 and 5000 characters"
    for field, allowed in (("model", tuple(PRICES)), ("aspectRatio", RATIOS), ("style", STYLES)):
        if field in body and body[field] not in allowed:
            found[field] = f"{field} must be one of {', '.join(allowed)}"
    for field in ("referenceImageUrl", "webhook"):
        if field in body and not _is_uri(body[field]):
            found[field] = f"{field} must be a valid URI"
    return found


def _is_uri(value: object) -> bool:
    if not isinstance(value, str) or any(character.isspace() for character in value):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
