"""transformers' Trainer, as it is."""

import copy

import numpy as np
import pytest
import torch
from accelerate import PartialState
from conftest import WordTokenizer, in_two_processes, make_clip, scramble
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from transformers import Trainer, TrainerCallback, TrainingArguments

from peft_mmrl import FitDecisionCallback, MMRLConfig


class Images(torch.utils.data.Dataset):
    def __init__(self, count, column):
        generator = torch.Generator().manual_seed(count)
        self.images = torch.randn(count, 3, 32, 32, generator=generator)
        self.column = column

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"pixel_values": self.images[index], self.column: index % 2}


def accuracy(prediction):
    assert isinstance(prediction.predictions, np.ndarray)
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def arguments(folder, **changes):
    kwargs = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
    }
    return TrainingArguments(**{**kwargs, **changes})


def model_with_classes(tokenizer, adapter_name="default", **config):
    torch.manual_seed(0)
    model = get_peft_model(make_clip(), MMRLConfig(rep_dim=16, **config), adapter_name=adapter_name)
    model.set_classes(["cat", "dog"], tokenizer)
    return model


@pytest.mark.parametrize("column", ["label", "labels"])
def test_trains_evaluates_and_finds_the_best_model(column, tokenizer, tmp_path):
    model = model_with_classes(tokenizer)
    before = copy.deepcopy(model.state_dict())
    args = arguments(
        tmp_path,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
    )
    evaluation = Images(7, column)
    trainer = Trainer(model, args, None, Images(8, column), evaluation, compute_metrics=accuracy)
    trainer.train()
    metrics = trainer.evaluate()
    assert {"eval_loss", "eval_accuracy"} <= metrics.keys()
    prediction = trainer.predict(evaluation)
    assert prediction.predictions.shape == (7, 2)
    model.eval()
    with torch.no_grad():
        logits = model(pixel_values=evaluation.images).logits
    assert np.allclose(prediction.predictions, logits.numpy(), atol=1e-4)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed
    assert all("mmrl_" in name for name in changed)
    best = PeftModel.from_pretrained(make_clip(), trainer.state.best_model_checkpoint)
    with torch.no_grad():
        assert torch.allclose(best(pixel_values=evaluation.images).logits, logits, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"label_smoothing": 0.1, "class_weight": [0.2, 3.0]}])
def test_gradient_accumulation_equals_one_large_batch(changes, tokenizer, tmp_path):
    weights = []
    for batch, steps in ((8, 1), (4, 2)):
        args = arguments(
            tmp_path / str(batch),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            num_train_epochs=1,
            optim="sgd",
            learning_rate=1.0,
            max_grad_norm=0.0,
        )
        model = model_with_classes(tokenizer, **changes)
        start = [parameter.detach().clone() for parameter in model.parameters() if parameter.requires_grad]
        Trainer(model, args, train_dataset=Images(8, "labels")).train()
        end = [parameter for parameter in model.parameters() if parameter.requires_grad]
        weights.append([(b - a).detach() for a, b in zip(start, end, strict=True)])
    for large, small in zip(*weights, strict=True):
        assert torch.allclose(large, small, rtol=1e-4, atol=1e-6)
        assert large.abs().max() > 0


@pytest.mark.parametrize("name", ["default", "shop"])
def test_resume_goes_on_where_it_stopped(name, tokenizer, tmp_path):
    data = Images(8, "labels")
    whole = model_with_classes(tokenizer, name)
    Trainer(whole, arguments(tmp_path, save_strategy="epoch"), train_dataset=data).train()
    checkpoint = sorted(tmp_path.glob("checkpoint-*"))[0]
    resumed = model_with_classes(tokenizer, name)
    Trainer(resumed, arguments(tmp_path, save_strategy="epoch"), train_dataset=data).train(str(checkpoint))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert {key for key, weight in resumed.named_parameters() if weight.requires_grad} == {
        key for key, _ in resumed.named_parameters() if "mmrl_" in key
    }
    assert resumed.peft_config[name].classes == ["cat", "dog"]


def test_the_best_weights_come_back(tokenizer, tmp_path):
    """The second epoch is made worse than the first; as with LoRA the adapter must be the one named "default"."""

    class Spoil(TrainerCallback):
        def on_epoch_begin(self, args, state, control, model, **kwargs):
            if state.epoch:
                scramble(model)

    seen = []

    def worse_each_time(prediction):
        seen.append(prediction.predictions)
        return {"rank": -len(seen)}

    model = model_with_classes(tokenizer)
    args = arguments(
        tmp_path,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="rank",
        greater_is_better=True,
    )
    evaluation = Images(7, "labels")
    trainer = Trainer(
        model, args, None, Images(8, "labels"), evaluation, compute_metrics=worse_each_time, callbacks=[Spoil()]
    )
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
    best, last = seen
    assert not np.allclose(best, last, atol=1e-3)
    assert np.allclose(trainer.predict(evaluation).predictions, best, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {"torch_compile": True, "torch_compile_backend": "eager"},
        {"dataloader_num_workers": 1},
    ],
    ids=["checkpointing", "reentrant", "not reentrant", "compiled", "worker"],
)
def test_settings_that_change_no_numbers(settings, plain_run, tokenizer, tmp_path):
    """Pages "Methods and tools for efficient training" and "Trainer" of transformers."""
    model = model_with_classes(tokenizer)
    Trainer(model, arguments(tmp_path, **settings), train_dataset=Images(8, "labels")).train()
    assert plain_run.keys() == get_peft_model_state_dict(model).keys()
    for name, weight in get_peft_model_state_dict(model).items():
        assert torch.allclose(weight, plain_run[name], atol=1e-5), name


def test_bf16_training_stays_close(plain_run, tokenizer, tmp_path):
    model = model_with_classes(tokenizer)
    Trainer(model, arguments(tmp_path, bf16=True), train_dataset=Images(8, "labels")).train()
    weights = get_peft_model_state_dict(model)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    start = get_peft_model_state_dict(model_with_classes(tokenizer))
    steps, expected = (
        torch.cat([(end[name] - start[name]).flatten() for name in start]) for end in (weights, plain_run)
    )
    assert torch.cosine_similarity(steps, expected, dim=0) > 0.9


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """Adapter weights after training with Trainer's defaults."""
    model = model_with_classes(WordTokenizer())
    Trainer(model, arguments(tmp_path_factory.mktemp("plain")), train_dataset=Images(8, "labels")).train()
    return get_peft_model_state_dict(model)


def test_class_features_are_not_gathered(tokenizer, tmp_path):
    """Of the output Trainer collects the logits alone: other fields have a row per class, not per picture."""
    model = model_with_classes(tokenizer)
    predicted = []
    trainer = Trainer(
        model,
        arguments(tmp_path),
        preprocess_logits_for_metrics=lambda logits, labels: predicted.append(logits) or logits,
    )
    trainer.predict(Images(7, "labels"))
    assert [tuple(logits.shape) for logits in predicted] == [(4, 2), (3, 2)]


def test_num_items_in_batch_scales_the_whole_loss(tokenizer, images):
    model = scramble(model_with_classes(tokenizer))
    labels = torch.tensor([0, 1, 1, 0])
    whole = model(pixel_values=images, labels=labels).loss
    halves = [
        model(pixel_values=images[part], labels=labels[part], num_items_in_batch=torch.tensor(4)).loss
        for part in (slice(0, 2), slice(2, 4))
    ]
    assert torch.allclose(sum(halves), whole, rtol=5e-6)


def cross_entropy_of_logits(outputs, labels, num_items_in_batch=None):
    return torch.nn.functional.cross_entropy(outputs["logits"], labels)


class OwnLossTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = cross_entropy_of_logits(outputs, labels)
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize(
    ("trainer_cls", "settings", "kwargs"),
    [
        (Trainer, {"label_smoothing_factor": 0.1}, {}),
        (Trainer, {}, {"compute_loss_func": cross_entropy_of_logits}),
        (OwnLossTrainer, {}, {}),
    ],
    ids=["label_smoothing_factor", "compute_loss_func", "compute_loss"],
)
def test_the_first_step_says_that_trainers_loss_is_in_use(trainer_cls, settings, kwargs, tokenizer, tmp_path, recwarn):
    model = model_with_classes(tokenizer)
    args = arguments(tmp_path, **settings, eval_strategy="epoch")
    trainer_cls(model, args, None, Images(8, "labels"), Images(4, "labels"), **kwargs).train()
    said = [str(warning.message) for warning in recwarn if "MMRL's loss" in str(warning.message)]
    assert len(said) == 1
    assert "`label_smoothing` or `class_weight` of `MMRLConfig`" in said[0]


def test_smoothing_of_the_method_keeps_the_regularisation(tokenizer, tmp_path, recwarn):
    weights = []
    for changes in ({"reg_weight": 0.0}, {"reg_weight": 50.0}, {"reg_weight": 50.0, "label_smoothing": 0.0}):
        model = model_with_classes(tokenizer, **{"label_smoothing": 0.1, **changes})
        Trainer(model, arguments(tmp_path), train_dataset=Images(8, "labels")).train()
        weights.append(torch.cat([w.flatten() for w in get_peft_model_state_dict(model).values()]))
    assert not torch.allclose(weights[0], weights[1], atol=1e-3)
    assert not torch.allclose(weights[1], weights[2], atol=1e-3)
    assert not [warning for warning in recwarn if "MMRL's loss" in str(warning.message)]


def test_the_adapted_base_names_labels_and_refuses_them(clip, images):
    plain = type(clip)
    model = get_peft_model(clip, MMRLConfig(rep_dim=16))
    ids = torch.tensor([[98, 1, 99]])
    with pytest.raises(ValueError, match="`labels`.*CLIPModel computes no loss"):
        clip(input_ids=ids, pixel_values=images, labels=torch.zeros(4, dtype=torch.long))
    assert isinstance(clip, plain)
    assert (type(clip).__name__, type(clip).__module__) == (plain.__name__, plain.__module__)
    assert type(model.unload()) is plain


# --- a decision at the end of training ---------------------------------------------------------------------------


def logits_of(model, images):
    with torch.no_grad():
        return model.eval()(pixel_values=images).logits


@pytest.mark.parametrize("column", ["label", "labels"])
def test_the_callback_fits_a_decision_on_the_plain_pictures(column, tokenizer, tmp_path):
    plain, other = Images(9, column), Images(8, "labels")
    model = model_with_classes(tokenizer)
    callback = FitDecisionCallback(plain, features="frozen")
    trainer = Trainer(model, arguments(tmp_path), train_dataset=other, callbacks=[callback])
    trainer.train()
    assert model.training and model.decision.features == "frozen"
    expected = model_with_classes(tokenizer).fit_decision(plain.images, torch.arange(9) % 2)
    assert torch.allclose(model.decision.prototypes, expected.prototypes, atol=1e-6)
    trainer.save_model()
    again = PeftModel.from_pretrained(make_clip(), tmp_path)
    assert torch.equal(logits_of(again, plain.images), logits_of(model, plain.images))


def test_the_callback_takes_a_loader_too(tokenizer, tmp_path):
    plain = Images(9, "labels")
    model = model_with_classes(tokenizer)
    callback = FitDecisionCallback(torch.utils.data.DataLoader(plain, 4))
    Trainer(model, arguments(tmp_path), train_dataset=plain, callbacks=[callback]).train()
    expected = model_with_classes(tokenizer).fit_decision(plain.images, torch.arange(9) % 2)
    assert torch.allclose(model.decision.prototypes, expected.prototypes, atol=1e-6)


def test_the_callback_changes_no_trained_weight(plain_run, tokenizer, tmp_path):
    model = model_with_classes(tokenizer)
    plain = Images(8, "labels")
    Trainer(model, arguments(tmp_path), train_dataset=plain, callbacks=[FitDecisionCallback(plain)]).train()
    weights = get_peft_model_state_dict(model)
    assert all(torch.equal(weights[name], plain_run[name]) for name in weights)


def test_the_best_model_has_the_decision(tokenizer, tmp_path):
    """Trainer loads the best checkpoint in place, which has none: the callback comes after that."""
    model = model_with_classes(tokenizer)
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss"}
    args = arguments(tmp_path, eval_strategy="epoch", save_strategy="epoch", **best)
    plain = Images(8, "labels")
    trainer = Trainer(model, args, None, plain, Images(7, "labels"), callbacks=[FitDecisionCallback(plain)])
    trainer.train()
    assert trainer.state.best_model_checkpoint is not None
    assert PeftModel.from_pretrained(make_clip(), trainer.state.best_model_checkpoint).decision is None
    trainer.save_model(tmp_path / "best")
    assert PeftModel.from_pretrained(make_clip(), tmp_path / "best").decision is not None


def test_the_callback_refuses_other_models_and_passes(tokenizer, tmp_path):
    with pytest.raises(ValueError, match='`features` must be "adapted" or "frozen"'):
        FitDecisionCallback(Images(8, "labels"), features="both")
    plain = Images(8, "labels")
    trainer = Trainer(torch.nn.Linear(1, 1), arguments(tmp_path), train_dataset=plain)
    trainer.add_callback(FitDecisionCallback(plain))
    with pytest.raises(TypeError, match="`FitDecisionCallback` is for a CLIP with an MMRL adapter.*Linear"):
        trainer.train()


def train_in_each_process(folder):
    torch.set_num_threads(1)
    model = model_with_classes(WordTokenizer())
    args = arguments(folder, per_device_train_batch_size=2, per_device_eval_batch_size=2, num_train_epochs=1)
    callbacks = [FitDecisionCallback(Images(9, "labels"))]
    Trainer(model, args, train_dataset=Images(8, "labels"), callbacks=callbacks).train()
    torch.save(model.decision.state()[0], folder / f"{PartialState().process_index}.pt")


def test_two_processes_fit_the_decision_of_one(tokenizer, tmp_path):
    in_two_processes(train_in_each_process, tmp_path)
    expected = model_with_classes(tokenizer).fit_decision(Images(9, "labels").images, torch.arange(9) % 2)
    one, other = (torch.load(tmp_path / f"{index}.pt") for index in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.allclose(one["prototypes"], expected.prototypes, atol=1e-6)
