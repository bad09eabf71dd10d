"""What is read off and kept of the weights of a run."""

from __future__ import annotations

from pathlib import Path


def sigmas(path: Path) -> list[float]:
    """Learned bandwidths, mean over heads, by layer."""
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        names = [name for name in opened.keys() if ".log_sigma." in name]  # noqa: SIM118  # no mapping
        names.sort(key=lambda name: [int(part) for part in name.split(".") if part.isdigit()])
        return [round(float(opened.get_tensor(name).exp().mean()), 4) for name in names]


def keep_weights(folder: Path, target: Path) -> None:
    """A model as one file in bfloat16 (numbers of a score and norms as they are), its configuration in the metadata."""
    import torch
    from safetensors.torch import load_file, save

    from krause_dynamics._files import write_bytes

    tensors = load_file(folder / "model.safetensors")
    halved = {name: x.to(torch.bfloat16) if x.ndim >= 2 and x.is_floating_point() else x for name, x in tensors.items()}
    about = {"format": "pt", "config": (folder / "config.json").read_text(encoding="utf-8")}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, save(halved, about))
