"""Serve a bundle of the digits model, ask it about real handwritten digits, and stop: `make demo`."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from polyhead.models.zoo import digits
from polyhead.serving.client import Client

SHADES = " .:-=+*#%@"


def main(bundle: Path) -> None:
    command = [str(Path(sys.executable).with_name("polyhead")), "serve", str(bundle), "--port", "0", "--json"]
    print(f"$ polyhead serve {bundle}", flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                sys.exit(server.wait())
            ask(json.loads(line)["url"])
        finally:
            server.terminate()


def ask(url: str) -> None:
    """Six digits that the model has not seen in training, each as a PNG, every head's answer beside it."""
    held_out = digits.split(0).test
    with Client(url) as client:
        for index in range(6):
            pixels = held_out.inputs["image"][index]
            png = io.BytesIO()
            Image.fromarray(pixels[..., 0]).save(png, "PNG")
            answer = client.predict_file("digits", png.getvalue(), "image/png")
            truth = {head: held_out.targets[head][index] for head in ("digit", "ink")}
            digit, parity, ink, embedding = (answer[head] for head in ("digit", "parity", "ink", "embedding"))
            facts = [
                f"digit   {digit.label}  (score {digit.score:.3f}; really {truth['digit']})",
                f"parity  {parity.label}",
                f"ink     {ink.value:.2f} {ink.unit}s  (really {truth['ink'][0]:.2f})",
                f"embedding of {len(embedding.vector)} numbers",
            ]
            print()
            for row, line in enumerate(pixels[..., 0]):
                drawing = "".join(SHADES[int(level) * 9 // 255] * 2 for level in line)
                print(f"  {drawing}   {facts[row - 2] if 2 <= row < 6 else ''}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
