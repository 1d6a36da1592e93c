# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The metadata that Airflow's providers manager reads. Standard library only: every component loads it."""

from __future__ import annotations

from typing import Any

CONNECTION_TYPE = "pictory"
DEFAULT_CONN_ID = "pictory_default"
DEFAULT_POLL_INTERVAL = 15.0
"""Default seconds between two polls of a job."""
DEFAULT_TIMEOUT = 1_200.0
"""Default seconds of a whole wait."""
HOOK_NAME = "Pictory"

CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "timeout": {
        "label": "Request timeout",
        "description": "Seconds for one request, from connecting to the last byte of the reply. Default 60.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 3600},
    },
    "user_agent": {
        "label": "User agent",
        "description": "Sent with every request. Set another one if Pictory's firewall blocks the default.",
        "schema": {"type": ["string", "null"]},
    },
    "proxy": {
        "label": "Proxy",
        "description": "URL of an HTTP proxy, not SOCKS. Empty: the environment's HTTPS_PROXY and NO_PROXY.",
        "schema": {"type": ["string", "null"]},
    },
    "ca_bundle": {
        "label": "CA bundle",
        "description": "Path of a PEM file to trust, on every worker and triggerer. "
        "Empty: the environment's REQUESTS_CA_BUNDLE or SSL_CERT_FILE, or the default authorities.",
        "schema": {"type": ["string", "null"]},
    },
    "requests_per_second": {
        "label": "Requests per second",
        "description": "The most polls that one triggerer sends per second for all waiting jobs together. "
        "Default 10.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1000},
    },
    "credits_per_day": {
        "label": "AI credits a day, at most",
        "description": "Nothing is bought once the whole account has used so many since midnight UTC. "
        "Empty: no limit.",
        "schema": {"type": ["number", "null"], "minimum": 0},
    },
    "credits_per_month": {
        "label": "AI credits a month, at most",
        "description": "The same, since the first of the month, UTC. Empty: no limit.",
        "schema": {"type": ["number", "null"], "minimum": 0},
    },
    "credits_reserve": {
        "label": "AI credits never to be spent",
        "description": "Nothing is bought that would leave fewer in the account. Empty: no limit; 0: stop before "
        "the account is empty.",
        "schema": {"type": ["number", "null"], "minimum": 0},
    },
}
"""The fields of the connection's extra, in the order of the form."""

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login", "schema", "port", "extra"],
    "relabeling": {"password": "API key", "host": "Base URL"},
    "placeholders": {
        "password": "pictai_... without Bearer, from https://app.pictory.ai/api-access",
        "host": "https://api.pictory.ai/pictoryapis",
    },
}

OPTIONS: dict[str, dict[str, Any]] = {
    "gallery": {
        "description": "Show the tabs and the page *Pictures*. Every component reads it when it starts.",
        "version_added": "0.1.0",
        "type": "boolean",
        "example": None,
        "default": "True",
    },
    "gallery_paths": {
        "description": "Folders whose saved pictures the pages show, separated by commas: absolute local paths on "
        "the API server, and URLs such as s3://media/covers. Empty: none, and the browser loads a picture from "
        "Pictory until Pictory deletes it.",
        "version_added": "0.1.0",
        "type": "string",
        "example": "/srv/covers, s3://media/covers",
        "default": "",
    },
    "thumbnail_cache": {
        "description": "Folder in which the API server keeps the thumbnails that it makes of saved pictures, "
        "256 MiB at most. No other user may be able to write there. Empty: the folder pictory-thumbnails in "
        "AIRFLOW_HOME.",
        "version_added": "0.2.0",
        "type": "string",
        "example": "/var/cache/airflow/pictory-thumbnails",
        "default": "",
    },
}
"""The configuration options of the section ``[pictory]``."""


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata in the format of Airflow's ``provider_info.schema.json``."""
    name = "Pictory"
    files = {
        "hooks": ["pictory"],
        "operators": ["pictory", "batch"],
        "sensors": ["pictory"],
        "triggers": ["pictory", "batch"],
    }
    modules = {
        kind: [
            {"integration-name": name, "python-modules": [f"pictory_provider.{kind}.{file}" for file in listed]}
        ]
        for kind, listed in files.items()
    }
    return {
        "package-name": "airflow-provider-pictory",
        "name": name,
        "description": "Image generation with Pictory AI Studio, https://pictory.ai",
        "integrations": [
            {"integration-name": name, "external-doc-url": "https://docs.pictory.ai", "tags": ["service"]}
        ],
        **modules,
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": "pictory_provider.hooks.pictory.PictoryHook",
                "hook-name": HOOK_NAME,
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
        "task-decorators": [
            {"name": "pictory_image", "class-name": "pictory_provider.decorators.pictory.pictory_image"}
        ],
        "cli": ["pictory_provider.cli.definitions.get_pictory_cli_commands"],
        "extra-links": [
            "pictory_provider.links.pictory.PictoryJobLink",
            "pictory_provider.links.pictory.PictoryBatchLink",
        ],
        # Airflow ignores this by default and reads the entry point `airflow.plugins`; the name is the same.
        "plugins": [{"name": "pictory", "plugin-class": "pictory_provider.plugins.plugin.PictoryPlugin"}],
        "config": {"pictory": {"description": "Pictures of Pictory in Airflow's pages.", "options": OPTIONS}},
    }
