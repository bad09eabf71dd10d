"""The trained pair that the repository holds, as folders of transformers: `evidence/trained/softmax` and `.../krause`.

Digits are of half the side in 16 levels, so that a CPU trains both in minutes and completes a page of them in seconds:

    python -m evidence.pair --data DATA --halve
    python -m evidence.run pair --data DATA --out OUT
    python -m evidence.pair --data DATA --back OUT
    krause complete evidence/trained/krause evidence/trained/digits.npy
"""

from __future__ import annotations

import argparse
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics._files import write_bytes

FOLDER = Path(__file__).with_name("trained")
RUNS = {"softmax": "pair-dot.full-0", "krause": "pair-gaussian.window+top_k-0"}
DIGITS, TESTED = 16, 500


def unpack(source: Path, target: Path = FOLDER) -> None:
    """Folders of transformers from single files, whose metadata hold the configuration.

    Args:
        source: Folder of the files.
        target: Where the folders are made.
    """
    from safetensors import safe_open

    for name, run in RUNS.items():
        path = source / f"{run.replace('+', '_')}.safetensors"
        with safe_open(path, "pt") as opened:
            configuration = json.loads(opened.metadata()["config"])
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / "model.safetensors", path.read_bytes())
        write_bytes(folder / "config.json", (json.dumps(configuration, indent=1) + "\n").encode())


def load(name: str, folder: Path = FOLDER) -> Any:
    """A model of the pair, ``"softmax"`` or ``"krause"``, in float32."""
    from krause_dynamics.models import KARM

    return KARM.from_pretrained(folder / name, dtype="float32").eval()


def digits(folder: Path = FOLDER) -> np.ndarray:
    """Digits of the test part, (16, 14, 14) levels."""
    return np.load(folder / "digits.npy", allow_pickle=False)


def halve(data: Path, target: Path) -> None:
    """MNIST at 14 x 14 in 16 levels as idx files: means of 2 x 2 pixels; all training digits, 500 of the test part."""
    whole = mnist(data)
    target.mkdir(parents=True, exist_ok=True)
    for part, (pixels, labels) in whole.items():
        mean = pixels.reshape(-1, 14, 2, 14, 2).mean((2, 4))
        levels = np.minimum(mean // 16, 15).astype(np.uint8)
        head = b"\0\0\x08\x03" + struct.pack(">III", *levels.shape)
        write_bytes(target / f"{part}-images-idx3-ubyte", head + levels.tobytes())
        head = b"\0\0\x08\x01" + struct.pack(">I", len(labels))
        write_bytes(target / f"{part}-labels-idx1-ubyte", head + labels.astype(np.uint8).tobytes())


def mnist(data: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels (n, 28, 28) and classes of the training and of 500 test digits, from ``mnist.pkl.gz``."""
    from krause_dynamics.training import TrainingConfiguration
    from krause_dynamics.training.split import found_in

    chosen = TrainingConfiguration.read({"model": {"kind": "karm"}, "data": {"format": "pickle", "path": str(data)}})
    found: Any = found_in(chosen.data)
    train = [
        np.concatenate([getattr(x, name) for x in (found.train, found.validation)]) for name in ("pixels", "labels")
    ]
    return {
        "train": (train[0][:, 0], train[1]),
        "t10k": (found.test.pixels[:TESTED, 0], found.test.labels[:TESTED]),
    }


def keep_digits(data: Path, target: Path = FOLDER) -> None:
    """The first test digits, of the halved files."""
    from krause_dynamics.training import TrainingConfiguration
    from krause_dynamics.training.split import found_in

    chosen = TrainingConfiguration.read({"model": {"kind": "karm"}, "data": {"format": "idx", "path": str(data)}})
    test: Any = found_in(chosen.data).test
    raw = io.BytesIO()
    np.save(raw, test.pixels[:DIGITS, 0], allow_pickle=False)
    target.mkdir(parents=True, exist_ok=True)
    write_bytes(target / "digits.npy", raw.getvalue())


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m evidence.pair", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds mnist; mnist-14 is made beside it")
    parser.add_argument("--halve", action="store_true", help="make mnist-14")
    parser.add_argument("--back", type=Path, help="folder of the kept weights")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    if options.halve:
        halve(options.data / "mnist", options.data / "mnist-14")
    if options.back:
        unpack(options.back, options.out)
        keep_digits(options.data / "mnist-14", options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
