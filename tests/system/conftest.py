# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A real Airflow with all its components, and a local Pictory, for the whole session."""

from __future__ import annotations

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
import xlsxwriter

from demo.stack import AirflowStack
from pictory_provider.simulator import Simulator, painting

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="session")
def simulator():
    with Simulator(seconds=2, api_key="pictai_canary") as pictory:
        pictory.shape("url", "signed")
        yield pictory


@pytest.fixture(scope="session")
def crowd():
    """Return a separate account, which ``pictory_crowd`` uses, for DAGs of many pictures; generated once."""
    drawn = painting.paint({"prompt": "One of many", "model": "m", "aspectRatio": "1:1"}, (1024, 1024))
    paint, painting.paint = (
        painting.paint,
        lambda body, *more: drawn if is_one_of_many(body) else paint(body, *more),
    )
    with Simulator(seconds=2, api_key="pictai_canary") as pictory:
        yield pictory
    painting.paint = paint


def is_one_of_many(body):
    return body["prompt"].startswith(("A lamp, number", "Picture "))


@pytest.fixture(scope="session")
def limited():
    """Return an account of its own, to which ``pictory_limited`` leads: 20 AI credits a day."""
    with Simulator(seconds=0, api_key="pictai_canary") as pictory:
        yield pictory


@pytest.fixture(scope="session")
def gallery():
    """Return an account with three pictures, to which ``pictory_gallery`` leads."""
    with Simulator(seconds=0, api_key="pictai_canary") as pictory:
        pictory.shape("url", "signed")
        for place in ("harbour", "street", "market"):
            generate(pictory, f"A quiet {place}")
        yield pictory


def generate(pictory, prompt):
    """Generate a picture in the gallery of an account."""
    reply = requests.post(
        f"{pictory.base_url}/v1/aistudio/images",
        headers={"Authorization": pictory.api_key},
        json={"prompt": prompt, "model": "flux-schnell", "aspectRatio": "1:1"},
        timeout=30,
    )
    reply.raise_for_status()


class VisionModel(BaseHTTPRequestHandler):
    """A model with an OpenAI-compatible API, which first names a picture that it was not given."""

    def do_POST(self):
        requests = self.server.requests
        requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answer = {"number": 7} if len(requests) == 1 else {"number": 2, "reason": "The light is warm."}
        reply = {"choices": [{"message": {"role": "assistant", "content": json.dumps(answer)}}]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())


@pytest.fixture(scope="session")
def vision_model():
    server = ThreadingHTTPServer(("127.0.0.1", 0), VisionModel)
    server.requests = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


EXPORT = """\
Handle,Title,Body (HTML),Vendor,Variant SKU,Image Src,Colour (product.metafields.custom.colour)
tea-cup,Tea cup,"<p>Holds 250&nbsp;ml.</p>\n<ul><li>Dishwasher-safe</li></ul>",Example,TC-1,,sea green
tea-cup,,,,TC-2,,
bread-board,Bread board,<p>Oiled oak &amp; steel</p>,Example,BB-1,,oak
"""
"""A shop's export: a product with two variants, HTML, and a metafield."""


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """Return a folder with a shop's tables: an export, a spreadsheet and a database."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "products_export.csv").write_text(EXPORT, encoding="utf-8-sig")
    with xlsxwriter.Workbook(folder / "Artikel.xlsx") as book:
        book.add_worksheet("Notizen").write(0, 0, "Stand 2026")
        sheet = book.add_worksheet("Artikel")
        sheet.write_row(0, 0, ["Art.-Nr.", "Bezeichnung", "model", "Farbe", "Stil"])
        sheet.write_row(1, 0, ["00120", "Müslischale", "T-120", "Blau", "futuristic"])
        sheet.write_row(2, 0, ["00121", "Käsebrett", "K-9", "Eiche", ""])
        sheet.write_row(3, 0, ["00122", "Tasse", "T-7", "", ""])
    with closing(sqlite3.connect(folder / "shop.db")) as database:
        database.execute("CREATE TABLE products (sku TEXT PRIMARY KEY, title TEXT, price DECIMAL, picture TEXT)")
        rows = [
            ("00120", "A salt shaker", 19.9, None),
            ("00121", "A pepper mill", 5, None),
            ("1", "Old", 1, "old.png"),
        ]
        database.executemany("INSERT INTO products VALUES (?, ?, ?, ?)", rows)
        database.commit()
    return folder


@pytest.fixture(scope="session")
def airflow(simulator, crowd, limited, gallery, pictures, shop, vision_model, tmp_path_factory):
    """Return a healthy Airflow that knows the example DAGs, the recipes and those of ``tests/system/dags``.

    Its workers keep Airflow's default heartbeat of 5 s, under which an event that comes too soon after
    deferring is lost.
    """
    dags = tmp_path_factory.mktemp("dags")
    for folder in (ROOT / "dags", ROOT / "dags" / "recipes", ROOT / "tests" / "system" / "dags"):
        for file in folder.glob("*.py"):
            (dags / file.name).symlink_to(file)
    backup = dags / "recipe_back_up_the_gallery.py"
    program = backup.read_text()
    assert "PictoryHook()" in program
    backup.unlink()
    backup.write_text(program.replace("PictoryHook()", "PictoryHook('pictory_gallery')"))
    env = {
        "AIRFLOW_CONN_PICTORY_DEFAULT": simulator.connection_json(),
        "AIRFLOW_CONN_PICTORY_CROWD": crowd.connection_json(),
        "AIRFLOW_CONN_PICTORY_LIMITED": limited.connection_json(credits_per_day=20),
        "AIRFLOW_CONN_PICTORY_GALLERY": gallery.connection_json(),
        "AIRFLOW_CONN_PICTORY_STAGING": crowd.connection_json(),
        "AIRFLOW_CONN_PICTORY_PRODUCTION": simulator.connection_json(),
        "AIRFLOW_CONN_SHOP": json.dumps({"conn_type": "sqlite", "host": f"{shop}/shop.db"}),
        "AIRFLOW_CONN_VISION_MODEL": json.dumps(
            {
                "conn_type": "http",
                "host": f"http://127.0.0.1:{vision_model.server_port}",
                "password": "a key",
                "extra": {"model": "a model"},
            }
        ),
        "AIRFLOW_VAR_PICTORY_SHOP_EXPORT": f"{shop}/products_export.csv",
        "AIRFLOW_VAR_PICTORY_SPREADSHEET": f"{shop}/Artikel.xlsx",
        "AIRFLOW_CONN_PICTORY_SPENT": simulator.connection_json(credits_per_month=1),
        "AIRFLOW_VAR_PICTORY_PICTURES": str(pictures),
        "AIRFLOW_VAR_PICTORY_BACKUP": (pictures / "gallery").as_uri(),
        "AIRFLOW_VAR_PICTORY_REFERENCE_IMAGE": simulator.reference_image_url,
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
        "AIRFLOW__CORE__PARALLELISM": "6",  # a task that has ended holds its slot until the next heartbeat
    }
    with AirflowStack(tmp_path_factory.mktemp("airflow") / "home", dags, env=env) as stack:
        yield stack


@pytest.fixture(scope="session")
def runs(airflow):
    """Return the ids of one run of every DAG, started together: most of their time is spent waiting.

    Those that others wait for come first.
    """
    wanted = {
        "rows of a batch, one of which fails": (
            "recipe_which_rows_failed",
            {"products": ROWS_ONE_OF_WHICH_FAILS},
        ),
        "rows of a batch, all well": ("recipe_which_rows_failed", {"products": ROWS_ALL_WELL}),
        **{recipe: (f"recipe_{recipe}", {}) for recipe in RECIPES},
        "text to image": ("pictory_text_to_image", {"prompt": "A quiet harbour, wide shot", "style": "vintage"}),
        **{
            use: ("pictory_reference_image", {"use": use})
            for use in ("variation", "subject replacement", "style transfer")
        },
        "hand-over": ("pictory_submit_here_wait_there", {}),
        "batch": ("pictory_batch", {"prompts": BATCH}),
        "rows, one of which fails": ("recipe_picture_for_every_row", {"rows": ROWS_ONE_OF_WHICH_FAILS}),
        "production": ("recipe_two_accounts", {"environment": "production"}),
        "spent": ("recipe_monthly_budget", {"connection": "pictory_spent"}),
        "publish": ("pictory_publish_cover", {}),
        "sixty": ("system_batch", {}),
        "race": ("system_race", {}),
        "modes": ("system_modes", {}),
        "outcomes": ("system_outcomes", {}),
        "triggerer": ("system_triggerer", {}),
        "spending": ("system_spending", {}),
    }
    airflow.unpause("pictory_use_cover")
    return {name: (dag_id, airflow.trigger(dag_id, **conf)) for name, (dag_id, conf) in wanted.items()}


@pytest.fixture(scope="session", autouse=True)
def follow_ups(airflow, runs, simulator):
    """Return the results to come of what happens after the first runs. Each has a thread, so none waits for a test."""
    with ThreadPoolExecutor() as threads:
        yield {
            "next runs": threads.submit(start_next_runs, airflow, runs),
            "agreed": threads.submit(agree, airflow, runs, simulator),
            "triggerer": threads.submit(finish_in_the_triggerer, airflow, runs, simulator),
        }


@pytest.fixture(scope="session")
def next_runs(follow_ups):
    """Return the ids of runs that come after those of :func:`runs`."""
    return follow_ups["next runs"].result()


@pytest.fixture(scope="session")
def agreed(follow_ups):
    """Return the question to a user, and what had been bought before they agreed."""
    return follow_ups["agreed"].result()


@pytest.fixture(scope="session")
def triggerer_run(follow_ups):
    """Return the run of sensors that end in the triggerer."""
    return follow_ups["triggerer"].result()


def start_next_runs(airflow, runs):
    """Start runs as soon as those before them have ended, and return their ids."""
    wanted = {"picture_for_every_row": {"rows": NEXT_ROWS}, "catalogue": {}, "a_few_each_night": {}}
    next_runs = {}
    for recipe, conf in wanted.items():
        dag_id, run_id = runs[recipe]
        airflow.finish(dag_id, run_id)
        next_runs[recipe] = dag_id, airflow.trigger(dag_id, **conf)
    return next_runs


def agree(airflow, runs, simulator):
    """Wait until a user is asked, agree, and return the question and what had been bought before.

    Airflow 3.3.2 forgets an answer that comes before its scheduler knows that the worker is done: it takes the task
    that it has queued again for a lost one.
    """
    dag_id, run_id = runs["approve_before_paying"]
    worker_is_done = (
        f"Received executor event with state success for task instance TaskInstanceKey(dag_id='{dag_id}'"
    )
    for _ in airflow.until(240):
        if worker_is_done in (airflow.home / "scheduler.log").read_text(errors="replace"):
            break
    else:
        raise AssertionError("nobody was asked")
    found = airflow.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/hitlDetails")["hitl_details"]
    bought = [r for r in simulator.submissions if r.body["prompt"].startswith("A lighthouse in a storm")]
    answer = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
    airflow.call("PATCH", answer, chosen_options=["Approve"])
    return found[0], bought


def finish_in_the_triggerer(airflow, runs, simulator):
    """End the one job of many sensors when all of them wait for it in the triggerer, and return their run."""
    run = runs["triggerer"]
    for _ in airflow.until(240):
        states = {task["task_id"]: task["state"] for task in airflow.tasks(*run)}
        if all(states.get(task_id) == "deferred" for task_id in (*COMPLETED, "worker_mapped")):
            break
    else:
        raise AssertionError(f"not all of them wait in the triggerer: {states}")
    for job in list(simulator.account.jobs.values()):
        if job.body["prompt"].startswith("One job for the triggerer"):
            job.seconds = 0
    airflow.finish(*run)
    return run


COMPLETED = (
    "end",
    "start",
    "start_template",
    "read_end",
    "read_start",
    "worker_slice",
    "worker_outlet",
    "worker_execution_timeout",
    "worker_multiple",
    "worker_for_mapped",
)
RECIPES = (
    "catalogue",
    "back_up_the_gallery",
    "picture_for_every_row",
    "covers_for_articles",
    "nightly_cover",
    "keep_the_look",
    "variations",
    "approve_before_paying",
    "monthly_budget",
    "from_a_query",
    "shop_export",
    "spreadsheet",
    "two_accounts",
    "a_few_each_night",
    "let_a_model_choose",
)

ROWS_ONE_OF_WHICH_FAILS = [
    {"sku": "cup-01", "product": "a cup that fails simulate:failed"},
    {"sku": "cup-02", "product": "a green cup"},
    {"sku": "cup-03", "product": "a red cup"},
]
ROWS_ALL_WELL = [{"sku": "bowl-01", "product": "a blue bowl"}]
NEXT_ROWS = [{"sku": "mug-02", "product": "a white porcelain mug"}, {"sku": "mug-03", "product": "a tin mug"}]

BATCH = [
    "A red bicycle against a white wall",
    "A bicycle that simulate:failed in the middle",
    "A green bicycle in a park",
    "A blue bicycle on a bridge",
]
