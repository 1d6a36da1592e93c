# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests that the trigger form of an example DAG shows its parameters and prices."""

from __future__ import annotations

PROMPT = "A quiet harbour\nin two lines"


def test_the_form_shows_prices_and_takes_a_long_prompt_and_no_style(airflow, simulator, page):
    page.goto(f"{airflow.url}/dags/pictory_text_to_image")
    page.get_by_role("button", name="Trigger").first.click()
    page.get_by_text("What the picture shows, in 5 to 5,000 characters.").wait_for()
    assert page.get_by_text("flux-schnell: 0.6 AI credits").is_visible()

    style = page.get_by_role("combobox").nth(2)
    style.click()
    page.get_by_role("option", name="no style").click()
    prompt = page.locator("textarea#element_prompt")
    prompt.fill(PROMPT)
    page.get_by_role("button", name="Trigger").last.click()

    for _ in airflow.until(180):
        mine = [request for request in simulator.submissions if request.body["prompt"] == PROMPT]
        if mine:
            break
    (submission,) = mine
    assert submission.body == {"prompt": PROMPT, "model": "flux-schnell", "aspectRatio": "16:9"}
