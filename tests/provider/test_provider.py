# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What Airflow reads of the package: provider info, link, exceptions; and the cost of an import."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path
from types import SimpleNamespace

import certifi
import pytest
from airflow.providers.common.compat.sdk import AirflowException

import pictory_provider
from pictory_provider import exceptions
from pictory_provider.api import errors
from pictory_provider.api.models import Job
from pictory_provider.core import events
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.links.pictory import PictoryBatchLink, PictoryJobLink
from pictory_provider.operators.pictory import DownloadImageOperator, GenerateImageOperator
from pictory_provider.provider_info import CONNECTION_FIELDS, get_provider_info
from pictory_provider.sensors.pictory import PictoryJobSensor

ROOT = Path(__file__).resolve().parents[2]


def resolve(path: str):
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def test_the_provider_info_fits_airflows_schema():
    import airflow
    import jsonschema

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_every_name_of_the_provider_info_resolves():
    info = get_provider_info()
    (connection,) = info["connection-types"]
    hook = resolve(connection["hook-class-name"])
    assert hook is PictoryHook
    assert (hook.conn_type, hook.hook_name) == (connection["connection-type"], connection["hook-name"])
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for module in info[kind][0]["python-modules"]:
            import_module(module)
    assert [resolve(link) for link in info["extra-links"]] == [PictoryJobLink, PictoryBatchLink]


def test_the_entry_point_leads_to_the_provider_info():
    (entry,) = [e for e in entry_points(group="apache_airflow_provider") if e.module.startswith("pictory_")]
    assert entry.load() is get_provider_info


def test_the_version_is_the_one_that_is_installed():
    assert version("airflow-provider-pictory") == pictory_provider.__version__


def test_the_form_of_airflow_3_1_has_the_same_fields(monkeypatch):
    made = []

    class StringField:
        def __init__(self, label, description):
            made.append((label, description))

    monkeypatch.setitem(sys.modules, "wtforms", type(sys)("wtforms"))
    sys.modules["wtforms"].StringField = StringField
    assert list(PictoryHook.get_connection_form_widgets()) == list(CONNECTION_FIELDS)
    assert made[0][0] == CONNECTION_FIELDS["timeout"]["label"]
    behaviour = PictoryHook.get_ui_field_behaviour()
    assert set(behaviour) == {"hidden_fields", "relabeling", "placeholders"}
    assert behaviour["relabeling"]["password"] == "API key"


@pytest.mark.parametrize("name", CONNECTION_FIELDS)
def test_every_field_of_the_form_is_read_from_the_extra(name, pictory, monkeypatch):
    values = {
        "timeout": 7.5,
        "user_agent": "mine",
        "proxy": "http://p:1",
        "ca_bundle": certifi.where(),
        "requests_per_second": 2.5,
        "credits_per_day": 50.0,
        "credits_per_month": 600.5,
        "credits_reserve": 0.0,
    }
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", pictory.connection_json(**{name: values[name]}))
    assert getattr(PictoryHook().get_conn().settings, name) == values[name]


def test_every_error_of_the_tree_has_its_class_for_airflow():
    branches = set(errors.KINDS) - {"PictoryError", "JobError"}
    for name in branches:
        error = errors.KINDS[name]("what happened")
        twin = exceptions.as_airflow_error(error)
        assert isinstance(twin, AirflowException), name
        assert isinstance(twin, errors.PictoryError), name
        assert type(twin).__module__ == exceptions.__name__
        assert str(twin).splitlines() == ["what happened", type(twin).retry_note]


def test_an_error_for_airflow_keeps_what_the_error_knew():
    error = errors.RequestInvalid("x", fields=["prompt"], status=400, code="INVALID_REQUEST_BODY")
    twin = exceptions.as_airflow_error(error)
    assert (twin.fields, twin.status, twin.code) == (("prompt",), 400, "INVALID_REQUEST_BODY")
    assert exceptions.as_airflow_error(twin) is twin


def test_errors_survive_pickling():
    error = exceptions.as_airflow_error(errors.JobFailed("x"))
    assert type(pickle.loads(pickle.dumps(error))) is exceptions.PictoryJobFailed


def test_what_each_error_says_of_a_retry_is_what_airflow_does():
    from airflow.providers.common.compat.sdk import AirflowFailException

    kinds = [kind for name, kind in vars(exceptions).items() if name.startswith("Pictory")]
    assert len(kinds) > 10
    for kind in kinds:
        is_failed_at_once = issubclass(kind, AirflowFailException)
        assert is_failed_at_once == kind.retry_note.startswith("Airflow does not retry this task: "), kind
        assert is_failed_at_once != kind.retry_note.startswith("If retries are left, Airflow tries again"), kind


def test_an_error_is_laid_out_in_lines_and_names_its_connection():
    error = errors.AuthenticationError("Pictory refused the API key (401). This request cost nothing.")
    twin = exceptions.as_airflow_error(error, "pictory_covers")
    assert str(twin).splitlines() == [
        "Pictory refused the API key (401).",
        "This request cost nothing.",
        "Airflow does not retry this task: fix the connection first.",
        "The connection is 'pictory_covers'.",
    ]
    assert twin.message == error.message


def test_an_error_shows_no_cause_and_the_log_has_its_urls():
    told = []
    log = SimpleNamespace(warning=lambda text, *more: told.append(text % more), debug=lambda *_, **__: None)

    @exceptions.airflow_errors("c", log=log)
    def fail():
        raise errors.Unavailable("Look at https://app.pictory.ai first.") from OSError("frames that nobody reads")

    with pytest.raises(exceptions.PictoryUnavailable) as caught:
        fail()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert told == ["See https://app.pictory.ai"]


def link_of(task):
    (link,) = task.operator_extra_links
    return link.get_link(task, ti_key=None)


def test_the_link_leads_to_the_picture_of_every_task(pictory, context, tmp_path):
    generate = GenerateImageOperator(task_id="generate", prompt="A lighthouse", wait_for_completion=True)
    job_id = generate.execute(context)
    wait = PictoryJobSensor(task_id="wait", job_id=job_id)
    url = wait.execute(context)["url"]
    save = DownloadImageOperator(task_id="save", job_id=job_id, path=str(tmp_path / "a.png"))
    save.execute(context)
    assert [link_of(task) for task in (generate, wait, save)] == [url, url, url]


def test_while_there_is_no_picture_the_link_leads_to_the_accounts_pictures(pictory, context):
    generate = GenerateImageOperator(task_id="generate", prompt="A lighthouse")
    generate.execute(context)
    assert link_of(generate) == link_of(PictoryJobSensor(task_id="wait", job_id="j")) == "https://app.pictory.ai"


def test_a_resumed_task_has_its_link(pictory, context):
    job = Job(job_id="j", status="completed", url="https://h/a.png")
    event = events.build(events.Ended("j", job, 0.0))
    for task in (
        GenerateImageOperator(task_id="generate", prompt="A lighthouse"),
        PictoryJobSensor(task_id="wait", job_id="j"),
    ):
        task.execute_complete(context, event)
        assert link_of(task) == "https://h/a.png"


IMPORT = """
import sys
import airflow.sdk
from airflow.sdk import BaseOperator, BaseSensorOperator
before = set(sys.modules)
import pictory_provider.operators.pictory, pictory_provider.operators.batch, pictory_provider.sensors.pictory
print(*sorted(set(sys.modules) - before))
"""


def test_what_a_dag_file_imports_is_light_and_brings_no_http_library():
    done = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, check=True)
    brought = done.stdout.strip().splitlines()[-1].split()
    assert "pictory_provider.operators.pictory" in brought
    heavy = {"requests", "urllib3", "aiohttp", "certifi", "PIL", "airflow.triggers.base", "airflow.sdk.lineage"}
    assert heavy.isdisjoint(brought)
    assert "pictory_provider.hooks.pictory" not in brought
    ours = [name for name in brought if name.startswith("pictory_provider")]
    assert not [name for name in ours if "services" in name or "storage" in name]
    assert len(ours) <= 25, "the time it takes is measured by `make bench`"


IMPORT_TRIGGERS = """
import sys
import pictory_provider.client.shared, pictory_provider.triggers.batch, pictory_provider.triggers.pictory
print(*sorted(sys.modules))
"""


def test_triggers_import_nothing_that_makes_copies():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_TRIGGERS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    brought = done.stdout.strip().splitlines()[-1].split()
    assert "pictory_provider.triggers.batch" in brought
    assert {"PIL", "pictory_provider.storage.copies"}.isdisjoint(brought)
