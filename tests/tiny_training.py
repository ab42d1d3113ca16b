"""A tiny model and noisy pictures, for tests of the training loop."""

from types import SimpleNamespace

import torch
from conftest import WordTokenizer, make_clip
from peft import get_peft_model

from peft_mmrl import MMRLConfig
from peft_mmrl.training import make_accelerator, train


class Noisy(torch.utils.data.Dataset):
    """Two kinds of images, another noise whenever one is read."""

    def __init__(self, count=10):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        label = index % 2
        return {"pixel_values": label + 0.3 * torch.randn(3, 32, 32), "labels": label}


def make_model(config=None, adapter_name="default"):
    torch.manual_seed(0)
    model = get_peft_model(make_clip(), config or MMRLConfig(rep_dim=16), adapter_name)
    model.set_classes(["cat", "dog"], WordTokenizer())
    return model


def weights(model):
    return [weight.detach().clone() for weight in model.parameters() if weight.requires_grad]


def run(settings, dataset=None, model=None, **kwargs):
    model = model or make_model()
    history = train(model, dataset or Noisy(), settings, make_accelerator(settings, cpu=True), **kwargs)
    return model, history


class StoppedError(Exception):
    """An interruption."""


class MeanOfPictures(torch.nn.Module):
    """Its loss's gradient is the mean of the pictures that it has seen."""

    def __init__(self, size):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(size))

    def forward(self, picture):
        return SimpleNamespace(loss=(picture @ self.weight).mean())
