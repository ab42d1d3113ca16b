"""Two CPU processes (gloo), as `accelerate launch` starts them."""

import io
import os
import time

import PIL.Image
import PIL.ImageOps
import pytest
import torch
from accelerate import accelerator as accelerator_module
from accelerate import checkpointing
from conftest import DEMO_CLIP, in_two_processes
from tiny_training import MeanOfPictures, Noisy, StoppedError, make_model, run, weights
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

import peft_mmrl
from peft_mmrl import MMRLConfig
from peft_mmrl.commands import evaluate, monitor, predict
from peft_mmrl.training import TrainingSettings, make_accelerator, train


CONFIGS = {"mmrl": MMRLConfig(rep_dim=16), "mmrl++": MMRLConfig.plus_plus(rep_dim=16)}


def train_in_each_process(method, settings, folder):
    """Train with another adapter beside the active one, and save every process's weights."""
    torch.set_num_threads(1)
    accelerator = make_accelerator(settings, cpu=True)
    model = make_model(CONFIGS[method])
    model.add_adapter("other", MMRLConfig(rep_dim=16))
    train(model, Noisy(9), settings, accelerator, checkpoint_dir=folder / "checkpoint")
    torch.save(weights(model), folder / f"{accelerator.process_index}.pt")


@pytest.mark.parametrize("method", CONFIGS)
def test_two_processes_train_to_the_weights_of_one_with_the_same_global_batch(method, tmp_path):
    """fp32; gradients are averaged in another order, which AdamW turns into differences of up to 1e-4."""
    settings = {"epochs": 3, "learning_rate": 2e-3, "gradient_accumulation_steps": 2}
    in_two_processes(train_in_each_process, method, TrainingSettings(batch_size=1, **settings), tmp_path)
    one, other = (torch.load(tmp_path / f"{index}.pt") for index in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    alone, _ = run(TrainingSettings(batch_size=2, **settings), Noisy(9), make_model(CONFIGS[method]))
    before = weights(make_model(CONFIGS[method]))
    for start, found, expected in zip(before, one, weights(alone), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)
        assert not torch.allclose(start, expected, atol=1e-3)


def record_gradients(pictures, settings, folder):
    """Train on unit vectors and save the gradient of each step."""
    gradients = []
    register_optimizer_step_pre_hook(
        lambda optimizer, *_: gradients.append(optimizer.param_groups[0]["params"][0].grad.clone())
    )
    accelerator, dataset = make_accelerator(settings, cpu=True), [{"picture": row} for row in torch.eye(pictures)]
    train(MeanOfPictures(pictures), dataset, settings, accelerator)
    torch.save(gradients, folder / f"{accelerator.process_index}.pt")


@pytest.mark.parametrize(
    ("pictures", "batch", "seen"),
    [(14, 2, [8, 4]), (3, 4, [3]), (5, 4, [5]), (1, 2, [1])],
    ids=["a short last step", "fewer than one batch", "more than one batch, less than two", "a single one"],
)
def test_pictures_weigh_alike_over_two_processes_whatever_they_are_divided_into(pictures, batch, seen, tmp_path):
    settings = TrainingSettings(epochs=1, batch_size=batch, gradient_accumulation_steps=2)
    in_two_processes(record_gradients, pictures, settings, tmp_path)
    for index in range(2):
        gradients = torch.load(tmp_path / f"{index}.pt")
        assert len(gradients) == len(seen)
        for gradient, count in zip(gradients, seen, strict=True):
            expected = [0] * (pictures - count) + [1 / count] * count
            assert sorted(gradient.tolist()) == pytest.approx(expected)


def stop_and_go_on(settings, folder):
    """Train with an interruption in the second epoch, then go on from its last checkpoint; one process is slow."""
    torch.set_num_threads(1)
    save = checkpointing.save_accelerator_state

    def slow(*arguments, **kwargs):
        time.sleep(0.2 * int(os.environ["RANK"]))
        return save(*arguments, **kwargs)

    accelerator_module.save_accelerator_state = slow
    options = {"checkpoint_dir": folder / "checkpoint", "checkpointing_steps": 2}

    def stop(record):
        if record["epoch"] == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(make_model(), Noisy(9), settings, make_accelerator(settings, cpu=True), on_epoch=stop, **options)
    model, accelerator = make_model(), make_accelerator(settings, cpu=True)
    history = train(model, Noisy(9), settings, accelerator, resume_from=folder / "checkpoint", **options)
    losses = [record["loss"] for record in history]
    torch.save((losses, weights(model)), folder / f"{accelerator.process_index}.pt")


def test_an_interrupted_run_of_two_processes_goes_on_to_the_same_weights(tmp_path):
    settings = {"epochs": 3, "learning_rate": 2e-3}
    in_two_processes(stop_and_go_on, TrainingSettings(batch_size=1, **settings), tmp_path)
    (losses, one), (_, other) = (torch.load(tmp_path / f"{index}.pt") for index in range(2))
    alone, history = run(TrainingSettings(batch_size=2, **settings), Noisy(9))
    assert losses == pytest.approx([record["loss"] for record in history], abs=1e-4)
    for found, same, expected in zip(one, other, weights(alone), strict=True):
        assert torch.equal(found, same)
        assert torch.allclose(found, expected, atol=1e-4)


def in_use(adapter, pictures, folder):
    """What there is to do with an adapter after its training; the last exit code is that of `monitor`."""
    torch.set_num_threads(1)
    given = [str(adapter), str(pictures)]
    predict.main(predict.parse_args([*given, "--explain", str(folder / "why"), "--batch_size", "4"]), io.StringIO())
    evaluate.main(evaluate.parse_args([*given, "--corruptions", "--output_dir", str(folder / "evaluation")]))
    monitoring = ["--output_dir", str(folder / "monitoring"), "--order", "name"]
    try:
        monitor.main(monitor.parse_args([*given, *monitoring]))
    except SystemExit as stopped:
        assert stopped.code == monitor.ALARM
        (folder / f"alarm of {os.getpid()}").touch()


def test_what_follows_training_says_the_same_in_two_processes(tmp_path, digit_folders):
    photos = tmp_path / "photos"
    for path in sorted(digit_folders.rglob("*.png")):
        place = photos / path.parent.name / f"{path.parent.parent.name} {path.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    peft_mmrl.fit(photos, output_dir=tmp_path / "adapter", base_model=str(DEMO_CLIP), quick=True, folds=0)
    pictures = tmp_path / "inverted"
    for path in sorted(photos.rglob("*.png")):
        place = pictures / path.relative_to(photos)
        place.parent.mkdir(parents=True, exist_ok=True)
        PIL.ImageOps.invert(PIL.Image.open(path).convert("L")).save(place)
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    in_use(tmp_path / "adapter", pictures, tmp_path / "alone")
    in_two_processes(in_use, tmp_path / "adapter", pictures, tmp_path / "together")
    for name in ("why/explain.jsonl", "evaluation/metrics.json", "monitoring/monitor.json"):
        alone, together = ((tmp_path / place / name).read_text() for place in ("alone", "together"))
        assert alone == together, name
    assert [len(list((tmp_path / name).glob("alarm of *"))) for name in ("alone", "together")] == [1, 2]


def shard_and_compare(method, folder):
    """Loss and gradients of a model sharded by FSDP2 (layers and the rest), beside those of a whole one."""
    torch.set_num_threads(1)
    make_accelerator(TrainingSettings(), cpu=True)  # sets up the processes
    mesh = init_device_mesh("cpu", (2,))
    whole, sharded = make_model(CONFIGS[method]), make_model(CONFIGS[method])
    for module in sharded.modules():
        if isinstance(module, CLIPEncoderLayer):
            fully_shard(module, mesh=mesh)
    clip = sharded.get_base_model()
    fully_shard(sharded, mesh=mesh, ignored_params={clip.logit_scale})  # FSDP2 takes no scalars
    torch.manual_seed(0)
    batch = {"pixel_values": torch.randn(4, 3, 32, 32), "labels": torch.tensor([0, 1, 1, 0])}
    for model in (whole, sharded):
        model(**batch).loss.backward()
    pairs = zip(whole.parameters(), sharded.parameters(), strict=True)
    differences = [
        (one.grad - other.grad.full_tensor()).abs().max().item() for one, other in pairs if one.requires_grad
    ]
    torch.save(differences, folder / f"{os.environ['RANK']}.pt")


@pytest.mark.parametrize("method", CONFIGS)
def test_a_model_sharded_by_fsdp2_has_the_same_gradients(method, tmp_path):
    in_two_processes(shard_and_compare, method, tmp_path)
    differences = torch.load(tmp_path / "0.pt")
    assert len(differences) >= 5
    assert max(differences) < 1e-5
