#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# Guess, from memory: in a metadata.jsonl for ImageFolder only `file_name` is special; a column `image` is refused or
# renamed, since the pictures are in a column of that name, and a column such as `old_file_name` is text like any other.
#
# Seen with datasets 5.2.0, pillow 12.0.0:
# - with a column `image` the data set has these texts in its column `image`, and no pictures at all, without a
#   warning;
# - a column of texts that ends in `_file_name` is taken for the names of more pictures: `old_file_name` becomes a column
#   `old` of pictures, and reading a row raises FileNotFoundError. The same for lists of texts in `..._file_names`;
# - `label` and any other name are columns of their values.
#
# No request is sent.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pillow==12.0.0
cat >"$folder/look.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()


def load(name, value):
    """Load a folder of two pictures whose metadata has one more column."""
    folder = Path(sys.argv[1], name)
    folder.mkdir()
    lines = []
    for number in range(2):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", name: value}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    found = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=f"{folder}-cache")
    features = {column: type(feature).__name__ for column, feature in found.features.items()}
    try:
        found[0]
    except FileNotFoundError as error:
        return features, f"FileNotFoundError for {Path(error.filename).name}"
    return features, "its rows can be read"


seen = {
    name: load(name, value)
    for name, value in (
        ("image", "Photo 7"),
        ("old_file_name", "bowl-7.jpg"),
        ("old_file_names", ["bowl-7.jpg", "bowl-8.jpg"]),
        ("label", "bowl"),
    )
}
for name, (features, rows) in seen.items():
    print(f"{name:<16}{features}, {rows}")
assert seen == {
    "image": ({"image": "Value"}, "its rows can be read"),
    "old_file_name": ({"image": "Image", "old": "Image"}, "FileNotFoundError for bowl-7.jpg"),
    "old_file_names": ({"image": "Image", "old": "List"}, "FileNotFoundError for bowl-7.jpg"),
    "label": ({"image": "Image", "label": "Value"}, "its rows can be read"),
}, seen
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" "$folder/look.py" "$folder"
