# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The pages in Airflow: what every component loads of them, what they ask tasks for, and their own two answers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest

from pictory_provider.links.pictory import PictoryJobLink
from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.plugins.plugin import PictoryPlugin
from pictory_provider.provider_info import get_provider_info
from pictory_provider.sensors.pictory import PictoryJobSensor

ROOT = Path(__file__).resolve().parents[2]
STATIC = [
    file.name for file in (files("pictory_provider.plugins") / "static").iterdir() if file.name != "page.html"
]
SCRIPTS = [file for file in (files("pictory_provider.plugins") / "static").iterdir() if file.name.endswith(".js")]
SEEN = """
import json, sys, time
import airflow.sdk, airflow.providers.common.compat.sdk
from airflow.providers.common.compat.sdk import AirflowPlugin
before = set(sys.modules)
from pictory_provider.plugins.plugin import PictoryPlugin
print(json.dumps({"brought": sorted(set(sys.modules) - before), "apps": len(PictoryPlugin.fastapi_apps),
                  "views": [view["destination"] for view in PictoryPlugin.external_views]}))
"""


def loaded(**env):
    done = subprocess.run(
        [sys.executable, "-c", SEEN], cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_loading_the_plugin_brings_nothing_of_fastapi_and_no_http_library():
    brought = loaded()["brought"]
    assert "pictory_provider.plugins.plugin" in brought
    heavy = (
        "fastapi",
        "starlette",
        "sqlalchemy",
        "requests",
        "aiohttp",
        "pictory_provider.hooks",
        "airflow.api_fastapi",
    )
    assert [name for name in brought if name.startswith(heavy)] == []
    assert len([name for name in brought if name.startswith("pictory_provider")]) < 10


def test_it_has_a_tab_of_a_dag_of_a_run_and_of_a_task_and_a_page_in_the_navigation():
    assert loaded()["views"] == ["nav", "dag", "dag_run", "task_instance"]


def test_switched_off_there_is_nothing_of_it():
    off = loaded(AIRFLOW__PICTORY__GALLERY="False")
    assert (off["apps"], off["views"]) == (0, [])


def test_airflow_finds_the_plugin_once_whichever_way_it_looks():
    (entry,) = [e for e in entry_points(group="airflow.plugins") if e.module.startswith("pictory_")]
    assert entry.load() is PictoryPlugin
    (told,) = get_provider_info()["plugins"]
    assert told["name"] == PictoryPlugin.name == entry.name
    assert told["plugin-class"] == f"{PictoryPlugin.__module__}.{PictoryPlugin.__qualname__}"


def test_every_address_is_relative_has_its_ids_in_the_path_and_its_own_name():
    views = PictoryPlugin.external_views
    assert len({view["url_route"] for view in views}) == len(views)
    for view in views:
        for address in (view["href"], view["icon"], view["icon_dark_mode"]):
            assert not address.startswith("/")
            assert "?" not in address
            assert "://" not in address


# What tasks leave for the pages


def test_a_picture_can_be_shown_while_it_is_drawn(pictory, context, ti):
    job_id = GenerateImageOperator(task_id="generate", prompt="A lighthouse", aspect_ratio="16:9").execute(context)
    told = ti.xcoms["pictory_request"]
    assert told.pop("submitted_at") > 0
    assert told == {
        "job_id": job_id,
        "prompt": "A lighthouse",
        "model": "seedream3.0",
        "aspectRatio": "16:9",
        "credits": 2,
        "is_waited_for": False,
    }


@pytest.mark.parametrize(
    ("task", "error", "begins"),
    [
        (GenerateImageOperator(task_id="a", prompt="no"), "PictoryRequestInvalid", "prompt"),
        (
            GenerateImageOperator(
                task_id="b",
                prompt="A lighthouse simulate:failed",
                wait_for_completion=True,
                deferrable=False,
                poll_interval=0.1,
            ),
            "PictoryJobFailed",
            "Job ",
        ),
        (PictoryJobSensor(task_id="c", job_id="None"), "PictoryRequestInvalid", "job_id is missing"),
        (DownloadImageOperator(task_id="d", job_id="None", path="/tmp/a.png"), "PictoryRequestInvalid", "job_id"),
    ],
)
def test_a_task_that_fails_leaves_the_reason_behind(pictory, context, ti, task, error, begins):
    with pytest.raises(Exception, match=begins) as caught:
        task.execute(context)
    told = ti.xcoms["pictory_failure"]
    assert told["error"] == error == type(caught.value).__name__
    assert told["message"].startswith(begins)


def test_a_skipped_sensor_says_why_and_a_deferred_one_says_nothing(pictory, context, ti):
    from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred

    sensor = PictoryJobSensor(
        task_id="wait", job_id="11111111-1111-1111-1111-111111111111", timeout=0, soft_fail=True, deferrable=False
    )
    with pytest.raises(AirflowSkipException):
        sensor.execute(context)
    assert ti.xcoms.pop("pictory_failure")["error"] == "AirflowSkipException"
    pictory.account.seconds = 60
    generate = GenerateImageOperator(task_id="generate", prompt="A lighthouse", wait_for_completion=True)
    with pytest.raises(TaskDeferred):
        generate.execute(context)
    assert "pictory_failure" not in ti.xcoms


def test_where_the_reason_cannot_be_told_the_task_fails_with_its_own_error(pictory, context, ti, monkeypatch):
    monkeypatch.setattr(ti, "xcom_push", lambda **_: 1 / 0)
    with pytest.raises(Exception, match="prompt"):
        GenerateImageOperator(task_id="a", prompt="no").execute(context)


# The link


KEY = SimpleNamespace(
    dag_id="covers.v-1", run_id="manual__2026-11-21T04:15:34+00:00", task_id="group.generate", map_index=-1
)


def link(**key):
    operator = SimpleNamespace(image_url=None)
    return PictoryJobLink().get_link(operator, ti_key=SimpleNamespace(**{**vars(KEY), **key}))


def test_before_there_is_a_picture_the_link_leads_to_its_place_in_the_tab():
    place = "dags/covers.v-1/runs/manual__2026-11-21T04%3A15%3A34%2B00%3A00/tasks/group.generate"
    assert link().endswith(f"{place}/plugin/pictory-task")
    assert link(map_index=3).endswith(f"{place}/mapped/3/plugin/pictory-task")


def test_the_link_of_a_batch_leads_to_its_tab():
    batch = GenerateImageBatchOperator(task_id="batch", requests=["A lighthouse"], path="/pictures")
    (leads,) = batch.operator_extra_links
    assert leads.get_link(batch, ti_key=SimpleNamespace(**vars(KEY))) == link()


def test_the_link_follows_a_prefix(monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow/")
    assert link().startswith("https://example.org/airflow/dags/covers.v-1/")


def test_without_the_tab_the_link_leads_to_the_accounts_pictures(monkeypatch):
    monkeypatch.setenv("AIRFLOW__PICTORY__GALLERY", "False")
    assert link() == "https://app.pictory.ai"


# The account's figures


@pytest.fixture
def figures():
    from pictory_provider.plugins.figures import Figures

    return Figures()


def test_the_figures_are_the_accounts_and_hold_nothing_secret(pictory, hook, figures, monkeypatch):
    hook.generate_image(prompt="A lighthouse", model="flux-schnell")
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(credits_per_month=100))
    told = figures.of("pictory_default")
    assert told == {
        "today": 0.6,
        "this_month": 0.6,
        "left": 21_999.4,
        "plan": 22_000,
        "limits": {"day": None, "month": 100, "reserve": None},
    }
    assert pictory.api_key not in json.dumps(told)


def test_they_are_asked_for_once_a_minute(pictory, figures):
    before = len(pictory.requests)
    assert figures.of("pictory_default") == figures.of("pictory_default")
    assert len(pictory.requests) - before == 2


def test_nobody_waits_for_anothers_question(pictory, figures, monkeypatch):
    from pictory_provider.plugins import figures as module

    seen = []
    monkeypatch.setattr(module, "ask", lambda conn_id: seen.append(figures.of(conn_id)) or {"left": 1})
    assert figures.of("pictory_default") == {"left": 1}
    assert seen == [{}]


def test_a_refused_key_is_told_in_a_sentence_without_the_key(pictory, figures, monkeypatch):
    wrong = pictory.connection_json().replace(pictory.api_key, "pictai_wrong")
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", wrong)
    told = figures.of("pictory_default")
    assert told["error"].startswith("Pictory refused the API key (401).")
    assert "pictai_wrong" not in json.dumps(told)


def test_another_kind_of_connection_and_none_at_all_have_no_figures(figures, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_OTHER", '{"conn_type": "http", "host": "http://127.0.0.1:9", "password": "x"}'
    )
    assert figures.of("other") is None
    assert figures.of("nowhere") is None


# The application; who may ask is tried with a real Airflow, in tests/browser


@pytest.fixture
def web(monkeypatch, tmp_path):
    from fastapi.testclient import TestClient

    from pictory_provider.plugins import web

    for route in web.app.routes:
        for dependant in getattr(getattr(route, "dependant", None), "dependencies", ()):
            web.app.dependency_overrides[dependant.call] = lambda: None
    yield SimpleNamespace(
        client=TestClient(web.app),
        module=web,
        allow=lambda: monkeypatch.setenv("AIRFLOW__PICTORY__GALLERY_PATHS", str(tmp_path)),
    )
    web.app.dependency_overrides.clear()


FILE = "/file/covers/run%2B1/group.generate/-1/image/0"
PNG = b"\x89PNG\r\n\x1a\n and the rest of it"


@pytest.fixture
def named(web, monkeypatch, tmp_path):
    """Return the XCom of a saved picture, which the server finds."""
    (tmp_path / "a.png").write_bytes(PNG)
    value = {"path": str(tmp_path / "a.png"), "size": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest()}
    asked = []
    monkeypatch.setattr(web.module, "xcom", lambda *which, **place: asked.append((*which, place)) or value)
    web.asked = asked
    return value


def test_a_saved_picture_is_shown_out_of_an_allowed_folder_alone(web, named):
    assert web.client.get(FILE).status_code == 404
    assert web.asked == []
    web.allow()
    reply = web.client.get(FILE)
    assert (reply.status_code, reply.content, reply.headers["content-type"]) == (200, PNG, "image/png")
    assert web.asked == [("covers", "run+1", "group.generate", "image", {"map_indexes": -1})]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_a_picture_of_a_loop_is_that_of_its_iteration(web, named, monkeypatch):
    web.allow()
    path = FILE.replace("/-1/", "/01a22412-677c-706b-9270-d8e0531eedca/2/")
    monkeypatch.setattr(web.module, "HAS_REGIONS", False)
    assert web.client.get(path).status_code == 404  # Airflow 3.3 and before
    monkeypatch.setattr(web.module, "HAS_REGIONS", True)
    assert web.client.get(path).content == PNG
    region = UUID("01a22412-677c-706b-9270-d8e0531eedca")
    assert web.asked == [("covers", "run+1", "group.generate", "image", {"region_id": region, "map_indexes": 2})]
    for odd in ("no-region/2", "01a22412-677c-706b-9270-d8e0531eedca/two"):
        assert web.client.get(FILE.replace("/-1/", f"/{odd}/")).status_code == 422


def test_a_browser_that_has_it_is_not_sent_it_again(web, named):
    web.allow()
    etag = web.client.get(FILE).headers["etag"]
    assert web.client.get(FILE, headers={"If-None-Match": etag}).status_code == 304
    assert web.client.get(FILE, headers={"If-None-Match": f"W/{etag}"}).status_code == 304
    assert "no-cache" in web.client.get(FILE).headers["cache-control"]  # the place says nothing of what lies there
    named["path"] = "/etc/passwd"
    assert web.client.get(FILE, headers={"If-None-Match": etag}).status_code == 404


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../a.png", "file:///etc/passwd", "http://127.0.0.1/a.png", None, 3]
)
def test_an_edited_xcom_shows_nothing_else_and_does_not_say_why(web, named, path):
    web.allow()
    named["path"] = path
    reply = web.client.get(FILE)
    assert (reply.status_code, reply.json()) == (404, {"detail": "Not found"})


@pytest.mark.parametrize("key", ["pictory_request", "pictures_", "pictures_x", "image_", "..%2Fimage"])
def test_no_other_xcom_is_looked_at(web, named, key):
    web.allow()
    assert web.client.get(FILE.replace("/image/", f"/{key}/")).status_code in (404, 422)
    assert web.asked == []


def test_it_takes_nothing_but_get(web, named):
    web.allow()
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in (FILE, "/newest", "/account/pictory_default", "/static/pictures.js"):
            assert web.client.request(method, path).status_code == 405


def test_the_page_holds_nothing_of_its_address_and_no_script_of_its_own(web):
    reply = web.client.get("/run/%3Cscript%3Ealert(1)%3C%2Fscript%3E/x")
    if reply.status_code == 200:
        assert "alert(1)" not in reply.text
    reply = web.client.get("/task/covers/run/generate/-1")
    scripts = re.findall(r'(?:src|href)="../../../../(static/[^/]+/\w+\.js)"', reply.text)
    assert len(scripts) > 1
    for path in scripts:
        assert web.client.get(path).headers["content-type"] == "text/javascript; charset=utf-8"
    policy = reply.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'self'" in policy
    for name in STATIC:
        assert web.client.get(f"/static/{name}").status_code == 200
    for name in ("page.html", "..%2Fweb.py", "%2e%2e/web.py"):
        assert web.client.get(f"/static/{name}").status_code == 404


def test_the_page_is_light(web):
    assert (
        sum(len(web.client.get(path).content) for path in ("/newest", *(f"/static/{name}" for name in STATIC)))
        < 80_000
    )


def test_the_script_makes_no_markup_of_data():
    script = "".join(file.read_text() for file in SCRIPTS)
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "DOMParser",
    ):
        assert word not in script


@pytest.mark.parametrize(
    "place", ["/-2/image/0", "/99999999999999999999999/image/0", "/-1/image/-1", "/-1/image/9e9"]
)
def test_a_place_that_cannot_be_is_refused(web, named, place):
    web.allow()
    assert web.client.get(FILE.removesuffix("/-1/image/0") + place).status_code in (404, 422)
    assert web.asked == []


def test_a_pictory_that_does_not_answer_holds_a_thread_for_seconds_alone(pictory, figures, timing):
    timing(account_usage=0.1)
    pictory.script("quota", "slow", times=-1, seconds=1)
    told = figures.of("pictory_default")
    assert "got no reply" in told["error"]
    assert len(pictory.requests) == 1
