#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# Guess, from memory: with `--dist loadgroup` all tests that are marked `xdist_group("one")` run in one worker.
#
# Seen with pytest 9.2.0 and pytest-xdist 3.8.0: they are spread over the workers like any others, without a warning,
# because xdist writes the group into an attribute of the test from which pytest no longer makes its id. With pytest
# 9.0.2 they run in one. So a session fixture that is dear, or that owns a port, is made once for each worker.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/test_group.py" <<'PYTHON'
import os
import pathlib

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(20))
def test_of_one_group(number):
    with (pathlib.Path(__file__).parent / os.environ["SEEN"]).open("a") as seen:
        seen.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
PYTHON
for pytest in 9.0.2 9.2.0; do
    python3 -m venv "$folder/$pytest"
    "$folder/$pytest/bin/pip" install --quiet --disable-pip-version-check "pytest==$pytest" pytest-xdist==3.8.0
    SEEN="$pytest.txt" "$folder/$pytest/bin/python" -m pytest -q -p no:cacheprovider --numprocesses 2 \
        --dist loadgroup "$folder/test_group.py" >/dev/null
    echo "pytest $pytest, pytest-xdist 3.8.0: one group of 20 tests in $(sort -u "$folder/$pytest.txt" | wc -l) worker(s)"
done
[ "$(sort -u "$folder/9.0.2.txt" | wc -l)" = 1 ] && [ "$(sort -u "$folder/9.2.0.txt" | wc -l)" = 2 ]
echo "As seen."
