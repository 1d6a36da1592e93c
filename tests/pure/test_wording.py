# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""A text in a log: a sentence a line, and no line runs off the page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.wording import WIDTH, laid_out, urls

PACKAGE = Path(__file__).resolve().parents[2] / "pictory_provider"


def test_each_sentence_has_a_line():
    assert laid_out("It failed. Nothing was spent! Is it 1.5 s? `x` will do.") == (
        "It failed.\nNothing was spent!\nIs it 1.5 s?\n`x` will do."
    )


def test_a_long_sentence_is_wrapped_and_indented():
    first, *rest = laid_out("This is a sentence of many words " * 10).splitlines()
    assert first.startswith("This is")
    assert rest
    assert all(line.startswith("    ") for line in rest)


@given(st.lists(st.text("abc.A ?", max_size=60).map(str.strip).filter(bool), max_size=30))
def test_nothing_is_lost_and_no_line_is_longer_than_its_longest_word_needs(words):
    text = " ".join(words)
    laid = laid_out(text)
    assert laid.split() == text.split()
    longest = max(map(len, text.split()), default=0)
    assert all(len(line) <= max(WIDTH, longest + 4) for line in laid.splitlines())


def test_lines_and_indents_that_a_text_has_are_kept():
    assert laid_out("one\n    two = 2\nthree") == "one\n    two = 2\nthree"


def test_what_is_to_be_copied_is_not_broken():
    command = "    python -m pictory_provider adopt " + "a_long_name " * 12
    assert command in laid_out(f"Do this.\n{command}\nThen that.").splitlines()


def test_the_first_line_leaves_room_for_the_name_of_the_error():
    first, *_ = laid_out("word " * 40, after="PictoryUnavailable: ").splitlines()
    assert WIDTH - 5 < len("PictoryUnavailable: " + first) <= WIDTH


def test_urls_are_found_once_each():
    assert urls('Look at https://a.b/c and `https://d` and https://a.b/c or "http://e".') == [
        "https://a.b/c",
        "https://d",
        "http://e",
    ]


def test_no_text_of_ours_ends_a_url_with_punctuation():
    """Airflow's log makes a link of it, the full stop included."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                found += [
                    (file.name, url)
                    for url in re.findall(r"https?://[^\s`'\"<>]+[.,;:)](?=[\s'\"`]|$)", node.value)
                    if not url.endswith("://")
                ]
    assert found == []


def test_a_word_that_is_longer_than_a_line_is_not_broken():
    for word in ("x" * 200, "https://h/" + "a-b/" * 50):
        assert laid_out(f"Look at {word} now").splitlines() == ["Look at", f"    {word}", "    now"]


def test_a_line_holds_92_characters():
    assert WIDTH == 92
    assert laid_out("x" * 45 + " " + "y" * 46).count("\n") == 0
    assert laid_out("x" * 45 + " " + "y" * 47).splitlines() == ["x" * 45, "    " + "y" * 47]


def test_a_line_is_wrapped_at_blanks_and_not_at_hyphens():
    first, second = laid_out("a-b " * 22 + "well-known-name").splitlines()
    assert (first, second) == (("a-b " * 22).rstrip(), "    well-known-name")


def test_only_the_first_line_leaves_room_for_a_name():
    text = "word " * 17 + "end. " + "Word " * 17 + "end."
    assert len(laid_out(text).splitlines()) == 2
    assert len(laid_out(text, after="x" * 10).splitlines()) == 3


def test_four_blanks_make_a_line_to_copy_and_three_do_not():
    long = "word " * 30
    assert laid_out(f"One.\n    {long}").splitlines()[1] == f"    {long}"
    assert len(laid_out(f"One.\n   {long}").splitlines()) == 3


def test_a_sentence_ends_with_a_stop_before_a_capital_or_a_quote():
    for begin in ("A", '"a"', "'a'", "`a`"):
        for stop in ".?!":
            assert laid_out(f"x{stop} {begin}").splitlines() == [f"x{stop}", begin]
    assert laid_out("x. a").splitlines() == ["x. a"]
    assert laid_out("x: A").splitlines() == ["x: A"]


def test_a_text_of_nothing_has_no_urls_and_no_lines():
    assert (laid_out(""), urls("")) == ("", [])
    assert urls("<https://a>, 'http://b?c#d'") == ["https://a", "http://b?c#d"]
