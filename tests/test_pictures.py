"""Generation and completion of pictures: the same as without caches, whatever the batch; grids; commands."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import krause_dynamics as kd
from krause_dynamics.command.app import app
from krause_dynamics.models import (
    KARM,
    KARMConfig,
    KrauseLM,
    KrauseLMConfig,
    complete_pictures,
    drawing,
    generate_pictures,
)
from krause_dynamics.runs.interrupting import Terminated
from tests.model_sizes import WORDS

SIZE = {"image_size": [4, 5], "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "levels": 7}


def tiny(**options):
    torch.manual_seed(0)
    model = KARM(KARMConfig(**SIZE, **{"window": 6, "attention_top_k": 4, **options}))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8.0)  # far from uniform
    return model.eval()


def without_caches(model, given, numbers, temperature=1.0):
    """Inversion of the distribution of the whole sequence, computed anew for every value."""
    values = given.clone()
    if values.shape[1] == 0:
        values = (numbers[:, :1] * model.config.levels).long()
    while values.shape[1] < numbers.shape[1]:
        with torch.no_grad():
            logits = model(values).logits[:, -1].double() / temperature
        share = logits.softmax(-1).cumsum(-1)
        after = (share <= numbers[:, values.shape[1], None]).sum(-1, keepdim=True)
        values = torch.cat([values, after], 1)
    return values.numpy()


@pytest.mark.parametrize(
    "options", [{}, {"num_channels": 3}, {"score": "dot", "support": "full"}, {"score": "linear", "support": "full"}]
)
def test_generation_equals_full_recomputation(options):
    model = tiny(**options)
    numbers = torch.stack([drawing.numbers_of(3, i, model.config.max_position_embeddings) for i in range(3)])
    expected = without_caches(model, torch.empty(3, 0, dtype=torch.long), numbers, 0.7)
    drawn = generate_pictures(model, 3, seed=3, temperature=0.7)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn.reshape(3, -1), expected)
    assert len(np.unique(drawn)) > 2


@pytest.mark.parametrize("rows", [None, 1, 3])
def test_completion_keeps_what_is_given_and_draws_the_rest(rows):
    model = tiny()
    given = np.random.default_rng(0).integers(0, 7, (2, 4, 5))
    drawn = complete_pictures(model, given, rows, seed=5)
    kept = 2 if rows is None else rows
    np.testing.assert_array_equal(drawn[:, :kept, :, 0], given[:, :kept])
    numbers = torch.stack([drawing.numbers_of(5, i, 20) for i in range(2)])
    expected = without_caches(model, torch.as_tensor(given[:, :kept].reshape(2, -1)), numbers)
    np.testing.assert_array_equal(drawn.reshape(2, -1), expected)


def test_a_picture_depends_on_seed_and_place_alone():
    model = tiny()
    one = generate_pictures(model, 5, seed=1)
    np.testing.assert_array_equal(generate_pictures(model, 5, seed=1, batch_size=2), one)
    np.testing.assert_array_equal(generate_pictures(model, 2, seed=1), one[:2])
    assert (generate_pictures(model, 5, seed=2) != one).any()


def test_captured_batches_fit_the_device(monkeypatch):
    """Room for 400 pictures of 2 layers, 6 keys, width 16, keys and values in float32."""
    model, picture = tiny(), 2 * 2 * 6 * 16 * 4
    for free, count, size in ((400 * picture, 1000, 100), (400 * picture, 150, 75), (1 << 40, 9000, 4500), (0, 65, 33)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        assert drawing.batch_of(model, count, captured=True) == size
    assert drawing.batch_of(model, 65, captured=False) == 33


def test_values_follow_the_distribution_of_the_model():
    """Counts of the second value given the first, against its probabilities: five standard errors."""
    model, count = tiny(), 4000
    given = np.full((count, 4, 5), 3)
    drawn = complete_pictures(model, given, 1, seed=0, batch_size=count)[:, 1, 0, 0]
    with torch.no_grad():
        share = model(torch.full((1, 5), 3)).logits[0, -1].double().softmax(-1).numpy()
    found = np.bincount(drawn, minlength=7) / count
    assert (np.abs(found - share) < 5 * np.sqrt(share * (1 - share) / count) + 1e-9).all()


def test_training_mode_and_progress():
    model, heard = tiny(dropout=0.5).train(), []
    drawn = generate_pictures(model, 3, batch_size=2, progress=lambda done, total: heard.append((done, total)))
    assert model.training
    np.testing.assert_array_equal(drawn, generate_pictures(model.eval(), 3))
    assert heard[-1] == (60, 60)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: generate_pictures(m, 0), "count must be at least 1"),
        (lambda m: generate_pictures("karm"), "model must be of type KARM"),
        (lambda m: generate_pictures(m, captured=True), "captured=True needs a CUDA device .* the model is on cpu"),
        (lambda m: generate_pictures(m, temperature=0.0), "temperature must be positive"),
        (lambda m: complete_pictures(m, np.zeros((1, 4, 5))), "pictures must be whole numbers"),
        (lambda m: complete_pictures(m, np.zeros((1, 5, 4), int)), r"pictures must have shape \(count, 4, 5, 1\)"),
        (lambda m: complete_pictures(m, np.full((1, 4, 5), 7)), "levels 0..6, got 7 to 7"),
        (lambda m: complete_pictures(m, np.zeros((1, 4, 5), int), 4), "rows must leave"),
        (lambda m: complete_pictures(m, np.zeros((0, 4, 5), int)), "at least one picture"),
    ],
)  # fmt: skip
def test_bad_input(call, match):
    with pytest.raises((TypeError, ValueError), match=match):
        call(tiny())


def test_a_grid_shows_every_pixel():
    shown = np.arange(24, dtype=np.int64).reshape(2, 3, 4) % 7
    grid = kd.plots.picture_grid(shown, columns=2, gap=2, levels=7)
    assert grid.shape == (3, 10, 3)
    np.testing.assert_array_equal(grid[:, :4, 0], np.rint(shown[0] * 42.5))
    np.testing.assert_array_equal(grid[:, 6:, 2], np.rint(shown[1] * 42.5))
    assert (grid[:, 4:6] == 192).all()
    with pytest.raises(ValueError, match="levels 0..6"):
        kd.plots.picture_grid(shown + 1, levels=7)


def test_commands(tmp_path):
    tiny().save_pretrained(tmp_path / "model")
    run = CliRunner().invoke
    made = run(
        app, ["generate", str(tmp_path / "model"), "--out", str(tmp_path / "a.png"), "--count", "3", "--seed", "4"]
    )
    assert made.exit_code == 0, made.output
    drawn = np.load(tmp_path / "a.npy")
    np.testing.assert_array_equal(drawn, generate_pictures(tiny(), 3, seed=4))
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture)[::2, ::2], kd.plots.picture_grid(drawn, levels=7))
    np.save(tmp_path / "given.npy", drawn[..., 0])
    arguments = [str(tmp_path / "model"), str(tmp_path / "given.npy"), "--out", str(tmp_path / "b.png"), "--rows", "2"]
    made = run(app, ["complete", *arguments])
    assert made.exit_code == 0, made.output
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy")[:, :2], drawn[:, :2])
    made = run(app, ["complete", str(tmp_path / "model"), str(tmp_path / "nothing.npy")])
    assert made.exit_code == 2
    assert "no such file" in made.output


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_signal_keeps_the_batches_that_are_finished(tmp_path, monkeypatch, error, status):
    tiny().save_pretrained(tmp_path / "model")
    whole, step, steps = generate_pictures(tiny(), 5, seed=4), drawing.Drawing.step, []

    def interrupted(self):
        steps.append(1)
        if len(steps) == limit:
            raise error
        step(self)

    monkeypatch.setattr(drawing.Drawing, "step", interrupted)
    command = ["generate", str(tmp_path / "model"), "--out", str(tmp_path / "a.png"), "--count", "5", "--seed", "4"]
    for limit, told in ((3, "nothing was written"), (50, "a.interrupted.png"), (50, "a.interrupted.2.png")):
        steps.clear()
        made = CliRunner().invoke(app, [*command, "--batch-size", "2"])
        assert made.exit_code == status
        assert f"interrupted; {'no batch' if limit == 3 else 'wrote'}" in made.output
        assert told in "".join(made.output.split()) or told in made.output
    # 19 steps draw a picture of 20 values: the third batch was begun.
    np.testing.assert_array_equal(np.load(tmp_path / "a.interrupted.npy"), whole[:4])
    assert sorted(path.suffix for path in tmp_path.glob("a.*")) == [".json"] * 2 + [".npy"] * 2 + [".png"] * 2
    steps.clear()
    with pytest.raises(error) as raised:
        generate_pictures(tiny(), 5, seed=4, batch_size=2)
    np.testing.assert_array_equal(raised.value.result, whole[:4])


def test_what_a_command_cannot_do_it_says_before_it_draws(tmp_path):
    """A damaged file, a model of another kind, a device that is not there, an ending: one line, exit code 2."""
    folder, pictures = tmp_path / "model", tmp_path / "given.npy"
    tiny().save_pretrained(folder)
    shutil.copytree(folder, tmp_path / "damaged")
    weights = tmp_path / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:900])
    words = KrauseLM(KrauseLMConfig(**WORDS))
    words.save_pretrained(tmp_path / "words")
    pictures.write_text("no array")
    Image.new("P", (5, 4)).save(tmp_path / "palette.gif")
    place = f"cuda:{torch.cuda.device_count()}"
    for arguments, told in (
        (["generate", "damaged"], "model.safetensors (900 bytes) is truncated or damaged"),
        (["generate", "words"], "which is a krause_lm"),
        (["generate", "model", "--device", place], f"device '{place}' cannot be used"),
        (["generate", "model", "--out", "a.jpg"], "must end in .png, got 'a.jpg'"),
        (["complete", "model", str(tmp_path / "palette.gif")], "holds places in a palette"),
        (["complete", "model", str(pictures)], "is no array of numbers of numpy"),
    ):
        command, name, *rest = arguments
        made = CliRunner().invoke(app, [command, str(tmp_path / name), *rest, "--force"])
        assert made.exit_code == 2, arguments
        assert told in " ".join(made.output.split())
    assert not list(tmp_path.glob("*.png"))
