"""One model in several threads: every answer is of one state."""

import threading

import pytest
import torch
from conftest import IDS, WordTokenizer, make_clip, scramble
from peft import get_peft_model

from peft_mmrl import MMRLConfig
from peft_mmrl.tuner import peft_model


ONE, OTHER = ["cat", "dog"], ["owl", "big cat", "bat"]


@pytest.fixture
def tokenizer():
    return WordTokenizer()


@pytest.fixture
def model(tokenizer):
    model = scramble(get_peft_model(make_clip(), MMRLConfig(rep_dim=16)))
    model.set_classes(ONE, tokenizer)
    model.add_adapter("second", MMRLConfig.plus_plus(rep_dim=8, num_rep_tokens=2, text_layers=[0, 2]))
    model.set_adapter("second")
    scramble(model, 5, "second")
    model.set_classes(OTHER, tokenizer)
    model.set_adapter("default")
    return model.eval()


def answers_while(model, change, call, count=60):
    """Logits of `count` calls while another thread makes changes; an error of either thread is raised."""
    stop, errors = threading.Event(), []

    def keep_changing():
        try:
            while not stop.is_set():
                change()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=keep_changing)
    thread.start()
    try:
        with torch.no_grad():
            answers = [call() for _ in range(count)]
    finally:
        stop.set()
        thread.join()
    assert not errors
    return answers


def is_one_of(answer, states):
    return any(answer.shape == state.shape and torch.allclose(answer, state, atol=1e-5) for state in states)


@pytest.mark.parametrize("prompts", [{}, {"input_ids": IDS}], ids=["bound", "explicit"])
def test_disabling_in_another_thread(model, images, prompts):
    def call():
        return model(pixel_values=images, **prompts).logits

    with torch.no_grad():
        adapted = call()
        with model.disable_adapter():
            frozen = call()

    def change():
        with model.disable_adapter():
            pass

    assert not torch.allclose(adapted, frozen, atol=1e-3)
    assert all(is_one_of(answer, (adapted, frozen)) for answer in answers_while(model, change, call))


def test_other_classes_and_adapters_in_another_thread(model, images, tokenizer):
    def call():
        return model(pixel_values=images).logits

    def states():
        for names in (ONE, OTHER[:1], OTHER):
            model.set_classes(names, tokenizer)
            yield
        for adapter in ("second", "default"):
            model.set_adapter(adapter)
            yield

    with torch.no_grad():
        expected = [call() for _ in states()]
    answers = answers_while(model, lambda: list(states()), call)
    assert all(is_one_of(answer, expected) for answer in answers)


class ChangedInBetween:
    """Does something else to the model once a pass has begun, as another thread may."""

    def __init__(self, monkeypatch, change):
        self.change = change
        self.checked = peft_model.checked_images
        monkeypatch.setattr(peft_model, "checked_images", self)

    def __call__(self, *args):
        self.change()
        return self.checked(*args)


def set_beta(model):
    model.peft_config["default"].beta = model.peft_config["default"].alpha = 0.1


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.base_model.disable_adapter_layers(),
        lambda model: model.set_adapter("second"),
        lambda model: model.set_classes(OTHER, WordTokenizer()),
        lambda model: model.train(),
        set_beta,
    ],
    ids=["disabled", "adapter", "classes", "mode", "coefficients"],
)
@pytest.mark.parametrize("prompts", [{}, {"input_ids": IDS}], ids=["bound", "explicit"])
def test_a_pass_goes_on_with_the_state_in_which_it_began(model, images, prompts, change, monkeypatch):
    with torch.no_grad():
        expected = model(pixel_values=images, **prompts).logits
        ChangedInBetween(monkeypatch, lambda: change(model))
        assert torch.allclose(model(pixel_values=images, **prompts).logits, expected, atol=1e-5)


@pytest.mark.parametrize("prompts", [{}, {"input_ids": IDS}], ids=["bound", "explicit"])
def test_a_frozen_pass_goes_on_frozen(model, images, prompts, monkeypatch):
    with torch.no_grad(), model.disable_adapter():
        expected = model(pixel_values=images, **prompts).logits
        ChangedInBetween(monkeypatch, model.base_model.enable_adapter_layers)
        assert torch.equal(model(pixel_values=images, **prompts).logits, expected)


# --- classes of a call -------------------------------------------------------------------------------------------


def test_bound_to_scores_other_classes_and_changes_nothing(model, images, tokenizer):
    before = model(pixel_values=images).logits
    saved = model.peft_config["default"].to_dict()
    bound = model.bound_to(["dog", "owl"], tokenizer)
    logits = bound(images).logits
    assert (bound.classes, bound.seen) == (["dog", "owl"], [True, False])
    assert (model.classes, model.peft_config["default"].to_dict()) == (ONE, saved)
    assert torch.equal(model(pixel_values=images).logits, before)
    model.set_classes(["dog", "owl"], tokenizer)
    assert torch.equal(model(pixel_values=images).logits, logits)


def test_bound_to_goes_on_with_its_adapter(model, images, tokenizer):
    bound = model.bound_to(OTHER, tokenizer)
    with torch.no_grad():
        expected = bound(pixel_values=images).logits
        model.set_adapter("second")
        assert torch.equal(bound(pixel_values=images).logits, expected)
        with model.disable_adapter():
            assert bound(pixel_values=images).rep_logits is None
    model.delete_adapter("default")
    with pytest.raises(ValueError, match="'default', which was deleted"):
        bound(pixel_values=images)


def test_bound_to_defines_no_trained_classes(images, tokenizer):
    model = get_peft_model(make_clip(), MMRLConfig(rep_dim=16)).eval()
    output = model.bound_to(ONE, tokenizer)(images)
    assert torch.equal(output.logits, output.class_logits)
    assert model.peft_config["default"].classes is None
    assert model.classes is None


def test_bound_to_takes_labels_and_refuses_other_prompts(model, images, tokenizer):
    bound = model.bound_to(ONE, tokenizer)
    labels = torch.tensor([0, 1, 0, 1])
    assert torch.equal(bound(images, labels=labels).loss, model(pixel_values=images, labels=labels).loss)
    with pytest.raises(ValueError, match="`input_ids` and `bound_to`"):
        bound(images, input_ids=IDS)
    with pytest.raises(TypeError, match="bare string|must be a list"):
        model.bound_to("cat", tokenizer)


def test_threads_with_classes_of_their_own(model, images, tokenizer):
    requests = [ONE, OTHER, ["cat"], ["bat", "dog"]]
    with torch.no_grad():
        expected = [model.bound_to(names, tokenizer)(images).logits for names in requests]
    answers = [None] * len(requests)

    def serve(index):
        bound = model.bound_to(requests[index], tokenizer)
        with torch.no_grad():
            answers[index] = [bound(images).logits for _ in range(10)]

    threads = [threading.Thread(target=serve, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own, right in zip(answers, expected, strict=True):
        assert all(torch.allclose(answer, right, atol=1e-5) for answer in own)


def test_data_parallel_is_refused_by_name(model):
    """torch copies modules so; on one device it does not."""
    for module in (model.get_base_model().text_model, model.get_base_model().vision_model):
        with pytest.raises(ValueError, match=r"`torch.nn.DataParallel` is not supported.*torchrun"):
            module._replicate_for_data_parallel()
