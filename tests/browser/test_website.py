# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Tests of the website that ``make site`` builds, at the width of a phone and of a desktop."""

from __future__ import annotations

from pathlib import Path

import pytest

SITE = Path(__file__).resolve().parents[2] / "docs" / "_build" / "html"
PAGES = sorted(page.name for page in SITE.glob("*.html") if page.name not in ("genindex.html", "search.html"))


def test_the_website_exists():
    assert "index.html" in PAGES, "make site"


@pytest.mark.parametrize("name", PAGES)
def test_every_page_fits_the_width_of_a_phone(chromium, name):
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    page.goto((SITE / name).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_every_picture_links_to_its_full_size(chromium):
    page = chromium.new_page()
    for name in ("index.html", "connection.html", "troubleshooting.html"):
        page.goto((SITE / name).as_uri())
        pictures = page.locator("article img").all()
        assert pictures, name
        for picture in pictures:
            assert picture.evaluate("image => image.closest('a')?.href === image.src"), picture
    page.close()


def test_an_example_can_be_downloaded_from_its_page(chromium):
    page = chromium.new_page()
    page.goto((SITE / "examples.html").as_uri())
    link = page.get_by_role("link", name="pictory_text_to_image.py").evaluate("link => [link.href, link.download]")
    assert link[1] is not None, "the link has the attribute download"
    assert "GenerateImageOperator" in Path(link[0].removeprefix("file://")).read_text()
    page.close()
