"""The exact speed-ups: what is shared, cached or left out changes no number and is never stale."""

import copy

import pytest
import torch
from conftest import WordTokenizer, make_clip, scramble
from peft import get_peft_model

from peft_mmrl import MMRLConfig
from peft_mmrl.tuner.prompts import Prompts
from peft_mmrl.tuner.towers.clip_text import CLIPTextTower
from peft_mmrl.tuner.towers.forward_pass import ForwardPass
from peft_mmrl.tuner.towers.vision import VisionTower


LABELS = torch.tensor([0, 1, 2, 3])
NAMES = ["cat", "big dog", "a very old owl", "bat"]
VARIANTS = {"mmrl": MMRLConfig(rep_dim=16), "mmrl++": MMRLConfig.plus_plus(rep_dim=16, beta=0.6)}
TEMPLATES = ["a photo of a {}.", "{} is here", ["a photo of a {}.", "{}", "my {}"]]


def make_model(config, template="a photo of a {}.", names=NAMES, **clip):
    model = scramble(get_peft_model(make_clip(**clip), copy.deepcopy(config)))
    model.set_classes(names, WordTokenizer(), template=template)
    return model


@pytest.fixture(params=VARIANTS)
def config(request):
    return VARIANTS[request.param]


@pytest.fixture
def model(config):
    return make_model(config)


def loss_and_gradients(model, images, labels=LABELS):
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    loss = model(pixel_values=images, labels=labels).loss
    return loss, torch.autograd.grad(loss, parameters)


def assert_same(ours, theirs, tolerance=1e-9):
    (loss, gradients), (other_loss, other_gradients) = ours, theirs
    assert abs(float((loss - other_loss).detach())) < tolerance
    for gradient, other in zip(gradients, other_gradients, strict=True):
        assert float((gradient - other).norm()) <= tolerance * float(other.norm()) + 1e-15


# --- prompts -----------------------------------------------------------------------------------------------------


def test_prompts_share_what_they_start_with_and_keep_one_token_each():
    prompts = Prompts([[98, 1, 2, 3, 99], [98, 1, 2, 4, 5, 99], [98, 1, 2, 99]])
    assert prompts.prefix.tolist() == [98, 1, 2]
    (chunk,) = prompts.chunks(10)
    assert chunk.classes.tolist() == [2, 0, 1]
    assert chunk.input_ids.tolist() == [[99, 99, 99], [3, 99, 99], [4, 5, 99]]
    assert chunk.eos.tolist() == [0, 1, 2]
    assert Prompts([[98, 1, 99], [98, 1, 99]]).prefix.tolist() == [98, 1]
    assert Prompts([[98, 1, 99], [98, 2, 99]]).prefix.tolist() == [98]


def test_chunks_hold_classes_of_like_length():
    prompts = Prompts([[98, *range(1, n + 1), 99] for n in (5, 1, 4, 1, 2)])
    assert [chunk.classes.tolist() for chunk in prompts.chunks(2)] == [[1, 3], [4, 2], [0]]
    assert [chunk.input_ids.shape[1] for chunk in prompts.chunks(2)] == [1, 4, 5]


# --- exactness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES, ids=["shared prefix", "only BOS shared", "ensemble"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_short_cuts_equal_whole_layers(config, template, attention, images, monkeypatch):
    model = make_model(config, template)
    model.get_base_model().set_attn_implementation(attention)
    fast = loss_and_gradients(model, images)
    monkeypatch.setattr(CLIPTextTower, "can_share", lambda self, *parts: False)
    monkeypatch.setattr(VisionTower, "is_recording", lambda self, kwargs: True)
    whole = loss_and_gradients(model, images)
    assert_same(fast, whole, 1e-5)


@pytest.mark.parametrize("layers", [[0], [3], [0, 3], [1, 2], [0, 1, 2, 3]])
def test_any_layers_in_float64(config, layers, images):
    config = copy.deepcopy(config)
    config.vision_layers, config.text_layers = layers, [min(i, 2) for i in layers][:1]
    model = make_model(config).double()
    images = images.double()
    fast = loss_and_gradients(model, images)
    recording = model(pixel_values=images, labels=LABELS, output_hidden_states=True).loss
    assert abs(float((fast[0] - recording).detach())) < 1e-9


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_result_does_not_depend_on_the_chunks(config, size, images):
    model = make_model(config).double()
    whole = loss_and_gradients(model, images.double())
    model.text_chunk_size = size
    assert_same(loss_and_gradients(model, images.double()), whole)


def test_chunks_are_computed_again_under_the_same_autocast(model, images):
    gradients = []
    for size in (1, 1024):
        model.text_chunk_size = size
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(pixel_values=images, labels=LABELS).loss
        gradients.append(torch.autograd.grad(loss, [w for w in model.parameters() if w.requires_grad]))
    assert all(torch.allclose(one, other, atol=0.02, rtol=0.02) for one, other in zip(*gradients, strict=True))


def test_memory_does_not_grow_with_classes_times_layers():
    """Per class beyond one chunk, the backward pass keeps less than the states of one layer."""

    def kept_by_autograd(num_classes):
        names = [f"w{i}" for i in range(num_classes)]
        rows = [[98, 1 + i % 9, 11 + i // 9, 99] for i in range(num_classes)]
        model = get_peft_model(make_clip(), MMRLConfig(rep_dim=16, text_layers=[0, 1, 2]))
        model.text_chunk_size = 8
        model.set_classes(names, lambda texts: {"input_ids": rows})
        image = torch.zeros(1, 3, 32, 32)
        model(pixel_values=image)  # the trunk is kept from here on
        kept = set()

        def pack(tensor):
            kept.add((tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model(pixel_values=image)
        return sum(size for _, size in kept) + 0 * output.logits.numel()

    own_tokens, width, layers = 3, 32, 3
    per_class = (kept_by_autograd(72) - kept_by_autograd(16)) / (72 - 16)
    whole_layers = own_tokens * layers * 16 * width * 4  # about 16 tensors of the tower's width a layer
    assert per_class < whole_layers / 5


def test_the_chunk_size_must_be_a_positive_whole_number(model):
    with pytest.raises(ValueError, match="`text_chunk_size`"):
        model.text_chunk_size = 0
    assert model.text_chunk_size == 1024


def test_gradient_checkpointing_gives_the_same_gradients(config, images):
    model = make_model(config).double()
    plain = loss_and_gradients(model, images.double())
    for reentrant in (False, True):
        model.get_base_model().gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.train()
        assert_same(loss_and_gradients(model, images.double()), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_bases_train_with_adapters_in_fp32(config, dtype, images):
    model = scramble(get_peft_model(make_clip().to(dtype), copy.deepcopy(config)))
    model.set_classes(NAMES, WordTokenizer())
    exact = make_model(config)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    output, expected = (each(pixel_values=images, labels=LABELS) for each in (model, exact))
    assert output.logits.dtype == torch.float32
    assert torch.allclose(output.loss, expected.loss, atol=0.05)
    output.loss.backward()
    with torch.autocast("cpu", dtype):
        autocast = exact(pixel_values=images, labels=LABELS)
    assert torch.allclose(autocast.loss, expected.loss, atol=0.05)
    autocast.loss.backward()


def test_gradient_checkpointing_keeps_less(images):
    """What one forward pass leaves behind for the backward pass, in bytes."""

    def kept(is_checkpointing):
        model = make_model(VARIANTS["mmrl"])
        if is_checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        model(pixel_values=images, labels=LABELS)  # fills the caches
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            loss = model(pixel_values=images, labels=LABELS).loss
        assert loss.requires_grad
        return sum(event.self_cpu_memory_usage for event in profile.key_averages())

    assert 0 < kept(True) < kept(False) / 2


def test_compiled_models_give_the_same_and_notice_changes(model, images):
    compiled = torch.compile(model, backend="eager")
    assert torch.allclose(
        compiled(pixel_values=images, labels=LABELS).loss, model(pixel_values=images, labels=LABELS).loss, atol=1e-5
    )
    model.eval()
    with torch.no_grad():
        for change in (
            lambda: None,
            lambda: scramble(model, 5),
            lambda: model.set_classes(NAMES[::-1], WordTokenizer()),
        ):
            change()
            assert torch.allclose(compiled(pixel_values=images).logits, model(pixel_values=images).logits, atol=1e-5)
        with model.disable_adapter():
            assert torch.allclose(compiled(pixel_values=images).logits, model(pixel_values=images).logits, atol=1e-5)


def test_inductor_gives_the_same_loss_and_gradients(images):
    model = make_model(VARIANTS["mmrl++"])
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    plain = loss_and_gradients(model, images)
    loss = torch.compile(model)(pixel_values=images, labels=LABELS).loss
    assert_same((loss, torch.autograd.grad(loss, parameters)), plain, 1e-4)


@pytest.mark.parametrize("chunk_size", [2, 1024])
def test_towers_compile_without_graph_breaks(model, images, chunk_size):
    model.text_chunk_size = chunk_size
    clip, prompts = model.get_base_model(), model._bound["default"].prompts[0]
    beta = model.peft_config["default"].beta
    trunk = clip.text_model.prompt_trunk(prompts, clip.text_model.first_layer("default"), chunk_size)
    tokens = clip.text_model.tokens("default", beta)
    assert len(trunk.chunks) == (2 if chunk_size == 2 else 1)
    text = torch.compile(clip.text_model.encode, backend="eager", fullgraph=True)
    ours, expected = text(trunk, tokens), clip.text_model.encode(trunk, tokens)
    assert torch.allclose(ours, expected, atol=1e-5)
    gradients = [torch.autograd.grad(states.sum(), tokens.values)[0] for states in (ours, expected)]
    assert torch.allclose(*gradients, atol=1e-5)
    vision = torch.compile(clip.vision_model, backend="eager", fullgraph=True)
    forward_pass = ForwardPass("default", beta, with_frozen=True, with_states=False)
    ours = vision(pixel_values=images, forward_pass=forward_pass)
    expected = clip.vision_model(pixel_values=images, forward_pass=forward_pass)
    assert torch.allclose(ours.pooler_output, expected.pooler_output, atol=1e-5)
    assert torch.allclose(ours.frozen_pooler_output, expected.frozen_pooler_output, atol=1e-5)


# --- caches ------------------------------------------------------------------------------------------------------


@pytest.fixture
def encodings(monkeypatch):
    """Counts how often prompts go through the text encoder's adapted layers."""
    calls = []
    encode = CLIPTextTower.encode

    def counted(self, trunk, tokens):
        calls.append("frozen" if tokens is None else "adapted")
        return encode(self, trunk, tokens)

    monkeypatch.setattr(CLIPTextTower, "encode", counted)
    return calls


def test_class_features_are_computed_once_without_gradients(model, images, encodings):
    model.eval()
    with torch.no_grad():
        first = model(pixel_values=images).logits
        assert torch.equal(model(pixel_values=images).logits, first)
    assert encodings == ["adapted"]


def test_frozen_class_features_are_computed_once(model, images, encodings):
    for _ in range(3):
        model(pixel_values=images, labels=LABELS).loss.backward()
    assert encodings.count("frozen") == 1
    assert encodings.count("adapted") == 3


def test_without_labels_the_frozen_pass_is_not_run(model, images, monkeypatch, encodings):
    monkeypatch.setattr(VisionTower, "frozen_pooled", lambda *args: pytest.fail("frozen pass"))
    model.eval()
    model(pixel_values=images)
    assert "frozen" not in encodings


def test_with_gradients_the_text_tower_runs_in_eval_mode(model, images):
    model.eval()
    with torch.no_grad():
        model(pixel_values=images)
    _, gradients = loss_and_gradients(model, images)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_nothing_that_is_kept_is_a_buffer(model, images):
    """DDP sends buffers to all processes at every step."""
    before = {name for name, _ in make_clip().named_buffers()}
    model(pixel_values=images, labels=LABELS).loss.backward()
    model.eval()
    with torch.no_grad():
        model(pixel_values=images)
    assert {name.rpartition(".")[2] for name, _ in model.named_buffers()} == {n.rpartition(".")[2] for n in before}
    assert sum(buffer.numel() for buffer in model.buffers()) == sum(b.numel() for b in make_clip().buffers())


def test_inference_mode_leaves_nothing_that_breaks_training(model, images):
    with torch.inference_mode():
        model(pixel_values=images)
        with model.disable_adapter():
            model(pixel_values=images)
    model(pixel_values=images, labels=LABELS).loss.backward()


def fused_step(model):
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.05, fused=True)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def each_adapter_weight(change):
    def apply(model):
        for name, parameter in model.named_parameters():
            if "mmrl_" in name:
                change(parameter)

    return apply


def load_base(model):
    other = make_clip(seed=9)
    own = model.get_base_model().text_model.base_layer
    own.load_state_dict(other.text_model.state_dict())
    model.get_base_model().text_projection.load_state_dict(other.text_projection.state_dict())


CHANGES = {
    "fused optimizer": fused_step,
    "data in place": each_adapter_weight(lambda p: p.data.mul_(1.3).add_(torch.randn_like(p), alpha=0.1)),
    "new data": each_adapter_weight(lambda p: setattr(p, "data", p.data + 0.1 * torch.randn_like(p))),
    "load_state_dict": lambda model: model.load_state_dict(
        {name: value + 0.1 * torch.randn_like(value) for name, value in model.state_dict().items() if "mmrl_" in name},
        strict=False,
    ),
    "other base weights": load_base,
    "double": lambda model: model.double(),
    "beta": lambda model: setattr(model.peft_config["default"], "beta", 0.3),
    "reordered classes": lambda model: model.set_classes(NAMES[::-1], WordTokenizer()),
    "other template": lambda model: model.set_classes(NAMES, WordTokenizer(), template="my {}"),
    "chunk size": lambda model: setattr(model, "text_chunk_size", 3),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_nothing_stale_is_used(model, images, change):
    model.eval()
    with torch.no_grad():
        model(pixel_values=images, labels=LABELS)  # fills every cache
        change(model)
        images = images.to(model.get_base_model().dtype)
        after = model(pixel_values=images, labels=LABELS)
        fresh = copy.deepcopy(model)  # copies start with empty caches
        assert not fresh._bound["default"].prompts[0].cache
        expected = fresh(pixel_values=images, labels=LABELS)
    assert torch.allclose(after.logits, expected.logits, atol=1e-6)
    assert torch.allclose(after.loss, expected.loss, atol=1e-6)


def test_switching_adapters_uses_each_ones_own(model, images):
    model.eval()
    with torch.no_grad():
        first = model(pixel_values=images).logits
        model.add_adapter("second", MMRLConfig(rep_dim=4, text_layers=[0]))
        model.set_adapter("second")
        model.set_classes(NAMES, WordTokenizer(), seen="none")
        second = model(pixel_values=images).logits
        with model.disable_adapter():
            frozen = model(pixel_values=images).logits
        model.set_adapter("default")
        assert torch.equal(model(pixel_values=images).logits, first)
        model.set_adapter("second")
        assert torch.equal(model(pixel_values=images).logits, second)
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, frozen)


def test_a_trained_text_projection_is_never_cached(model, images):
    weight = model.get_base_model().text_projection.weight
    weight.requires_grad_()
    model.eval()
    with torch.no_grad():
        before = model(pixel_values=images).logits
    weight.grad = torch.randn_like(weight)
    torch.optim.AdamW([weight], lr=0.05, fused=True).step()
    with torch.no_grad():
        after = model(pixel_values=images).logits
        assert not torch.allclose(after, before)
        assert torch.equal(copy.deepcopy(model)(pixel_values=images).logits, after)


@pytest.mark.parametrize("part", ["layer", "self_attn"])
@pytest.mark.parametrize("tower", ["text_model", "vision_model"])
def test_hooks_on_layers_are_called(model, images, tower, part):
    calls = []
    layer = getattr(model.get_base_model(), tower).encoder.layers[-1]
    module = layer if part == "layer" else layer.self_attn
    model(pixel_values=images, output_hidden_states=True)  # leaves transformers' own hooks, which do not count
    model(pixel_values=images)
    module.register_forward_hook(lambda *_: calls.append(1))
    model(pixel_values=images)
    assert calls


def test_a_trained_base_weight_is_never_cached(model, images, encodings):
    weight = model.get_base_model().text_model.encoder.layers[0].mlp.fc1.weight
    weight.requires_grad_()
    model.eval()
    with torch.no_grad():
        before = model(pixel_values=images).logits
        weight += torch.randn_like(weight)
        assert not torch.allclose(model(pixel_values=images).logits, before)
    assert not encodings
    model(pixel_values=images).logits.sum().backward()
    assert weight.grad.abs().max() > 0
