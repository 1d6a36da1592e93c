# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of the pages *Pictures* in a real browser, with a real Airflow behind a prefix and real runs."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from urllib.parse import quote

import pytest
import requests

DAG = "browser.pictures-1"
RUN = "by.hand+1:a"
HOSTILE_RUN = "<img src=x onerror=parent.hacked=window.hacked=1>+2"
LIGHT, DARK = "light", "dark"
CLEAN = "() => window.hacked === undefined && parent.hacked === undefined"


@pytest.fixture(scope="module")
def run(gallery):
    """Return the id of a finished run, with `+`, `:` and `.` in it."""
    for _ in gallery.until(120):
        if DAG in {dag["dag_id"] for dag in gallery.call("GET", "/dags")["dags"]}:
            break
    gallery.call("PATCH", f"/dags/{DAG}", is_paused=False)
    for run_id in (RUN, HOSTILE_RUN):
        gallery.call("POST", f"/dags/{DAG}/dagRuns", dag_run_id=run_id, logical_date=None, conf={})
        states = gallery.finish(DAG, quote(run_id, safe=""))
    failed = {"batch", "failing", "refused", "wrong_key"}
    assert {task for task, state in states.items() if state != "success"} == failed
    return RUN


@pytest.fixture(scope="module")
def busy(gallery):
    """Return the id of a run whose picture is never finished."""
    run_id = gallery.trigger("browser_in_progress")
    for _ in gallery.until(120):
        if gallery.tasks("browser_in_progress", run_id)[0]["state"] == "deferred":
            return run_id
    raise AssertionError("it was not deferred")


@pytest.fixture
def seen_by(gallery, open_page):
    """Return a function that opens a page for a user, with a size and a colour scheme."""

    def page(name="boss", *, scheme=LIGHT, **size):
        opened = open_page(gallery, gallery.token(name), scheme=scheme, **size)
        opened.context.add_init_script(f"localStorage.setItem('theme', '{scheme}')")
        return opened

    return page


def pictures_of(page):
    """Return the frame of the plugin's page, once it is loaded."""
    frame = page.frame_locator("iframe[title=Pictures]")
    frame.locator("#main:not([aria-busy])").wait_for()
    return page.frames[-1]


def tab(gallery, run_id, task=""):
    path = f"/tasks/{task}/plugin/pictory-task" if task else "/plugin/pictory-run"
    return f"{gallery.url}/dags/{DAG}/runs/{quote(run_id, safe='')}{path}"


def test_two_clicks_lead_from_the_list_of_dags_to_the_pictures_their_batch_and_their_credits(
    gallery, seen_by, run
):
    page = seen_by()
    page.goto(f"{gallery.url}/dags")
    latest = page.locator(f"a[href*='/dags/{DAG}/runs/']").first
    latest.wait_for()
    latest.click()  # 1
    page.locator("a[href$='/plugin/pictory-run']").click()  # 2
    frame = pictures_of(page)
    frame.locator(".shot.seen img").first.wait_for()
    assert frame.locator(".card").count() == 50
    assert frame.locator(".card img").count() == 46
    assert re.search(r"30\.2\s+AI credits used", frame.locator(".figures").inner_text())
    assert "40 of 41 · 1 failed · 24 credits" in frame.locator(".batch").inner_text()
    # Failed items come first, both of single tasks and of the batch.
    for number, name in enumerate(("failing", "refused", "wrong_key")):
        assert frame.locator(".card.failed .name", has_text=name).count() == 1, number
    assert frame.locator(".grid").first.locator(".card").nth(3).get_attribute("class") == "card done"
    assert "A bicycle that cannot be drawn" in frame.locator(".grid").nth(1).locator(".card").first.inner_text()
    frame.get_by_role("button", name="Next").click()
    frame.get_by_text("A bicycle number 39").first.wait_for()
    assert frame.evaluate(CLEAN)


def test_each_picture_has_its_prompt_and_price_and_a_failed_one_its_reason(gallery, seen_by, run):
    page = seen_by()
    page.goto(tab(gallery, run))
    frame = pictures_of(page)

    def card(task):
        return frame.locator(".card", has=frame.locator(f".name:text-is('{task}')")).inner_text()

    assert "A magazine cover" in card("covers.first")
    assert "0.6 credits" in card("covers.first")
    assert "Reused" in card("covers.again")
    assert "nothing spent" in card("covers.again")
    assert "A cup of mint tea" in card("mapped [4]")
    assert "2 credits" in card("generate, save")
    assert "Pictory refused the API key (401)." in card("wrong_key")
    assert "nothing bought" in card("wrong_key")
    assert "failed at Pictory: IMAGE_GENERATION_FAILED" in card("failing")
    assert "charge unknown" in card("failing")


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("covers.first", "A magazine cover"),
        ("mapped/mapped/2", "A cup of white tea"),
        ("save", "A lighthouse at dawn"),
        ("wait", "A lighthouse at dawn"),
        ("batch", "A bicycle number 39"),
        ("failing", "could not be generated"),
    ],
)
def test_every_task_has_a_tab(gallery, seen_by, run, task, text):
    page = seen_by()
    page.goto(tab(gallery, run, task))
    frame = pictures_of(page)
    frame.get_by_text(text).first.wait_for()
    cards = 41 if task == "batch" else 1
    assert frame.locator(".card").count() == cards


def test_the_page_in_the_navigation_shows_the_account_and_the_newest_runs(gallery, seen_by, run):
    page = seen_by()
    page.goto(gallery.url)
    page.get_by_role("link", name="Pictures").first.click()  # 1
    frame = pictures_of(page)
    frame.get_by_text("Used this month").wait_for()
    assert frame.locator(".run").first.is_visible()
    frame.locator(".run .more").first.click()
    frame = pictures_of(page)
    frame.locator(".figures").wait_for()
    frame.get_by_role("link", name="All pictures").click()
    pictures_of(page).locator(".run").first.wait_for()


def test_the_tab_of_a_plan_says_what_would_be_bought(gallery, seen_by, simulator):
    before = len(simulator.submissions)
    run_id = gallery.trigger("browser_plan")
    assert set(gallery.finish("browser_plan", run_id).values()) == {"skipped"}
    page = seen_by()
    page.goto(f"{gallery.url}/dags/browser_plan/runs/{quote(run_id, safe='')}/plugin/pictory-run")
    frame = pictures_of(page)
    assert "Plan: 2 of 2 to buy for 4 credits listed · 1 skipped" in frame.locator(".batch").inner_text()
    card = frame.locator(".card", has=frame.locator(".name:text-is('one')")).inner_text()
    assert "The plan for 1 picture: 1 to buy for 2 AI credits as listed" in card
    assert frame.locator(".card.skipped").count() == 1
    assert frame.locator(".none.failed").count() == 0, "a plan is no failure"
    assert len(simulator.submissions) == before


def test_candidates_stand_together_each_with_its_file_and_credits(gallery, seen_by):
    run_id = gallery.trigger("browser_candidates")
    assert set(gallery.finish("browser_candidates", run_id).values()) == {"success"}
    page = seen_by()
    page.goto(f"{gallery.url}/dags/browser_candidates/runs/{quote(run_id, safe='')}/plugin/pictory-run")
    frame = pictures_of(page)
    frame.locator(".shot.seen img").nth(2).wait_for()
    assert frame.locator(".card .name").all_inner_texts() == [f"poster.{number}.png" for number in (1, 2, 3)]
    assert re.search(r"3\s+pictures.*6\s+AI credits used", frame.locator(".figures").inner_text(), re.DOTALL)
    sizes = frame.evaluate("() => [...document.querySelectorAll('.card img')].map((one) => one.naturalWidth)")
    assert all(sizes)
    assert len(sizes) == 3
    frame.locator(".open").nth(1).click()
    assert "poster.2.png" in frame.get_by_text("airflow pictory redo").inner_text()
    page.goto(f"{gallery.url}/dags/browser_candidates/plugin/pictory-dag")
    pictures_of(page).locator(".card, .run img").nth(2).wait_for()


def test_the_page_shows_five_accounts_and_names_the_others(gallery, seen_by, run, simulator):
    ids = [f"pictory_{number}" for number in range(6)]
    for conn_id in ids:
        gallery.call(
            "POST",
            "/connections",
            connection_id=conn_id,
            conn_type="pictory",
            host=simulator.base_url,
            password=simulator.api_key,
        )
    page = seen_by()
    page.goto(f"{gallery.url}/plugin/pictory")
    frame = pictures_of(page)
    frame.get_by_text("Used this month").nth(4).wait_for()
    assert frame.get_by_text("Not shown:").inner_text() == "Not shown: pictory_4, pictory_5"
    for conn_id in ids:
        gallery.call("DELETE", f"/connections/{conn_id}")


def test_the_command_that_buys_another_picture_can_be_copied_and_is_safe_in_a_shell(gallery, seen_by, run):
    """In Airflow's sandboxed frame, in which a browser may forbid to write to the clipboard."""
    path = "/srv/it's; touch hacked $(x)/a b.png"

    def edited(route):
        reply = route.fetch()
        value = reply.json()
        value["value"]["path"] = path
        route.fulfill(response=reply, json=value)

    page = seen_by()
    page.route("**/xcomEntries/image?**", edited)
    page.goto(tab(gallery, run, "covers.first"))
    frame = pictures_of(page)
    frame.locator(".open").first.click()
    dialog = frame.locator("dialog[open]")
    command = dialog.locator("dt:text-is('Regenerate') + dd")
    assert shlex.split(command.inner_text()) == ["airflow", "pictory", "redo", path]
    button = command.get_by_role("button", name="Copy: Regenerate")
    button.click()
    button.and_(frame.locator(".done")).wait_for()
    frame.evaluate(
        "() => { navigator.clipboard.writeText = () => Promise.reject(); document.execCommand = () => false; }"
    )
    button.click()
    selected = frame.wait_for_function("() => getSelection().toString()").json_value()
    assert selected == command.inner_text()
    path = "/srv/\x1b[201~.png"  # a terminal would take what follows for typed keys
    page.reload()
    frame = pictures_of(page)
    frame.locator(".open").first.click()
    frame.locator("dialog[open]").wait_for()
    assert frame.locator("dt:text-is('Regenerate')").count() == 0


def test_the_tab_of_a_dag_lists_its_runs(gallery, seen_by, run):
    page = seen_by()
    page.goto(f"{gallery.url}/dags/{DAG}/plugin/pictory-dag")
    frame = pictures_of(page)
    frame.locator(".run").nth(1).wait_for()
    assert frame.locator(".run").count() == 2


def test_a_picture_in_progress_shows_its_age_and_the_page_keeps_polling(gallery, seen_by, busy):
    page = seen_by()
    page.goto(f"{gallery.url}/dags/browser_in_progress/runs/{busy}/plugin/pictory-run")
    frame = pictures_of(page)
    age = frame.locator(".age")
    age.wait_for()
    assert re.fullmatch(r"(\d+ h )?(\d+ min )?\d+ s", age.inner_text())
    assert "2 credits listed" in frame.locator(".card").inner_text()
    with page.expect_request(re.compile("taskInstances")):
        pass


# Each time that a poll has ended, the page starts a timer for the next one; here it ends soon.
COUNT = """
const polls = window.polls = [];
let requests = 0;
const { fetch, setTimeout } = window;
window.fetch = (...which) => { requests += 1; return fetch(...which); };
window.setTimeout = (work, after) => {
    if (after !== 3000) return setTimeout(work, after);
    polls.push(requests);
    return setTimeout(work, 300);
};
"""


@pytest.fixture(scope="module")
def busy_batch(gallery):
    """Return the id of a run whose batch has one picture, and waits for another one that is never finished."""
    dag = "browser_batch_in_progress"
    run_id = gallery.trigger(dag)
    path = f"/dags/{dag}/dagRuns/{quote(run_id, safe='')}/taskInstances/drawn/xcomEntries/progress"
    for _ in gallery.until(120):
        if gallery.tasks(dag, run_id)[0]["state"] == "deferred" and xcom_value(gallery, path)["saved"] == 1:
            return run_id
    raise AssertionError("it was not deferred")


@pytest.mark.parametrize(
    ("dag", "of", "requested"),
    [
        ("browser_in_progress", "busy", ["taskInstances"]),
        ("browser_batch_in_progress", "busy_batch", ["taskInstances", "xcomEntries/progress"]),
    ],
)
@pytest.mark.parametrize("is_task", [False, True])
def test_one_poll_of_a_tab_sends_at_most_two_requests(gallery, seen_by, request, dag, of, requested, is_task):
    run_id = quote(request.getfixturevalue(of), safe="")
    page = seen_by()
    page.add_init_script(COUNT)
    page.goto(
        f"{gallery.url}/pictory/{'task' if is_task else 'run'}/{dag}/{run_id}{'/drawn/-1' if is_task else ''}"
    )
    page.wait_for_function("() => window.polls.length > 0")
    urls = []
    page.on("request", lambda each: urls.append(each.url))
    page.wait_for_function("() => window.polls.length > 4")
    polls = page.evaluate("() => window.polls")
    each = [later - earlier for earlier, later in pairwise(polls)]
    assert set(each) == {len(requested)}
    for part in requested:
        assert sum(part in url for url in urls) >= len(each), part
    assert page.locator(".card .age, .batch .progress").count() > 0


def test_a_card_loads_a_thumbnail_and_the_enlarged_picture_is_the_original(gallery, seen_by, run):
    page = seen_by()
    urls = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(tab(gallery, run, "covers.first"))
    frame = pictures_of(page)
    frame.locator(".shot.seen img").wait_for()
    path = file_of(gallery, run)
    thumbnail = path.replace("file/", "thumbnail/", 1)
    assert [url for url in urls if url.endswith(thumbnail)]
    assert not [url for url in urls if "/pictory/file/" in url]
    assert frame.evaluate("() => document.querySelector('.card img').naturalWidth") == 320
    frame.locator(".open").click()
    frame.wait_for_function("() => document.querySelector('dialog img').naturalWidth > 320")
    assert [url for url in urls if url.endswith(path)]
    reply = gallery.ask(thumbnail, "reader")
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "image/webp")
    assert not list(gallery.pictures.rglob("*.webp"))
    assert list(gallery.home.glob(f"pictory-thumbnails/{path.rpartition('/')[2]}.*.webp"))


def test_a_card_loads_the_copy_that_its_task_has_made(gallery, seen_by):
    run_id = gallery.trigger("browser_copies")
    assert set(gallery.finish("browser_copies", run_id).values()) == {"success"}
    page = seen_by()
    with page.expect_response(re.compile("/pictory/thumbnail/")) as waiting:
        page.goto(f"{gallery.url}/pictory/run/browser_copies/{quote(run_id, safe='')}")
    page.locator(".shot.seen img").wait_for()
    assert waiting.value.body() == next(gallery.pictures.rglob("cover.400.webp")).read_bytes()
    assert page.evaluate("() => document.querySelector('.card img').naturalWidth") == 400


def test_a_picture_whose_copy_could_not_be_made_is_shown_with_its_price_and_the_reason(gallery, seen_by):
    run_id = gallery.trigger("browser_lost_copy")
    states = gallery.finish("browser_lost_copy", run_id)
    assert {task for task, state in states.items() if state != "success"} == {"again"}
    page = seen_by()
    page.goto(f"{gallery.url}/pictory/run/browser_lost_copy/{quote(run_id, safe='')}")
    page.locator(".shot.seen img").nth(1).wait_for()
    failed = page.locator(".card", has_text="could not be copied to cover.400.webp")
    assert failed.locator(".shot.seen img").count() == 1
    assert "nothing spent" in failed.inner_text(), "it reuses the picture of the first task"
    assert re.search(r"2\s+pictures.*1\s+failed", page.locator(".figures").inner_text(), re.DOTALL)


def test_a_thumbnail_is_served_only_to_users_who_may_read_its_dag(gallery, run):
    thumbnail = file_of(gallery, run).replace("file/", "thumbnail/", 1)
    assert gallery.ask(thumbnail).status_code == 401
    assert gallery.ask(thumbnail, "stranger").status_code == 403
    etag = gallery.ask(thumbnail, "reader").headers["ETag"]
    for name, status in ((None, 401), ("stranger", 403), ("reader", 304)):
        headers = {"If-None-Match": etag}
        headers |= {"Authorization": f"Bearer {gallery.token(name)}"} if name else {}
        reply = requests.get(f"{gallery.url}/pictory/{thumbnail}", headers=headers, timeout=60)
        assert reply.status_code == status


def test_a_page_that_polls_a_run_says_when_its_user_is_signed_out(gallery, seen_by, busy):
    page = seen_by()
    page.goto(f"{gallery.url}/pictory/run/browser_in_progress/{quote(busy, safe='')}")
    page.locator(".age").wait_for()
    token = {"name": "_token", "value": gallery.expired_token("boss"), "url": gallery.url + "/"}
    page.context.add_cookies([token])
    page.get_by_text("You are signed out").wait_for()
    assert page.locator(".card").count() == 0


def test_the_page_of_a_finished_run_stops_polling(gallery, seen_by, run):
    page = seen_by()
    page.clock.install()
    page.goto(f"{gallery.url}/pictory/run/{DAG}/{quote(run, safe='')}")
    page.locator(".card:not(.skeleton)").first.wait_for()
    page.wait_for_load_state("networkidle")
    urls = []
    page.on("request", lambda request: urls.append(request.url))
    page.clock.fast_forward(600_000)
    page.evaluate("() => new Promise(done => requestAnimationFrame(done))")
    assert urls == []


def test_hostile_data_stays_text(gallery, seen_by, run):
    page = seen_by()
    for address in (
        tab(gallery, HOSTILE_RUN),
        tab(gallery, HOSTILE_RUN, "hostile"),
        f"{gallery.url}/plugin/pictory",
    ):
        page.goto(address)
        frame = pictures_of(page)
        frame.locator(".open").first.click()
        for _ in range(frame.locator(".open").count()):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Escape")
        assert frame.evaluate(CLEAN)
        assert page.evaluate("() => window.hacked === undefined")
        assert frame.locator("#main script, #main img[src=x]").count() == 0
    page.goto(tab(gallery, HOSTILE_RUN, "hostile"))
    frame = pictures_of(page)
    assert "<script>parent.hacked" in frame.locator(".prompt").inner_text()


def test_the_page_can_be_used_with_the_keyboard(gallery, seen_by, run):
    page = seen_by()
    page.goto(tab(gallery, run))
    frame = pictures_of(page)
    openers = frame.locator(".open")
    openers.first.focus()
    page.keyboard.press("ArrowRight")
    assert frame.evaluate("() => [...document.querySelectorAll('.open')].indexOf(document.activeElement)") == 1
    page.keyboard.press("Enter")
    dialog = frame.locator("dialog[open]")
    dialog.wait_for()
    assert "2 of 50" in dialog.inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "4 of 50" in dialog.inner_text()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    frame.wait_for_function("() => [...document.querySelectorAll('.open')].indexOf(document.activeElement) === 3")
    assert frame.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("width", [390, 768, 1280, 2560])
def test_the_page_fits_every_width_and_its_layout_does_not_shift(gallery, seen_by, run, width):
    page = seen_by(width=width)
    page.goto(f"{gallery.url}/pictory/run/{DAG}/{quote(run, safe='')}")
    page.evaluate(
        """() => { window.jumped = 0; new PerformanceObserver(list => {
            for (const shift of list.getEntries()) window.jumped += shift.value;
        }).observe({ type: "layout-shift", buffered: true }); }"""
    )
    page.locator(".shot.seen").first.wait_for()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("() => window.jumped") < 0.01
    assert page.evaluate("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    columns = page.evaluate(
        "() => getComputedStyle(document.querySelector('.grid')).gridTemplateColumns.split(' ').length"
    )
    assert columns == {390: 2, 768: 3, 1280: 5, 2560: 11}[width]


@pytest.fixture(scope="session")
def axe(npm_install):
    """Return the script of axe-core."""
    return (npm_install("axe-core") / "node_modules" / "axe-core" / "axe.min.js").read_text()


def violations(page, axe):
    """Return the violations that axe-core finds in a page."""
    page.evaluate(axe)
    found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]]


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_axe_finds_no_violation(gallery, seen_by, run, busy, axe, scheme):
    page = seen_by(scheme=scheme)
    for address in (
        tab(gallery, run),
        tab(gallery, HOSTILE_RUN, "hostile"),
        f"{gallery.url}/dags/browser_in_progress/runs/{busy}/plugin/pictory-run",
        f"{gallery.url}/dags/browser_nothing/plugin/pictory-dag",
        f"{gallery.url}/dags/{DAG}/plugin/pictory-dag",
        f"{gallery.url}/plugin/pictory",
    ):
        page.goto(address)
        frame = pictures_of(page)
        assert frame.evaluate("() => document.documentElement.classList.contains('dark')") == (scheme == DARK)
        assert (address, violations(frame, axe)) == (address, [])
    page.goto(tab(gallery, run))
    frame = pictures_of(page)
    frame.locator(".card.done .open").first.click()
    frame.locator("dialog[open] img").wait_for()
    assert violations(frame, axe) == []


def test_an_empty_page_says_which_tasks_have_pictures(gallery, seen_by, run):
    page = seen_by()
    page.goto(f"{gallery.url}/dags/browser_nothing/plugin/pictory-dag")
    frame = pictures_of(page)
    frame.get_by_text("GenerateImageOperator").wait_for()


def test_the_page_has_airflows_colours(gallery, seen_by, run):
    page = seen_by(scheme=LIGHT)
    page.goto(tab(gallery, run))
    frame = pictures_of(page)
    light = frame.evaluate("() => getComputedStyle(document.body).color")
    page.evaluate("() => document.documentElement.classList.replace('light', 'dark')")
    frame.locator("html.dark").wait_for()
    assert frame.evaluate("() => getComputedStyle(document.body).color") != light


# Permissions


def file_of(gallery, run_id, task="covers.first", key="image", number=0):
    """Return the path of the picture of one record."""
    run_id = quote(run_id, safe="")
    found = xcom_value(gallery, f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/{task}/xcomEntries/{key}")
    record = found[number] if isinstance(found, list) else found
    return f"file/{DAG}/{run_id}/{task}/-1/{key}/{record['sha256']}"


def test_a_picture_is_served_only_to_users_who_may_read_its_dag(gallery, run):
    path = file_of(gallery, run)
    assert gallery.ask(path).status_code == 401
    bad = {"Authorization": "Bearer nonsense"}
    assert requests.get(f"{gallery.url}/pictory/{path}", headers=bad, timeout=30).status_code in (401, 403)
    assert gallery.ask(path, "stranger").status_code == 403
    for name in ("reader", "boss"):
        reply = gallery.ask(path, name)
        assert (reply.status_code, reply.headers["Content-Type"]) == (200, "image/png")
        assert reply.content == next(gallery.pictures.rglob("by.hand*/cover.png")).read_bytes()
    of_batch = file_of(gallery, run, "batch", "pictures_0", 39)
    assert gallery.ask(of_batch, "reader").status_code == 200
    assert gallery.ask(of_batch.replace("/pictures_0/", "/pictures_1/"), "reader").status_code == 404
    assert gallery.ask(f"{of_batch.rpartition('/')[0]}/{'0' * 64}", "reader").status_code == 404


def test_the_accounts_usage_is_returned_only_to_users_who_may_read_connections(gallery, simulator, run):
    assert gallery.ask("account/pictory_default").status_code == 401
    assert gallery.ask("account/pictory_default", "reader").status_code == 403
    reply = gallery.ask("account/pictory_default", "boss")
    assert reply.json()["plan"] == 22_000
    assert gallery.ask("account/nowhere", "boss").status_code == 404


def test_every_page_needs_a_login_and_no_reply_has_the_key(gallery, simulator, run):
    for path in ("newest", f"dag/{DAG}", f"run/{DAG}/x", f"task/{DAG}/x/y/-1"):
        assert gallery.ask(path).status_code == 401
        assert simulator.api_key not in gallery.ask(path, "boss").text
    for path in ("account/pictory_default", "account/pictory_wrong_key", "static/pictures.js"):
        assert "pictai_" not in gallery.ask(path, "boss").text


def test_a_user_without_permissions_sees_a_message_and_no_picture(gallery, seen_by, run):
    page = seen_by("stranger")
    page.goto(f"{gallery.url}/pictory/run/{DAG}/{quote(run, safe='')}")
    page.get_by_text("You may not see these pictures").wait_for()
    assert page.locator(".card:not(.skeleton)").count() == 0
    page.goto(f"{gallery.url}/pictory/newest")
    page.locator("#main:not([aria-busy])").wait_for()
    assert DAG not in page.locator("#main").inner_text()
    assert page.locator(".account").count() == 0


def xcom_value(gallery, path):
    """Return the value of an XCom, which is JSON, or JSON within JSON."""
    value = gallery.call("GET", f"{path}?map_index=-1")["value"]
    while isinstance(value, str):
        value = json.loads(value)
    return value


@pytest.fixture
def edited(gallery, run):
    """Return a function that edits the XCom of a task over Airflow's API, and returns the status of its picture."""
    xcom = f"/dags/{DAG}/dagRuns/{quote(run, safe='')}/taskInstances/hostile/xcomEntries/image"
    before = xcom_value(gallery, xcom)

    def edit(**fields):
        gallery.call("PATCH", xcom, map_index=-1, value=before | fields)
        path = file_of(gallery, run, "hostile")
        file = gallery.ask(path, "boss").status_code
        assert gallery.ask(path.replace("file/", "thumbnail/", 1), "boss").status_code == file
        return file

    yield edit
    gallery.call("PATCH", xcom, map_index=-1, value=before)


def test_an_edited_xcom_leads_to_no_other_file(gallery, edited, tmp_path, run):
    assert edited() == 200
    own = next(gallery.pictures.rglob("by.hand*/hostile.png"))
    theirs = next(gallery.pictures.rglob("by.hand*/cover.png"))
    outside = tmp_path / "outside.png"
    outside.write_bytes(own.read_bytes())
    (own.parent / "link.png").symlink_to(outside)
    large = own.parent / "large.png"
    with large.open("wb") as file:
        file.write(own.read_bytes())
        file.truncate(200 * 1024 * 1024)
    for path in (
        outside,
        own.parent / "link.png",
        theirs,
        f"{own.parent}/../{own.parent.name}/hostile.png",
        f"file://{own}",
        "/etc/passwd",
        large,
    ):
        assert edited(path=str(path)) == 404, path
    digest = hashlib.sha256(large.read_bytes()).hexdigest()
    assert edited(path=str(large), size=200 * 1024 * 1024, sha256=digest) == 404
    assert edited() == 200


def test_an_edited_url_is_loaded_only_if_it_is_a_web_address(gallery, seen_by, edited, run):
    edited(path=None, url="javascript:parent.hacked=window.hacked=1")
    page = seen_by()
    page.goto(tab(gallery, run, "hostile"))
    frame = pictures_of(page)
    frame.get_by_text("No longer available at Pictory").wait_for()
    assert frame.evaluate(CLEAN)


def test_a_url_of_an_xcom_is_never_requested_from_airflows_own_host(gallery, seen_by, edited, run):
    edited(path=None, url=f"{gallery.url}/api/v2/auth/logout")
    page = seen_by()
    urls = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(tab(gallery, run, "hostile"))
    pictures_of(page).get_by_text("No longer available at Pictory").wait_for()
    assert [url for url in urls if "logout" in url] == []


def test_invalid_counts_of_a_batch_count_as_zero(gallery, seen_by, run):
    path = f"/dags/{DAG}/dagRuns/{quote(HOSTILE_RUN, safe='')}/taskInstances/batch/xcomEntries/progress"
    odd = {"of": 41, "saved": "9", "waiting": {"toLocaleString": 1}, "failed": -2, "to_do": 1e30, "reused": 1.5}
    gallery.call("PATCH", path, map_index=-1, value={**odd, "ai_credits_used": -7})
    page = seen_by()
    page.goto(tab(gallery, HOSTILE_RUN, "batch"))
    frame = pictures_of(page)
    frame.get_by_text("0 of 41").wait_for()
    assert frame.evaluate(CLEAN)


def test_a_thousand_requests_at_once_are_all_answered(gallery, run):
    headers = {"Authorization": f"Bearer {gallery.token('reader')}"}
    with requests.Session() as session, ThreadPoolExecutor(100) as many:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=100))
        address = f"{gallery.url}/pictory/{file_of(gallery, run)}"
        codes = list(
            many.map(lambda _: session.get(address, headers=headers, timeout=300).status_code, range(1000))
        )
    assert set(codes) == {200}


# A large batch, and the link


def test_a_batch_of_a_thousand_shows_fifty_at_a_time(gallery, seen_by, run):
    hostile = quote(HOSTILE_RUN, safe="")
    path = f"/dags/{DAG}/dagRuns/{hostile}/taskInstances/batch/xcomEntries"
    record = xcom_value(gallery, f"{path}/pictures_0")[0]
    counts = dict.fromkeys(("to_do", "waiting", "reused", "failed", "unknown", "not_bought"), 0)
    gallery.call(
        "PATCH",
        f"{path}/progress",
        map_index=-1,
        value={"of": 1000, **counts, "saved": 1000, "ai_credits_used": 600},
    )
    for page in range(20):
        value = [record | {"job_id": f"job-{page}-{row}", "prompt": f"Row {50 * page + row}"} for row in range(50)]
        method, target = ("PATCH", f"{path}/pictures_0") if page == 0 else ("POST", path)
        gallery.call(method, target, **({"key": f"pictures_{page}"} if page else {}), map_index=-1, value=value)

    page = seen_by()
    page.goto(tab(gallery, HOSTILE_RUN, "batch"))
    frame = pictures_of(page)
    frame.get_by_text("1,000 of 1,000").wait_for()
    assert frame.locator(".card").count() == 50
    urls = []
    page.on("request", lambda request: urls.append(request.url))
    for turn in range(1, 20):
        frame.get_by_role("button", name="Next").click()
        frame.get_by_text(f"Row {50 * turn}", exact=True).wait_for()
        assert frame.locator(".card").count() == 50
    assert frame.get_by_role("button", name="Next").is_disabled()
    assert len([url for url in urls if "xcomEntries" in url]) <= 19 * 2


def test_the_link_of_a_task_leads_to_its_tab_and_later_to_the_picture(gallery, seen_by, run, busy):
    page = seen_by()
    links = gallery.call("GET", f"/dags/browser_in_progress/dagRuns/{busy}/taskInstances/drawn/links")
    (address,) = links["extra_links"].values()
    in_progress = quote(busy, safe="")
    assert address == f"{gallery.url}/pictory/open/browser_in_progress/{in_progress}/drawn/-1"
    page.goto(address)
    assert page.url == f"{gallery.url}/dags/browser_in_progress/runs/{in_progress}/tasks/drawn/plugin/pictory-task"
    pictures_of(page).locator(".age").wait_for()
    done = gallery.call("GET", f"/dags/{DAG}/dagRuns/{quote(run, safe='')}/taskInstances/covers.first/links")
    assert next(iter(done["extra_links"].values())).endswith(".png")
    of_batch = gallery.call("GET", f"/dags/{DAG}/dagRuns/{quote(run, safe='')}/taskInstances/batch/links")
    page.goto(of_batch["extra_links"]["Pictory images"])
    pictures_of(page).get_by_role("progressbar", name="Pictures of batch").wait_for()
