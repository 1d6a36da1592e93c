# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Every recipe of the docs, followed to its end in a real Airflow."""

from __future__ import annotations

import base64
import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from PIL import Image

from tests.system.conftest import generate


def saved(pictures, folder: str) -> dict[str, tuple[int, int]]:
    """Return the sizes of the pictures in a folder, by name."""
    return {path.name: size_of(path) for path in (pictures / folder).glob("*.png")}


def size_of(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_every_row_has_its_picture_under_its_own_name(airflow, runs, pictures):
    assert set(airflow.finish(*runs["picture_for_every_row"]).values()) == {"success"}
    mugs = {name: size for name, size in saved(pictures, "rows").items() if name in ("mug-01.png", "mug-02.png")}
    assert mugs == {"mug-01.png": (1024, 1024), "mug-02.png": (1024, 1024)}


def test_a_row_that_fails_takes_no_other_along(airflow, runs, pictures):
    run = runs["rows, one of which fails"]
    states = airflow.finish(*run)
    assert airflow.run_state(*run) == "failed"
    assert [states[f"picture[{index}]"] for index in range(3)] == ["failed", "success", "success"]
    assert {name for name in saved(pictures, "rows") if name.startswith("cup")} == {"cup-02.png", "cup-03.png"}
    failed = next(t for t in airflow.tasks(*run) if t["state"] == "failed")
    assert failed["rendered_map_index"] == "cup-01"
    assert "IMAGE_GENERATION_FAILED" in airflow.task_log(*run, "picture", map_index=0)


def test_the_failed_rows_of_a_batch_are_sent_and_the_run_stays_red(airflow, runs, pictures):
    run = runs["rows of a batch, one of which fails"]
    assert airflow.finish(*run) == {"pictures": "failed", "open_a_ticket": "success", "publish": "upstream_failed"}
    assert airflow.run_state(*run) == "failed"
    (details,) = airflow.xcom(*run, "open_a_ticket")
    assert details.startswith("cup-01.png: failed, ")
    assert "No picture: cup-01.png: failed, " in airflow.task_log(*run, "pictures")
    assert {name for name in saved(pictures, "reported") if name.startswith("cup")} == {"cup-02.png", "cup-03.png"}


def test_if_every_row_has_its_picture_no_message_is_sent_and_the_run_is_green(airflow, runs):
    run = runs["rows of a batch, all well"]
    assert airflow.finish(*run) == {"pictures": "success", "open_a_ticket": "skipped", "publish": "success"}
    assert airflow.run_state(*run) == "success"


def test_a_row_whose_picture_is_there_costs_nothing_in_the_next_run(airflow, runs, next_runs, simulator):
    dag_id, run_id = runs["picture_for_every_row"]
    next_run = next_runs["picture_for_every_row"]
    assert set(airflow.finish(*next_run).values()) == {"success"}
    images = [airflow.xcom(*next_run, "picture", "image", map_index=index) for index in range(2)]
    assert [image["reused"] for image in images] == [True, False]
    assert images[0]["job_id"] == airflow.xcom(dag_id, run_id, "picture", map_index=1)
    asked = [r.body["prompt"] for r in simulator.submissions]
    assert asked.count("a white porcelain mug on a wooden table, studio light") == 1


def test_a_catalogue_has_its_pictures_and_a_manifest_and_the_next_run_buys_nothing(
    airflow, runs, next_runs, pictures, simulator
):
    assert set(airflow.finish(*runs["catalogue"]).values()) == {"success"}
    assert saved(pictures, "catalogue") == {f"0012{number}.png": (1024, 1024) for number in range(3)}
    rows = [json.loads(line) for line in (pictures / "catalogue" / "metadata.jsonl").read_text().splitlines()]
    assert [(row["file_name"], row["sku"], row["colour"]) for row in rows] == [
        ("00120.png", "00120", "blue"),
        ("00121.png", "00121", "white"),
        ("00122.png", "00122", "grey"),
    ]
    again = next_runs["catalogue"]
    assert set(airflow.finish(*again).values()) == {"success"}
    assert airflow.xcom(*again, "pictures")["reused"] == 3
    asked = [r.body["prompt"] for r in simulator.submissions]
    assert asked.count("an enamel mug in blue, on a wooden table, studio light") == 1


def test_a_long_table_is_worked_off_with_a_limit_for_each_run(airflow, runs, next_runs, pictures):
    assert set(airflow.finish(*runs["a_few_each_night"]).values()) == {"success"}
    assert airflow.xcom(*runs["a_few_each_night"], "report") == "5 of 8 have a picture, 3 are left"
    assert set(airflow.finish(*next_runs["a_few_each_night"]).values()) == {"success"}
    assert airflow.xcom(*next_runs["a_few_each_night"], "report") == "8 of 8 have a picture, 0 are left"
    assert len(saved(pictures, "a_few_each_night")) == 8


def test_every_article_has_a_cover_of_the_prompt_that_a_function_wrote(airflow, runs, pictures, simulator):
    assert set(airflow.finish(*runs["covers_for_articles"]).values()) == {"success"}
    assert saved(pictures, "articles") == {"tea.png": (720, 1280), "rain.png": (720, 1280)}
    prompts = {request.body["prompt"] for request in simulator.submissions}
    assert "A magazine cover about what to do when it rains, paper cut, two colours" in prompts


def test_the_cover_is_saved_under_its_date_and_as_todays(airflow, runs, pictures):
    assert set(airflow.finish(*runs["nightly_cover"]).values()) == {"success"}
    dated = airflow.xcom(*runs["nightly_cover"], "cover", "image")
    today = airflow.xcom(*runs["nightly_cover"], "today")
    assert {Path(dated["path"]).name, "today.png"} <= set(saved(pictures, "covers"))
    assert today["path"].endswith("/covers/today.png")
    assert today["path"] != dated["path"]
    assert today["sha256"] == dated["sha256"]


def test_a_series_is_guided_by_one_reference_image(airflow, runs, pictures, simulator):
    assert set(airflow.finish(*runs["keep_the_look"]).values()) == {"success"}
    assert set(saved(pictures, "series")) == {"harbour.png", "street.png", "market.png"}
    asked = [r.body for r in simulator.submissions if "in the style of the provided image" in r.body["prompt"]]
    assert [body["referenceImageUrl"] for body in asked] == [simulator.reference_image_url] * 3


def test_a_product_is_shown_in_other_places(airflow, runs, pictures):
    assert set(airflow.finish(*runs["variations"]).values()) == {"success"}
    assert set(saved(pictures, "variations")) == {"kitchen.png", "garden.png", "studio.png"}


def test_the_rows_of_a_query_have_pictures_whose_paths_are_in_the_table(airflow, runs, pictures, shop):
    assert set(airflow.finish(*runs["from_a_query"]).values()) == {"success"}
    assert set(saved(pictures, "query")) == {"00120.png", "00121.png"}
    with closing(sqlite3.connect(shop / "shop.db")) as database:
        paths = dict(database.execute("SELECT sku, picture FROM products"))
    assert paths.pop("1") == "old.png"
    assert {sku: Path(path).relative_to(pictures) for sku, path in paths.items()} == {
        "00120": Path("query/00120.png"),
        "00121": Path("query/00121.png"),
    }
    rows = [json.loads(line) for line in (pictures / "query" / "metadata.jsonl").read_text().splitlines()]
    assert [(row["sku"], row["price"]) for row in rows] == [("00120", 19.9), ("00121", 5)]


def test_every_product_of_a_shops_export_has_one_picture_and_a_line_in_the_import(
    airflow, runs, pictures, simulator
):
    assert set(airflow.finish(*runs["shop_export"]).values()) == {"success"}
    assert set(saved(pictures, "shop")) == {"tea-cup.png", "bread-board.png"}
    assert airflow.xcom(*runs["shop_export"], "pictures")["skipped"] == 1
    prompts = {request.body["prompt"] for request in simulator.submissions}
    assert {
        "Tea cup, sea green. Holds 250 ml. Dishwasher-safe",
        "Bread board, oak. Oiled oak & steel",
    } <= prompts
    with (pictures / "shop" / "import.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["Handle", "Image Src", "Image Position", "Image Alt Text"]
    assert lines[1] == ["tea-cup", "https://cdn.example.com/shop/tea-cup.png", "1", "Tea cup"]


def test_the_good_rows_of_a_german_spreadsheet_have_pictures_and_the_bad_one_is_listed(
    airflow, runs, pictures, simulator
):
    assert airflow.finish(*runs["spreadsheet"]) == {"pictures": "failed"}
    assert set(saved(pictures, "spreadsheet")) == {"00120.png", "00121.png"}
    asked = [r.body for r in simulator.submissions if r.body["prompt"].endswith(", studio light")]
    assert {(body["prompt"], body["model"], body.get("style")) for body in asked} >= {
        ("Müslischale, T-120, in Blau, studio light", "flux-schnell", "futuristic"),
        ("Käsebrett, K-9, in Eiche, studio light", "flux-schnell", None),
    }
    (failed,) = map(json.loads, (pictures / "spreadsheet" / "failed.jsonl").read_text().splitlines())
    assert (failed["line"], failed["file_name"], failed["state"]) == (4, "00122.png", "failed")
    assert "uses {Farbe}, which is empty here" in failed["message"]


def test_each_environment_has_its_own_account_and_its_own_pictures(airflow, runs, pictures, simulator, crowd):
    boat = "A paper boat on a calm lake, morning light"
    for environment, run, account in (("staging", "two_accounts", crowd), ("production", "production", simulator)):
        assert set(airflow.finish(*runs[run]).values()) == {"success"}
        assert set(saved(pictures, environment)) == {"cover.png"}
        assert [r.body["prompt"] for r in account.submissions].count(boat) == 1


def test_nothing_is_bought_before_a_person_agrees(airflow, runs, simulator, agreed):
    asked, bought_before = agreed
    assert asked["subject"] == "Buy a picture for 14 AI credits?"
    assert not bought_before
    assert set(airflow.finish(*runs["approve_before_paying"]).values()) == {"success"}
    assert [r for r in simulator.submissions if r.body["prompt"].startswith("A lighthouse in a storm")]


def test_the_picture_that_a_model_chooses_is_published_with_its_reason(airflow, runs, vision_model):
    run = runs["let_a_model_choose"]
    assert set(airflow.finish(*run).values()) == {"success"}
    images = airflow.xcom(*run, "candidates", "images")
    _, request = vision_model.requests
    (message,) = request["messages"]
    urls = [part["image_url"]["url"] for part in message["content"][1:]]
    assert [base64.b64decode(url.partition(",")[2]) for url in urls] == [
        Path(image["path"]).read_bytes() for image in images
    ]
    (event,) = airflow.call("GET", f"/assets/events?source_dag_id={run[0]}")["asset_events"]
    published = {name: images[1][name] for name in ("path", "sha256", "job_id")}
    assert event["extra"] == {**published, "candidate": 2, "reason": "The light is warm."}


def test_a_picture_that_a_model_was_not_given_is_refused_and_nothing_more_is_bought(airflow, runs, simulator):
    run = runs["let_a_model_choose"]
    airflow.finish(*run)
    refused = airflow.task_log(*run, "choose", try_number=1)
    assert "The model did not name a picture from 1 to 3. Nothing was published or bought." in refused
    prompts = [request.body["prompt"] for request in simulator.submissions]
    assert prompts.count("A market hall in the rain, people with umbrellas") == 3


def test_the_budget_lets_a_picture_through_and_then_no_more(airflow, runs, simulator):
    assert set(airflow.finish(*runs["monthly_budget"]).values()) == {"success"}
    bought = len([r for r in simulator.submissions if r.body["prompt"] == "A cup of tea beside an open book"])
    assert bought == 1

    assert airflow.finish(*runs["spent"]) == {"picture": "skipped"}
    bought = len([r for r in simulator.submissions if r.body["prompt"] == "A cup of tea beside an open book"])
    assert bought == 1


def test_the_gallery_is_backed_up_and_the_next_time_only_what_is_new(airflow, runs, gallery, pictures):
    dag_id, _ = runs["back_up_the_gallery"]
    for run in airflow.call("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]:  # that of its schedule is another
        airflow.finish(dag_id, run["dag_run_id"])
        assert airflow.run_state(dag_id, run["dag_run_id"]) == "success"
    before = saved(pictures, "gallery")
    assert set(before) == {f"{job.image_id}.png" for job in gallery.account.jobs.values()}
    assert len(before) == 3

    generate(gallery, "A quiet station")
    assert airflow.finish(dag_id, airflow.trigger(dag_id)) == {"missing": "success", "save[0]": "success"}
    assert len(saved(pictures, "gallery")) == 4

    assert airflow.finish(dag_id, airflow.trigger(dag_id)) == {"missing": "success", "save": "skipped"}
