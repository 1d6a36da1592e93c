# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Measure what a copy of a picture costs: ``python -m benchmarks.copies``. A minute on two cores.

The picture is drawn so that it compresses like a photograph: overlapping shaded discs of many sizes, a texture,
and the noise of a sensor. Each way runs in a process of its own; CPU is the median of several conversions, memory
the peak of the first one beyond what the process had before, with all libraries loaded.
"""

from __future__ import annotations

import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from pictory_provider.media.copies import check_copies
from pictory_provider.media.xmp import TRAINED
from pictory_provider.storage.copies import convert

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = (1344, 768)
RUNS = 9
WIDTHS = (1200, 640, 320)
FORMATS = ("webp", "jpeg", "avif", "png")
DECODE, SAVE = "decode", "download and save"
WAYS: dict[str, list[dict[str, Any]]] = {
    DECODE: [],
    SAVE: [],
    **{f"{name} {width}": [{"format": name, "width": width}] for name in FORMATS for width in WIDTHS},
    "webp 1200, 640, 320": [{"format": "webp", "width": width} for width in WIDTHS],
}
SERVER = """
import http.server, sys
class Picture(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    content = open(sys.argv[1], "rb").read()
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Picture)
print(server.server_port, flush=True)
server.serve_forever()
"""


def photograph(seed: int = 1) -> bytes:
    """Return a PNG of some 1.5 MB, always the same."""
    chance = random.Random(seed)
    width, height = SIZE
    picture = Image.new("RGB", SIZE, (120, 130, 140))
    light = Image.linear_gradient("L").resize(SIZE)
    for _ in range(3_000):
        radius = round(min(160.0, 4 * chance.paretovariate(1.2)))
        left, top = chance.randrange(-radius, width), chance.randrange(-radius, height)
        mask = Image.new("L", (2 * radius, 2 * radius))
        ImageDraw.Draw(mask).ellipse((0, 0, 2 * radius - 1, 2 * radius - 1), 255)
        disc = Image.radial_gradient("L").resize(mask.size).point(lambda value: 255 - value // 3)
        colour = Image.new("RGB", mask.size, tuple(chance.randrange(40, 230) for _ in range(3)))
        picture.paste(ImageChops.multiply(colour, Image.merge("RGB", [disc] * 3)), (left, top), mask)
    texture = Image.merge("RGB", [_noise(chance).filter(ImageFilter.GaussianBlur(3))] * 3)
    picture = Image.blend(picture, texture, 0.07).filter(ImageFilter.GaussianBlur(0.9))
    picture = Image.blend(picture, Image.merge("RGB", [light] * 3), 0.1)
    grain = Image.merge("RGB", [_noise(chance).point(lambda value: 128 + (value - 128) // 40) for _ in range(3)])
    file = io.BytesIO()
    ImageChops.add(picture, grain, offset=-128).save(file, "PNG")
    return file.getvalue()


def _noise(chance: random.Random) -> Image.Image:
    return Image.frombytes("L", SIZE, chance.randbytes(SIZE[0] * SIZE[1]))


def peak(reset: bool = False) -> int:
    """Return the process's memory, or the most since the last reset, in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measured(run: Callable[[], int]) -> dict[str, float]:
    """Return CPU in seconds and memory in bytes of a call, and the bytes that it has made."""
    before = peak(reset=True)
    made = run()
    memory = peak() - before
    times = []
    for _ in range(RUNS):
        begun = time.process_time()
        run()
        times.append(time.process_time() - begun)
    return {"cpu": statistics.median(times), "memory": memory, "bytes": made}


def measure(way: str, picture: Path, url: str) -> dict[str, float]:
    """Measure one way in this process."""
    data = picture.read_bytes()
    if way == SAVE:
        from pictory_provider.hooks.pictory import PictoryHook

        hook, target = PictoryHook(), str(picture.with_name("saved.png"))

        def save() -> int:
            Path(target).unlink(missing_ok=True)
            return hook.download_image(target, url=url)["size"]

        save()
        return measured(save)
    if way == DECODE:

        def decode() -> int:
            Image.open(io.BytesIO(data), formats=("PNG",)).load()
            return 0

        return measured(decode)
    specs = check_copies(WAYS[way])
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "PNG")
    convert(small.getvalue(), specs, source_type=TRAINED)
    return measured(lambda: sum(len(made.data) for made in convert(data, specs, source_type=TRAINED)))


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.png")
        picture.write_bytes(photograph())
        size = picture.stat().st_size
        print(f"\nCopies of a PNG of {SIZE[0]}x{SIZE[1]} pixels and {size:,} bytes; the median of {RUNS}")
        print(f"{'':<22}{'CPU':>10}{'/ decode':>10}{'/ save':>8}{'peak':>12}{'bytes':>11}{'of the PNG':>12}")
        env = {**os.environ, "AIRFLOW_CONN_PICTORY_DEFAULT": json.dumps({"conn_type": "pictory", "password": "x"})}
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(picture)], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/picture.png"
            seen: dict[str, dict[str, float]] = {}
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.copies", way, str(picture), url]
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
                cost = seen[way] = json.loads(done.stdout.splitlines()[-1])
                ratios = [f"{cost['cpu'] / seen[of]['cpu']:.1f}" if of in seen else "" for of in (DECODE, SAVE)]
                print(
                    f"{way:<22}{cost['cpu'] * 1000:>7.0f} ms{ratios[0]:>10}{ratios[1]:>8}"
                    f"{cost['memory'] / 2**20:>8.1f} MiB"
                    + (f"{cost['bytes']:>11,.0f}{cost['bytes'] / size:>12.1%}" if cost["bytes"] else ""),
                    flush=True,
                )
        finally:
            server.kill()
            server.communicate()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), sys.argv[3])))
    else:
        main()
