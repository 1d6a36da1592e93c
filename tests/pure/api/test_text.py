# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Texts in a log: one sentence per line, and no line is too long."""

from __future__ import annotations

import ast
import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pictory_provider.api.text import WIDTH, counted, type_of, urls, wrap_sentences
from tests.tools.layers import FILES, nodes


def test_each_sentence_has_a_line():
    assert wrap_sentences("It failed. Nothing was spent! Is it 1.5 s? `x` will do.") == (
        "It failed.\nNothing was spent!\nIs it 1.5 s?\n`x` will do."
    )


def test_a_long_sentence_is_wrapped_and_indented():
    first, *rest = wrap_sentences("This is a sentence of many words " * 10).splitlines()
    assert first.startswith("This is")
    assert rest
    assert all(line.startswith("    ") for line in rest)


@given(st.lists(st.text("abc.A ?", max_size=60).map(str.strip).filter(bool), max_size=30))
def test_nothing_is_lost_and_no_line_is_longer_than_its_longest_word_needs(words):
    text = " ".join(words)
    laid = wrap_sentences(text)
    assert laid.split() == text.split()
    longest = max(map(len, text.split()), default=0)
    assert all(len(line) <= max(WIDTH, longest + 4) for line in laid.splitlines())


def test_lines_and_indents_that_a_text_has_are_kept():
    assert wrap_sentences("one\n    two = 2\nthree") == "one\n    two = 2\nthree"


def test_what_is_to_be_copied_is_not_broken():
    command = "    python -m pictory_provider adopt " + "a_long_name " * 12
    assert command in wrap_sentences(f"Do this.\n{command}\nThen that.").splitlines()


def test_the_first_line_leaves_room_for_the_name_of_the_error():
    first, *_ = wrap_sentences("word " * 40, after="PictoryUnavailable: ").splitlines()
    assert WIDTH - 5 < len("PictoryUnavailable: " + first) <= WIDTH


def test_urls_are_found_once_each():
    assert urls('Look at https://a.b/c and `https://d` and https://a.b/c or "http://e".') == [
        "https://a.b/c",
        "https://d",
        "http://e",
    ]


def test_a_url_has_a_host():
    assert urls("It does not begin with http:// or https://: got 'ftp://h/a'. See http://[::1]/x") == [
        "http://[::1]/x"
    ]


def test_a_number_has_its_noun():
    assert [counted(n, "row") for n in (0, 1, 2, 1_200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]
    assert [counted(n, "job waits", "jobs wait") for n in (1, 2)] == ["1 job waits", "2 jobs wait"]


def test_a_type_is_named_without_an_article():
    assert [f"is {type_of(each)}" for each in (None, 1, [])] == ["is None", "is of type int", "is of type list"]


COUNTED = r"(more )?(rows|pictures|jobs|bytes|cells|columns|warnings|characters|attempts|tasks|files)\b"


def test_no_text_of_ours_counts_one_rows():
    """What is counted goes through ``counted``, unless it is a constant or never less than two."""
    found = []
    for file in FILES:
        if "simulator" in file.parts:
            continue
        for node in nodes(file):
            if isinstance(node, ast.Constant) and re.search(rf"%[sd] {COUNTED}", str(node.value)):
                found.append((file.name, node.value))
            for number, text in pairwise(getattr(node, "values", [])) if isinstance(node, ast.JoinedStr) else ():
                is_noun = isinstance(text, ast.Constant) and re.match(f" {COUNTED}", text.value)
                if is_noun and not ast.unparse(number.value).isupper():
                    found.append((file.name, ast.unparse(number.value) + text.value))
    assert [told for told in found if not any(told[1].startswith(each) for each in NEVER_ONE)] == []


NEVER_ONE = (
    "longest",
    "size bytes, and a table may have",
    "length",
    "len(self.requests)",
    "len(prompt) characters",
    "limit characters",
    "len(records) rows",
    "Saved %s (%s bytes).",
)


def test_no_text_of_ours_ends_a_url_with_punctuation():
    """Airflow's log makes a link of it, the full stop included."""
    found = []
    for file in FILES:
        docstrings = {id(node.value) for node in nodes(file) if isinstance(node, ast.Expr)}
        for node in nodes(file):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                found += [
                    (file.name, url)
                    for url in re.findall(r"https?://[^\s`'\"<>]+[.,;:)](?=[\s'\"`]|$)", node.value)
                    if not url.endswith("://")
                ]
    assert found == []


def test_a_word_that_is_longer_than_a_line_is_not_broken():
    for word in ("x" * 200, "https://h/" + "a-b/" * 50):
        assert wrap_sentences(f"Look at {word} now").splitlines() == ["Look at", f"    {word}", "    now"]


def test_a_line_holds_92_characters():
    assert WIDTH == 92
    assert wrap_sentences("x" * 45 + " " + "y" * 46).count("\n") == 0
    assert wrap_sentences("x" * 45 + " " + "y" * 47).splitlines() == ["x" * 45, "    " + "y" * 47]


def test_a_line_is_wrapped_at_blanks_and_not_at_hyphens():
    first, second = wrap_sentences("a-b " * 22 + "well-known-name").splitlines()
    assert (first, second) == (("a-b " * 22).rstrip(), "    well-known-name")


def test_only_the_first_line_leaves_room_for_a_name():
    text = "word " * 17 + "end. " + "Word " * 17 + "end."
    assert len(wrap_sentences(text).splitlines()) == 2
    assert len(wrap_sentences(text, after="x" * 10).splitlines()) == 3


def test_four_blanks_make_a_line_to_copy_and_three_do_not():
    long = "word " * 30
    assert wrap_sentences(f"One.\n    {long}").splitlines()[1] == f"    {long}"
    assert len(wrap_sentences(f"One.\n   {long}").splitlines()) == 3


def test_a_sentence_ends_with_a_stop_before_a_capital_or_a_quote():
    for begin in ("A", '"a"', "'a'", "`a`"):
        for stop in ".?!":
            assert wrap_sentences(f"x{stop} {begin}").splitlines() == [f"x{stop}", begin]
    assert wrap_sentences("x. a").splitlines() == ["x. a"]
    assert wrap_sentences("x: A").splitlines() == ["x: A"]


def test_a_text_of_nothing_has_no_urls_and_no_lines():
    assert (wrap_sentences(""), urls("")) == ("", [])
    assert urls("<https://a>, 'http://b?c#d'") == ["https://a", "http://b?c#d"]
