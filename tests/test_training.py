"""The training loop: order, schedule, accumulation, interruption."""

import io
import math
import sys

import numpy as np
import pytest
import torch
from tiny_training import MeanOfPictures, Noisy, StoppedError, make_model, run, weights
from torch.optim.optimizer import register_optimizer_step_pre_hook

from peft_mmrl import MMRLConfig
from peft_mmrl.training import Epoch, TrainingSettings, make_accelerator, train
from peft_mmrl.training.loop import SeededDataset


def test_it_learns_and_says_how():
    settings = TrainingSettings(epochs=6, learning_rate=5e-3)
    seen = []
    model, history = run(settings, on_epoch=lambda record: seen.append(dict(record)))
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]
    assert seen == history
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert not model.training


def test_it_learns_in_bf16(fresh_state):
    settings = TrainingSettings(epochs=6, learning_rate=5e-3)
    history = train(make_model(), Noisy(), settings, make_accelerator(settings, cpu=True, mixed_precision="bf16"))
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_the_learning_rate_warms_up_and_follows_a_cosine():
    settings = TrainingSettings(learning_rate=2e-3)
    rates = [settings.learning_rate_of(epoch, 5) for epoch in range(5)]
    assert rates == pytest.approx([1e-5, *(2e-3 * (1 + math.cos(math.pi * step / 5)) / 2 for step in range(4))])
    assert settings.learning_rate_of(0, 1) == 2e-3  # a single epoch has no warm-up


def test_few_pictures_get_more_epochs():
    settings = TrainingSettings()
    assert settings.num_epochs(10) == 20
    assert settings.num_epochs(1) == 50
    assert settings.num_epochs(1000) == 5
    assert TrainingSettings(epochs=3).num_epochs(1) == 3


@pytest.mark.parametrize(
    ("epoch", "steps", "said"),
    [
        (Epoch(8, 4), 2, "4 pictures a step"),
        (Epoch(10, 4), 2, "4 pictures a step; 2 of 10 pictures, others each time, are left out of an epoch"),
        (Epoch(3, 32), 1, "3 pictures a step"),
        (Epoch(3, 4, 2), 1, "3 pictures a step (shared by 2 processes)"),
        (
            Epoch(9, 4, 2),
            1,
            "8 pictures a step (shared by 2 processes); 1 of 9 pictures, others each time, are left out of an epoch",
        ),
        (Epoch(12, 2, 1, 4), 2, "8 pictures a step (4 batches of 2), the last of an epoch 4"),
        (Epoch(6, 2, 1, 4), 1, "6 pictures a step (3 batches of 2)"),
        (Epoch(3, 4, 1, 4), 1, "3 pictures a step"),
        (Epoch(8, 2, 2, 2), 1, "8 pictures a step (2 batches of 4, shared by 2 processes)"),
    ],
)
def test_what_is_said_of_an_epoch_is_what_happens(epoch, steps, said):
    assert str(epoch) == said
    assert epoch.steps == steps
    seen = sum(epoch.batch * epoch.batches_of_step(step) for step in range(steps))
    assert seen + epoch.left_out == epoch.num_pictures
    assert sum(map(epoch.own_pictures, range(epoch.num_processes))) == epoch.batch


@pytest.mark.parametrize(
    ("pictures", "batch", "accumulation"), [(10, 2, 4), (9, 2, 3), (3, 2, 4), (3, 8, 4), (8, 2, 2)]
)
def test_a_step_s_gradient_is_the_mean_over_the_pictures_it_has_seen(pictures, batch, accumulation):
    """Picture i is the i-th unit vector, so that the gradient tells which were seen, and how much each weighs."""
    settings = TrainingSettings(epochs=2, batch_size=batch, gradient_accumulation_steps=accumulation)
    gradients = []

    def record(optimizer, *_):
        gradients.append(optimizer.param_groups[0]["params"][0].grad.clone())

    hook = register_optimizer_step_pre_hook(record)
    try:
        dataset = [{"picture": row} for row in torch.eye(pictures)]
        _, history = run(settings, dataset, MeanOfPictures(pictures))
    finally:
        hook.remove()
    epoch = Epoch.of(pictures, settings, num_processes=1)
    for index, gradient in enumerate(gradients):
        seen = epoch.batch * epoch.batches_of_step(index % epoch.steps)
        assert sorted(gradient.tolist()) == pytest.approx([0] * (pictures - seen) + [1 / seen] * seen)
    assert len(gradients) == 2 * epoch.steps
    assert len(history) == 2


def test_one_picture_is_enough_for_a_step():
    before = weights(make_model())
    model, _ = run(TrainingSettings(epochs=1, batch_size=8), Noisy(1))
    assert any(not torch.equal(old, new) for old, new in zip(before, weights(model), strict=True))


def test_other_processes_of_a_machine_train_without_a_bar(monkeypatch):
    accelerator = make_accelerator(TrainingSettings(epochs=1), cpu=True)
    monkeypatch.setattr(type(accelerator), "is_local_main_process", False)
    history = train(make_model(), Noisy(30), TrainingSettings(epochs=1, batch_size=2), accelerator)
    assert [record["epoch"] for record in history] == [1]


def test_a_log_gets_a_line_per_epoch_and_no_bars(capsys):
    settings = TrainingSettings(epochs=3, batch_size=5)
    _, history = run(settings, Noisy(20), description="cats")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "cats: epoch 1 of 3, loss " + f"{history[0]['loss']:.3f}"
    assert said[1] == "cats: 12 steps, about 1 minute to go"
    assert [line.partition(",")[0] for line in said[2:]] == ["cats: epoch 2 of 3", "cats: epoch 3 of 3"]


def test_a_terminal_gets_a_bar_unless_it_is_switched_off(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def shown(description):
        monkeypatch.setattr("sys.stderr", Terminal())
        run(TrainingSettings(epochs=2, batch_size=5), Noisy(10), description=description)
        return sys.stderr.getvalue()

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert "cats: 100%" in shown("cats") and "epoch 1" not in sys.stderr.getvalue()
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert "%" not in shown("cats") and "cats: epoch 1 of 2" in sys.stderr.getvalue()


def test_accumulated_batches_equal_one_large_batch():
    """Noise depends on the picture alone, so both runs see the same."""
    large, _ = run(TrainingSettings(epochs=2, batch_size=4), Noisy(8))
    small, _ = run(TrainingSettings(epochs=2, batch_size=2, gradient_accumulation_steps=2), Noisy(8))
    for one, other in zip(weights(large), weights(small), strict=True):
        assert torch.allclose(one, other, atol=2e-4)


def test_augmentation_depends_on_seed_epoch_and_picture_alone():
    dataset = SeededDataset(Noisy(), seed=1)
    first = dataset[3]["pixel_values"]
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert torch.equal(dataset[3]["pixel_values"], first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(dataset[5]["pixel_values"], first)
    dataset.epoch = 1
    assert not torch.equal(dataset[3]["pixel_values"], first)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("stop", [("epoch", 2), ("step", 3)])
@pytest.mark.parametrize("config", [MMRLConfig(rep_dim=16), MMRLConfig.plus_plus(rep_dim=16)], ids=["mmrl", "mmrl++"])
def test_an_interrupted_run_goes_on_to_the_same_weights(config, stop, accumulation, tmp_path):
    settings = TrainingSettings(epochs=4, batch_size=2, learning_rate=5e-3, gradient_accumulation_steps=accumulation)
    whole, history = run(settings, model=make_model(config))

    model = make_model(config)
    kind, when = stop
    calls = []
    forward = model.forward

    def interrupted(**batch):
        calls.append(batch)
        if kind == "step" and len(calls) > 5 + when:  # in the second epoch
            raise StoppedError
        return forward(**batch)

    model.forward = interrupted

    def on_epoch(record):
        if kind == "epoch" and record["epoch"] > when:
            raise StoppedError

    options = {"checkpoint_dir": tmp_path / "checkpoint", "checkpointing_steps": 1}
    with pytest.raises(StoppedError):
        run(settings, model=model, on_epoch=on_epoch, **options)
    resumed, again = run(settings, model=make_model(config), resume_from=tmp_path / "checkpoint", **options)
    assert [record["loss"] for record in again] == pytest.approx([record["loss"] for record in history])
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        assert torch.equal(one, other)
    assert sum(file.stat().st_size for file in (tmp_path / "checkpoint").rglob("*")) < 2**20  # no base weights


def test_a_run_of_an_adapter_of_another_name_goes_on(tmp_path):
    def stop(record):
        if record["epoch"] == 2:
            raise StoppedError

    settings = TrainingSettings(epochs=3, batch_size=2, learning_rate=5e-3)
    whole, history = run(settings, model=make_model(adapter_name="pets"))
    options = {"checkpoint_dir": tmp_path / "checkpoint"}
    with pytest.raises(StoppedError):
        run(settings, model=make_model(adapter_name="pets"), on_epoch=stop, **options)
    resumed, again = run(
        settings, model=make_model(adapter_name="pets"), resume_from=tmp_path / "checkpoint", **options
    )
    assert again == history
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))


@pytest.mark.parametrize("left", ["checkpoint", "checkpoint.new", "checkpoint.old"])
def test_a_checkpoint_is_found_wherever_writing_the_next_was_interrupted(left, tmp_path):
    """Between two renames there is no `checkpoint`, but the new one and the old one."""
    settings = TrainingSettings(epochs=3, batch_size=2, learning_rate=5e-3)
    whole, history = run(settings)

    def stop(record):
        if record["epoch"] == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(settings, on_epoch=stop, checkpoint_dir=tmp_path / "checkpoint")
    (tmp_path / "checkpoint").rename(tmp_path / left)
    if left == "checkpoint.old":
        (tmp_path / "checkpoint.new").mkdir()  # was not yet whole
    options = {"checkpoint_dir": tmp_path / "checkpoint", "resume_from": tmp_path / "checkpoint"}
    resumed, again = run(settings, **options)
    assert again == history
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(resumed), strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_bad_checkpointing_steps_are_named(tmp_path):
    with pytest.raises(ValueError, match="`checkpointing_steps`"):
        run(TrainingSettings(epochs=1), checkpoint_dir=tmp_path, checkpointing_steps=0)


def test_a_loss_that_is_not_finite_ends_the_run():
    class Broken(Noisy):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "pixel_values": torch.full((3, 32, 32), torch.nan)}

    with pytest.raises(FloatingPointError, match="The loss is nan in step 1 of epoch 1: lower the learning rate"):
        run(TrainingSettings(epochs=1), Broken())


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(OSError, match="holds no checkpoint"):
        run(TrainingSettings(epochs=1), resume_from=tmp_path)


@pytest.mark.parametrize(
    "bad", [{"epochs": 0}, {"batch_size": 2.5}, {"learning_rate": -1}, {"crop_scale": 2}, {"learning_rate": "fast"}]
)
def test_bad_settings_are_named(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        TrainingSettings(**bad)


def test_checkpointing_steps_without_a_folder_write_nothing():
    _, history = run(TrainingSettings(epochs=1), checkpointing_steps=1)
    assert len(history) == 1


@pytest.mark.parametrize("name", ["seed", "warmup_epochs", "epochs", "batch_size", "gradient_accumulation_steps"])
@pytest.mark.parametrize("value", [1.5, 1.0, "1", True, -1])
def test_settings_that_count_are_whole_numbers(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a.* whole number"):
        TrainingSettings(**{name: value})


def test_a_seed_beyond_numpys_range_is_named():
    with pytest.raises(ValueError, match="`seed` must be a whole number from 0 to 4294967295"):
        TrainingSettings(seed=2**32)
    assert type(TrainingSettings(seed=np.int64(3)).seed) is int
