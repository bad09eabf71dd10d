"""The trained pair that the repository holds, as folders of transformers: `evidence/trained/softmax` and `.../krause`.

``python -m evidence.pair BACK --data DATA`` makes them from the weights that `evidence.run pair` brought back, with
sixteen digits of the test part beside them. Then:

    krause complete evidence/trained/krause evidence/trained/digits.npy
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics._files import write_bytes

FOLDER = Path(__file__).with_name("trained")
RUNS = {"softmax": "pair-dot.full-0", "krause": "pair-gaussian.window+top_k-0"}
DIGITS = 16


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
    """Digits of the test part, (16, 28, 28) levels."""
    return np.load(folder / "digits.npy", allow_pickle=False)


def keep_digits(data: Path, target: Path = FOLDER) -> None:
    """The first test digits of MNIST."""
    from krause_dynamics.training import TrainingConfiguration
    from krause_dynamics.training.split import found_in

    chosen = TrainingConfiguration.read({"model": {"kind": "karm"}, "data": {"format": "pickle", "path": str(data)}})
    test: Any = found_in(chosen.data).test
    raw = io.BytesIO()
    np.save(raw, test.pixels[:DIGITS, 0], allow_pickle=False)
    target.mkdir(parents=True, exist_ok=True)
    write_bytes(target / "digits.npy", raw.getvalue())


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m evidence.pair", description=__doc__)
    parser.add_argument("back", type=Path, help="folder of the kept weights")
    parser.add_argument("--data", type=Path, help="folder that holds mnist")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    unpack(options.back, options.out)
    if options.data:
        keep_digits(options.data / "mnist", options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
