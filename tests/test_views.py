"""Cached views: the same numbers as without the cache, for the same views."""

import pytest
import torch
from conftest import WordTokenizer, make_clip, scramble
from peft import get_peft_model
from torch.utils.data import DataLoader

from peft_mmrl import MMRLConfig
from peft_mmrl.training.cached_views import CachedViews


class Augmented(torch.utils.data.Dataset):
    """Three images; reading one adds noise. What was read is remembered."""

    def __init__(self):
        self.images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.read = []

    def __len__(self):
        return 3

    def __getitem__(self, index):
        view = self.images[index] + 0.1 * torch.randn(3, 32, 32)
        self.read.append(view)
        return {"pixel_values": view, "labels": index % 2}


@pytest.fixture(params=[MMRLConfig(rep_dim=16), MMRLConfig.plus_plus(rep_dim=16, vision_layers=[0, 2])])
def model(request):
    model = scramble(get_peft_model(make_clip(), request.param))
    model.set_classes(["cat", "dog"], WordTokenizer())
    return model


@pytest.mark.parametrize("in_file", [False, True])
def test_a_view_gives_the_loss_and_gradients_of_its_image(model, in_file, tmp_path):
    data = Augmented()
    path = tmp_path / "new" / "views.bin" if in_file else None
    views = CachedViews(model, data, views=2, path=path, batch_size=4)
    assert not in_file or path.stat().st_size == views.states.nbytes
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for view in range(2):
        batch = torch.utils.data.default_collate([views.view(index, view) for index in range(3)])
        pixels = torch.stack(data.read[3 * view : 3 * view + 3])
        cached = model(**batch)
        direct = model(pixel_values=pixels, labels=torch.tensor([0, 1, 0]))
        assert torch.allclose(cached.logits, direct.logits, atol=1e-5)
        assert torch.allclose(cached.loss_image_reg, direct.loss_image_reg, atol=1e-6)
        pairs = zip(*(torch.autograd.grad(each.loss, parameters) for each in (cached, direct)), strict=True)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


def test_an_epoch_draws_one_view_of_each_image(model):
    views = CachedViews(model, Augmented(), views=4)
    torch.manual_seed(0)
    drawn = [batch["trunk_states"] for _ in range(8) for batch in DataLoader(views, batch_size=3)]
    assert len(views) == 3
    assert len({states[0].numpy().tobytes() for states in drawn}) > 1


def test_bf16_takes_half(model):
    full, half = (CachedViews(model, Augmented(), views=2, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert half.states.nbytes * 2 == full.states.nbytes
    assert half.nbytes == half.states.nbytes + half.frozen.nbytes
    batch = torch.utils.data.default_collate([half.view(index, 0) for index in range(3)])
    model(**batch).loss.backward()


def test_bad_states_are_named(model, images):
    states = model.image_states(images)
    labels = torch.tensor([0, 1, 0, 1])
    with pytest.raises(ValueError, match="`pixel_values` and `trunk_states`"):
        model(pixel_values=images, **states)
    with pytest.raises(ValueError, match="`frozen_image_embeds` must have the shape"):
        model(trunk_states=states["trunk_states"], labels=labels)
    with pytest.raises(ValueError, match="`trunk_states` must have the shape"):
        model(trunk_states=states["trunk_states"][..., :5])
    with pytest.raises(TypeError, match="`trunk_states` must be a tensor"):
        model(trunk_states=[1])
    with model.disable_adapter(), pytest.raises(ValueError, match="`trunk_states` are for a running adapter"):
        model(trunk_states=states["trunk_states"])
    with pytest.raises(ValueError, match="`views`"):
        CachedViews(model, Augmented(), views=0)
