# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of the pages in Airflow: the plugin, the XComs that tasks write for the pages, and the web application."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote
from uuid import UUID

import pytest
from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend

from pictory_provider.links.pictory import PictoryJobLink
from pictory_provider.operators.batch import GenerateImageBatchOperator
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.plugins import saved_files
from pictory_provider.plugins.plugin import PictoryPlugin
from pictory_provider.provider_info import get_provider_info
from pictory_provider.sensors.pictory import PictoryJobSensor
from tests.provider.backends import stores_elsewhere

ROOT = Path(__file__).resolve().parents[3]
STATIC = [
    file.name for file in (files("pictory_provider.plugins") / "static").iterdir() if file.name != "page.html"
]
SCRIPTS = [file for file in (files("pictory_provider.plugins") / "static").iterdir() if file.name.endswith(".js")]
PROGRAM = """
import json, sys, time
import airflow.sdk, airflow.providers.common.compat.sdk
from airflow.providers.common.compat.sdk import AirflowPlugin
before = set(sys.modules)
from pictory_provider.plugins.plugin import PictoryPlugin
print(json.dumps({"imported": sorted(set(sys.modules) - before), "apps": len(PictoryPlugin.fastapi_apps),
                  "views": [view["destination"] for view in PictoryPlugin.external_views]}))
"""


def loaded(**env):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_loading_the_plugin_imports_neither_fastapi_nor_an_http_library():
    imported = loaded()["imported"]
    assert "pictory_provider.plugins.plugin" in imported
    heavy = (
        "fastapi",
        "starlette",
        "sqlalchemy",
        "requests",
        "aiohttp",
        "pictory_provider.hooks",
        "airflow.api_fastapi",
    )
    assert [name for name in imported if name.startswith(heavy)] == []
    assert len([name for name in imported if name.startswith("pictory_provider")]) < 10


def test_dags_runs_and_tasks_have_a_tab_and_the_navigation_has_a_page():
    assert loaded()["views"] == ["nav", "dag", "dag_run", "task_instance"]


def test_a_plugin_that_is_switched_off_has_no_app_and_no_view():
    off = loaded(AIRFLOW__PICTORY__GALLERY="False")
    assert (off["apps"], off["views"]) == (0, [])


def test_airflow_finds_the_plugin_by_its_entry_point_and_by_the_provider_info():
    (entry,) = [e for e in entry_points(group="airflow.plugins") if e.module.startswith("pictory_")]
    assert entry.load() is PictoryPlugin
    (info,) = get_provider_info()["plugins"]
    assert info["name"] == PictoryPlugin.name == entry.name
    assert info["plugin-class"] == f"{PictoryPlugin.__module__}.{PictoryPlugin.__qualname__}"


def test_every_address_is_relative_has_its_ids_in_the_path_and_its_own_name():
    views = PictoryPlugin.external_views
    assert len({view["url_route"] for view in views}) == len(views)
    for view in views:
        for address in (view["href"], view["icon"], view["icon_dark_mode"]):
            assert not address.startswith("/")
            assert "?" not in address
            assert "://" not in address


# XComs that tasks write for the pages


def test_a_task_publishes_its_request_before_the_picture_exists(pictory, context, ti):
    job_id = GenerateImageOperator(task_id="generate", prompt="A lighthouse", aspect_ratio="16:9").execute(context)
    request = ti.xcoms["pictory_request"]
    assert request.pop("submitted_at") > 0
    assert request == {
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
def test_a_task_that_fails_publishes_the_reason(pictory, context, ti, task, error, begins):
    with pytest.raises(Exception, match=begins) as caught:
        task.execute(context)
    failure = ti.xcoms["pictory_failure"]
    assert failure["error"] == error == type(caught.value).__name__
    assert failure["message"].startswith(begins)


def test_a_skipped_sensor_publishes_the_reason_and_a_deferred_task_publishes_none(pictory, context, ti):
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


def test_a_task_whose_reason_cannot_be_published_fails_with_its_own_error(pictory, context, ti, monkeypatch):
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


def test_before_there_is_a_picture_the_link_leads_to_the_page_of_the_task():
    path = "pictory/open/covers.v-1/manual__2026-11-21T04%3A15%3A34%2B00%3A00/group.generate"
    assert link().endswith(f"{path}/-1")
    assert link(map_index=None).endswith(f"{path}/-1")
    assert link(map_index=3).endswith(f"{path}/3")


def test_the_link_of_a_batch_leads_to_the_page_of_the_task():
    batch = GenerateImageBatchOperator(task_id="batch", requests=["A lighthouse"], path="/pictures")
    (extra_link,) = batch.operator_extra_links
    assert extra_link.get_link(batch, ti_key=SimpleNamespace(**vars(KEY))) == link()


def test_the_link_has_the_prefix_of_airflows_base_url(monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow/")
    assert link().startswith("https://example.org/airflow/pictory/open/covers.v-1/")


def test_without_the_pages_the_link_leads_to_the_accounts_pictures(monkeypatch):
    monkeypatch.setenv("AIRFLOW__PICTORY__GALLERY", "False")
    assert link() == "https://app.pictory.ai"


# The account's usage


@pytest.fixture
def usage():
    from pictory_provider.plugins.account_usage import UsageCache

    return UsageCache()


def test_the_usage_is_the_accounts_and_has_no_secret(pictory, hook, usage, monkeypatch):
    hook.generate_image(prompt="A lighthouse", model="flux-schnell")
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(credits_per_month=100))
    answer = usage.get("pictory_default")
    assert answer == {
        "today": 0.6,
        "this_month": 0.6,
        "left": 21_999.4,
        "plan": 22_000,
        "limits": {"day": None, "month": 100, "reserve": None},
    }
    assert pictory.api_key not in json.dumps(answer)


def test_the_usage_is_requested_once_a_minute(pictory, usage):
    before = len(pictory.requests)
    assert usage.get("pictory_default") == usage.get("pictory_default")
    asked = [(request.path, *request.query.items()) for request in pictory.requests[before:]]
    assert {"/v1/quota", "/v1/aicredits/usage"} == {path for path, *_ in asked}
    assert len(asked) == len(set(asked)), "on the first of a month, the ledger of the month before is read too"


def test_no_thread_waits_for_the_request_of_another(pictory, usage, monkeypatch):
    from pictory_provider.plugins import account_usage as module

    seen = []
    monkeypatch.setattr(module, "fetch_usage", lambda conn_id: seen.append(usage.get(conn_id)) or {"left": 1})
    assert usage.get("pictory_default") == {"left": 1}
    assert seen == [{}]


def test_a_refused_key_is_reported_in_a_sentence_without_the_key(pictory, usage, monkeypatch):
    wrong = pictory.connection_json().replace(pictory.api_key, "pictai_wrong")
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", wrong)
    answer = usage.get("pictory_default")
    assert answer["error"].startswith("Pictory refused the API key (401).")
    assert "pictai_wrong" not in json.dumps(answer)


def test_a_connection_of_another_type_and_an_unknown_connection_have_no_usage(usage, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_OTHER", '{"conn_type": "http", "host": "http://127.0.0.1:9", "password": "x"}'
    )
    assert usage.get("other") is None
    assert usage.get("nowhere") is None


# The web application; tests/browser checks permissions with a real Airflow


PNG = b"\x89PNG\r\n\x1a\n and the rest of it"
SHA256 = hashlib.sha256(PNG).hexdigest()
IMAGE = {"dag_id": "covers", "run_id": "run+1", "task_id": "group.generate", "key": "image"}
FILE = f"/file/covers/run%2B1/group.generate/-1/image/{SHA256}"
THUMBNAIL = FILE.replace("/file/", "/thumbnail/")


@pytest.fixture
def named(web, monkeypatch, tmp_path):
    """Return the XCom of a saved picture that the server can read."""
    (tmp_path / "a.png").write_bytes(PNG)
    value = {"path": str(tmp_path / "a.png"), "size": len(PNG), "sha256": SHA256}
    web.reads = []
    monkeypatch.setattr(web.module.xcoms, "read_xcom", lambda **which: web.reads.append(which) or value)
    return value


def test_a_saved_picture_is_shown_only_if_its_folder_is_allowed(web, named):
    assert web.client.get(FILE).status_code == 404
    assert web.reads == []
    web.allow()
    reply = web.client.get(FILE)
    assert (reply.status_code, reply.content, reply.headers["content-type"]) == (200, PNG, "image/png")
    assert web.reads == [IMAGE | {"map_indexes": -1}]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_a_picture_of_a_loop_belongs_to_its_iteration(web, named, monkeypatch):
    web.allow()
    path = FILE.replace("/-1/", "/01a22412-677c-706b-9270-d8e0531eedca/2/")
    monkeypatch.setattr(web.module.xcoms, "HAS_REGIONS", False)
    assert web.client.get(path).status_code == 404  # Airflow 3.3 and before
    monkeypatch.setattr(web.module.xcoms, "HAS_REGIONS", True)
    assert web.client.get(path).content == PNG
    assert web.client.get(path.replace("/file/", "/thumbnail/")).content == PNG  # it cannot be decoded
    region = UUID("01a22412-677c-706b-9270-d8e0531eedca")
    assert web.reads == 2 * [IMAGE | {"region_id": region, "map_indexes": 2}]
    for odd in ("no-region/2", "01a22412-677c-706b-9270-d8e0531eedca/two"):
        assert web.client.get(FILE.replace("/-1/", f"/{odd}/")).status_code == 422


def test_each_xcom_that_the_pages_read_can_be_read_through_a_backend(web, monkeypatch):
    scripts = "".join(script.read_text() for script in SCRIPTS)
    keys = {found[1].replace("${page}", "0") for found in re.findall(r"xcom\([\w.]+, ([\"`])(.+?)\1\)", scripts)}
    assert {"progress", "plan", "failures_0", "pictory_request"} <= keys
    monkeypatch.setattr(web.module.xcoms, "is_default_backend", lambda: False)
    monkeypatch.setattr(web.module.xcoms, "read_xcom", lambda **which: {"key": which["key"]})
    for key in keys | {"image", "return_value"}:
        assert web.client.get(f"/xcom/covers/run%2B1/group.generate/-1/{key}").json() == {"value": {"key": key}}


def test_a_cached_picture_is_not_sent_again(web, named):
    web.allow()
    etag = web.client.get(FILE).headers["etag"]
    assert web.client.get(FILE, headers={"If-None-Match": etag}).status_code == 304
    assert web.client.get(FILE, headers={"If-None-Match": f"W/{etag}"}).status_code == 304
    assert "no-cache" in web.client.get(FILE).headers["cache-control"]  # permissions are checked each time
    named["path"] = "/etc/passwd"
    assert web.client.get(FILE, headers={"If-None-Match": etag}).status_code == 404


def test_a_picture_is_requested_by_its_digest_so_that_no_other_is_shown(web, named, tmp_path, monkeypatch):
    """A running batch moves its records: an image requested by its position could be another row's picture."""
    web.allow()
    other = PNG + b", of another row"
    (tmp_path / "b.png").write_bytes(other)
    added = {
        "path": str(tmp_path / "b.png"),
        "size": len(other),
        "sha256": hashlib.sha256(other).hexdigest(),
    }
    monkeypatch.setattr(web.module.xcoms, "read_xcom", lambda *_, **__: [added, "odd", {}, named])
    path = FILE.replace("/image/", "/pictures_0/")
    assert web.client.get(path).content == PNG
    assert web.client.get(path.replace(SHA256, added["sha256"])).content == other
    monkeypatch.setattr(web.module.xcoms, "read_xcom", lambda *_, **__: [added])
    assert web.client.get(path).status_code == 404


def test_a_client_that_disconnects_leaves_no_file_open(web, named, served, until, tmp_path, monkeypatch):
    web.allow()
    large = PNG + bytes(30_000_000)
    (tmp_path / "a.png").write_bytes(large)
    named |= {"size": len(large), "sha256": hashlib.sha256(large).hexdigest()}
    opened, open_picture = [], saved_files.open_picture
    monkeypatch.setattr(
        saved_files, "open_picture", lambda *which, **how: opened.append(open_picture(*which, **how)) or opened[-1]
    )
    gc.disable()
    try:
        for _ in range(5):
            with socket.create_connection(served) as reader:
                reader.sendall(f"GET {FILE.replace(SHA256, named['sha256'])} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert reader.recv(12) == b"HTTP/1.1 200"
        until(lambda: len(opened) == 5 and all(content.closed for content, _ in opened))
    finally:
        gc.enable()


@pytest.mark.parametrize("address", [FILE, THUMBNAIL])
@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../a.png", "file:///etc/passwd", "http://127.0.0.1/a.png", None, 3]
)
def test_an_edited_xcom_shows_no_other_file_and_no_reason(web, named, path, address):
    web.allow()
    named["path"] = path
    reply = web.client.get(address)
    assert (reply.status_code, reply.json()) == (404, {"detail": "Not found"})


@pytest.mark.parametrize("address", [FILE, THUMBNAIL])
@pytest.mark.parametrize("key", ["pictory_request", "pictures_", "pictures_x", "image_", "..%2Fimage"])
def test_no_other_xcom_is_accepted_as_a_picture(web, named, key, address):
    web.allow()
    assert web.client.get(address.replace("/image/", f"/{key}/")).status_code in (404, 422)
    assert web.reads == []


# XComs that an XCom backend stores outside Airflow's database


TASK = {"dag_id": "covers", "run_id": "run+1:a?", "task_id": "group.generate"}
RECORD = {"job_id": "j", "status": "completed", "url": None, "width": 1, "height": 1, "ai_credits_used": 0.6}
XCOMS = {
    "image": RECORD | {"prompt": "A lighthouse " * 20},
    "return_value": RECORD,
    "pictures_0": [RECORD] * 50,
    "failures_0": [{"job_id": None, "status": "failed", "file_name": "a.png", "message": "It was not generated."}],
    "progress": {"of": 70, "saved": 70, "ai_credits_used": 42.0},
    "pictory_request": {"job_id": "j", "is_waited_for": True, "prompt": "A lighthouse"},
    "pictory_failure": {"error": "PictoryRequestInvalid", "message": "prompt is missing"},
    "pictory_pages": {"pictures": [50, 20], "failures": 0},
}


@pytest.fixture
def stored(web, mocker, tmp_path, monkeypatch):
    """Return a function that stores XComs in object storage; ``rows`` is what Airflow's database has then."""
    rows = {}
    monkeypatch.setattr(web.module.xcoms, "stored", lambda *_, **__: rows.get(_[3]))

    def store(threshold, **values):
        base = stores_elsewhere(mocker, tmp_path, threshold=threshold)
        for key, value in values.items():
            rows[key] = XComObjectStorageBackend.serialize_value(value, key=key, map_index=-1, **TASK)
        return base

    store.rows = rows
    return store


def get(web, key, instance="-1"):
    ids = "/".join(quote(part, safe="") for part in TASK.values())
    reply = web.client.get(f"/xcom/{ids}/{instance}/{key}")
    return reply.status_code, reply.json().get("value")


@pytest.mark.parametrize(("threshold", "elsewhere"), [(0, 8), (100, 3), (1024 * 1024, 0), (-1, 0)])
def test_a_value_that_a_backend_stores_elsewhere_is_returned_as_it_was_pushed(web, stored, threshold, elsewhere):
    base = stored(threshold, **XCOMS)
    assert sum(str(row).startswith(base) for row in stored.rows.values()) == elsewhere
    assert {key: get(web, key) for key in XCOMS} == {key: (200, value) for key, value in XCOMS.items()}
    assert '"has_backend": true' in web.client.get("/newest").text


def test_an_xcom_that_does_not_exist_is_a_404(web, stored):
    stored(0)
    assert get(web, "image") == (404, None)


def test_a_value_that_is_gone_is_a_410_and_never_an_empty_result(web, stored, tmp_path):
    stored(0, **XCOMS)
    shutil.rmtree(tmp_path / "xcoms")
    assert {get(web, key) for key in XCOMS} == {(410, None)}


def test_a_backend_that_fails_temporarily_is_a_503(web, stored, mocker):
    stored(0, **XCOMS)
    away = mocker.patch.object(XComObjectStorageBackend, "_get_full_path", side_effect=OSError("timed out"))
    assert get(web, "progress") == (503, None)
    mocker.stop(away)
    assert get(web, "progress") == (200, XCOMS["progress"])


def test_a_backend_that_is_not_installed_is_a_503_and_the_page_still_loads(web, stored, monkeypatch):
    stored(0, **XCOMS)
    monkeypatch.setattr(web.module.xcoms, "_backend", lambda: 1 / 0)
    assert get(web, "progress") == (503, None)
    assert '"has_backend": true' in web.client.get("/newest").text


@pytest.mark.parametrize(
    "row",
    [
        "{base}/covers/run+1:a?/group.generate/../../../others/run/task/theirs",
        "{base}/others/run/task/theirs",
        "{base}/../theirs",
        "/etc/passwd",
        {"__classname__": "airflow.sdk.definitions.asset.Asset", "__version__": 1, "__data__": {"uri": "s3://x"}},
        ["a", "list"],
        17,
    ],
)
def test_an_edited_xcom_leads_to_no_other_value_and_creates_no_object(web, stored, tmp_path, row):
    base = stored(0)
    for place in (tmp_path / "xcoms" / "others" / "run" / "task", tmp_path):
        place.mkdir(parents=True, exist_ok=True)
        (place / "theirs").write_text(json.dumps(RECORD))
    stored.rows["image"] = row.format(base=base) if isinstance(row, str) else row
    assert get(web, "image") == (410, None)


def test_a_value_of_another_shape_is_never_returned(web, stored):
    stored(0, return_value={"password": "secret"}, progress={"of": 3}, pictures_0=[RECORD, {"password": "secret"}])
    assert {get(web, key) for key in stored.rows} == {(410, None)}


def test_no_other_xcom_is_read(web, stored):
    stored(0, **XCOMS)
    for key in ("jobs", "pictures_", "pictures_0x", "image_", "Image", "pictory_requests", "..%2Fimage"):
        assert get(web, key)[0] in (404, 422)
    assert get(web, "image", "-2")[0] == 422
    assert web.client.get("/xcom/~/run/task/-1/image").status_code == 404


def test_with_airflows_own_backend_the_pages_use_airflows_api(web, stored):
    stored.rows["image"] = RECORD
    assert get(web, "image") == (404, None)
    assert '"has_backend": false' in web.client.get("/newest").text


def test_a_value_of_a_loop_belongs_to_its_iteration(web, stored, monkeypatch):
    stored(0, **XCOMS)
    iteration = "01a22412-677c-706b-9270-d8e0531eedca/2"
    monkeypatch.setattr(web.module.xcoms, "HAS_REGIONS", False)
    assert get(web, "image", iteration)[0] == 404  # Airflow 3.3 and before
    monkeypatch.setattr(web.module.xcoms, "HAS_REGIONS", True)
    assert get(web, "image", iteration) == (200, XCOMS["image"])


def test_a_saved_picture_whose_record_is_in_a_backend_is_shown(web, stored, tmp_path):
    web.allow()
    (tmp_path / "a.png").write_bytes(PNG)
    stored(0, image=RECORD | {"path": str(tmp_path / "a.png"), "size": len(PNG), "sha256": SHA256})
    ids = "/".join(quote(part, safe="") for part in TASK.values())
    assert web.client.get(f"/file/{ids}/-1/image/{SHA256}").content == PNG


def test_a_storage_that_hangs_blocks_only_a_few_threads(web, stored, monkeypatch):
    stored(0, **XCOMS)
    at_once, most = [], []

    def hangs(*_, **__):
        at_once.append(1)
        most.append(len(at_once))
        time.sleep(0.01)
        at_once.pop()
        return XCOMS["image"]

    monkeypatch.setattr(web.module.xcoms, "read_xcom", hangs)
    with web.client as client, ThreadPoolExecutor(30) as many:
        ids = "/".join(quote(part, safe="") for part in TASK.values())
        codes = list(many.map(lambda _: client.get(f"/xcom/{ids}/-1/image").status_code, range(90)))
    assert set(codes) == {200}
    assert max(most) <= web.module.READERS


def test_only_get_is_allowed(web, named):
    web.allow()
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in (FILE, THUMBNAIL, "/newest", "/account/pictory_default", "/static/pictures.js"):
            assert web.client.request(method, path).status_code == 405


def test_the_page_repeats_nothing_of_its_url_and_has_no_inline_script(web):
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


@pytest.mark.parametrize("map_index", [-1, 3])
@pytest.mark.parametrize("has_tabs", [True, False])
def test_a_link_leads_to_the_tab_or_to_the_page_if_airflow_shows_no_tabs(web, monkeypatch, has_tabs, map_index):
    monkeypatch.setattr(
        web.module, "get_auth_manager", lambda: SimpleNamespace(is_authorized_view=lambda **_: has_tabs)
    )
    reply = web.client.get(f"/open/covers.v-1/a%3A1%2B1/group.generate/{map_index}", follow_redirects=False)
    mapped = "" if map_index < 0 else f"/mapped/{map_index}"
    target = (
        f"../dags/covers.v-1/runs/a%3A1%2B1/tasks/group.generate{mapped}/plugin/pictory-task"
        if has_tabs
        else f"task/covers.v-1/a%3A1%2B1/group.generate/{map_index}"
    )
    assert (reply.status_code, reply.headers["location"]) == (307, f"../../../../{target}")


def refuse(web, status, detail):
    from fastapi import HTTPException

    def refuse_request():
        raise HTTPException(status, detail)

    for dependency in web.module.app.dependency_overrides:
        web.module.app.dependency_overrides[dependency] = refuse_request


BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}


@pytest.mark.parametrize(("status", "detail"), [(401, "Token Expired"), (403, "Invalid JWT token")])
@pytest.mark.parametrize("path", ["/newest", "/run/covers/run%2B1", FILE, THUMBNAIL, "/account/pictory_default"])
def test_a_refused_browser_gets_a_page_that_airflow_may_frame_and_a_script_gets_json(web, status, detail, path):
    refuse(web, status, detail)
    reply = web.client.get(path, headers=BROWSER)
    assert (reply.status_code, reply.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert "frame-ancestors 'self'" in reply.headers["content-security-policy"]
    assert reply.headers["cache-control"] == "no-store"
    config = json.loads(re.search(r'id="config">(.*?)</script>', reply.text)[1])
    assert config == {"kinds": {}, "refused": {"status": status, "detail": detail}}
    for accept in ("application/json", "*/*", "image/avif,image/webp,*/*;q=0.8"):
        reply = web.client.get(path, headers={"Accept": accept})
        assert (reply.status_code, reply.json()) == (status, {"detail": detail})
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/nowhere", "/no/where/at%2Fall", "/", FILE.replace("/-1/", "/-9/"), FILE])
def test_a_browser_gets_a_page_for_an_unknown_path(web, path):
    reply = web.client.get(path, headers=BROWSER)
    assert (reply.status_code, reply.headers["content-type"]) == (404, "text/html; charset=utf-8")
    (script,) = re.findall(r'<script type="module" src="([^"]+)"', reply.text)
    address = reply.url.join(script)
    assert web.client.get(str(address)).status_code == 200


def test_the_page_and_its_files_are_smaller_than_84_kb(web):
    assert (
        sum(len(web.client.get(path).content) for path in ("/newest", *(f"/static/{name}" for name in STATIC)))
        < 84_000
    )


def test_the_scripts_never_turn_data_into_markup():
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
    "path",
    [
        f"/-2/image/{SHA256}",
        f"/99999999999999999999999/image/{SHA256}",
        "/-1/image/0",
        f"/-1/image/{SHA256.upper()}",
        f"/-1/image/{SHA256}0",
    ],
)
def test_an_invalid_path_parameter_is_refused(web, named, path):
    web.allow()
    for address in (FILE, THUMBNAIL):
        assert web.client.get(address.removesuffix(f"/-1/image/{SHA256}") + path).status_code in (404, 422)
    assert web.reads == []


def test_a_pictory_that_does_not_answer_blocks_a_thread_only_for_seconds(pictory, usage, timing):
    timing(account_usage=0.1)
    pictory.script("quota", "slow", times=-1, seconds=1)
    assert "got no reply" in usage.get("pictory_default")["error"]
    assert len(pictory.requests) == 1
