# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The web application of the pages, without Airflow's checks of permissions."""

from __future__ import annotations

import asyncio
import time
from threading import Thread
from types import SimpleNamespace

import pytest


@pytest.fixture
def web(monkeypatch, tmp_path):
    from fastapi.testclient import TestClient

    from pictory_provider.plugins import web

    for route in web.app.routes:
        for dependant in getattr(getattr(route, "dependant", None), "dependencies", ()):
            if dependant.call.__module__ != web.__name__:
                web.app.dependency_overrides[dependant.call] = lambda: None
    monkeypatch.setattr(web, "maker", web.thumbnails.ThumbnailMaker())
    monkeypatch.setattr(web, "readers", asyncio.Semaphore(web.READERS))  # it belongs to one event loop
    monkeypatch.setenv("AIRFLOW__PICTORY__THUMBNAIL_CACHE", str(tmp_path.with_name(f"{tmp_path.name}-cache")))
    web.saved_files.verified.clear()
    web.thumbnails.is_pillow_installed.cache_clear()
    yield SimpleNamespace(
        client=TestClient(web.app),
        module=web,
        allow=lambda: monkeypatch.setenv("AIRFLOW__PICTORY__GALLERY_PATHS", str(tmp_path)),
    )
    web.app.dependency_overrides.clear()
    web.thumbnails.is_pillow_installed.cache_clear()


@pytest.fixture
def until():
    """Return a function that waits until a condition is true, for half a minute at most."""

    def wait(is_true):
        ends = time.monotonic() + 30
        while not is_true():
            assert time.monotonic() < ends
            time.sleep(0.01)

    return wait


@pytest.fixture
def served(web, until):
    """Return the address of a server that runs the application."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(web.module.app, host="127.0.0.1", port=0, log_level="error"))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join()
