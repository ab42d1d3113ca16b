import copy
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import debug_launcher
from accelerate.state import AcceleratorState
from golden import CASES, Case
from peft import get_peft_model
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPProcessor

from peft_mmrl import MMRLConfig


torch.set_num_threads(1)  # tiny matrices: more threads only get in each other's way
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.append(str(EXAMPLES))  # not in front: examples/evaluate.py would hide the library of that name
DEMO_CLIP = EXAMPLES / "demo_clip"


class WordTokenizer:
    """A tokenizer over a few words that behaves like CLIP's: lower case, any blanks, BOS 98, EOS 99, no padding."""

    def __init__(self):
        self.ids = {}

    def __call__(self, texts):
        rows = []
        for text in texts:
            words = text.lower().replace(".", " . ").split()
            rows.append([98, *(self.ids.setdefault(word, len(self.ids) + 1) for word in words), 99])
        return {"input_ids": rows}


def load_example(name):
    """A script of `examples/` whose name a library has, too."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 24,
}
VISION = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}


def make_clip(seed=0, **changes):
    """A random CLIP with towers of different depth and width; `vision_*` and `text_*` change their configs."""
    text, vision = {**TEXT, "bos_token_id": 98, "eos_token_id": 99}, dict(VISION)
    text |= {key.removeprefix("text_"): value for key, value in changes.items() if key.startswith("text_")}
    vision |= {key.removeprefix("vision_"): value for key, value in changes.items() if key.startswith("vision_")}
    torch.manual_seed(seed)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    return CLIPModel(config).eval()


def scramble(model, seed=1, adapter="default"):
    """Move every parameter of an adapter away from its start, so that it matters; returns the model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mmrl_" in name and f".{adapter}." in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def pictures_of_classes(labels, seed=4):
    """Pictures (N, 3, 32, 32) that a linear probe can learn: those of a class look alike."""
    generator = torch.Generator().manual_seed(seed)
    looks = torch.randn(int(labels.max()) + 1, 3, 32, 32, generator=generator)
    return looks[labels] + 0.4 * torch.randn(len(labels), 3, 32, 32, generator=generator)


def in_two_processes(function, *arguments):
    """Run a function in two processes, which must not inherit this one's Accelerate state."""
    AcceleratorState._reset_state(reset_partial_state=True)
    debug_launcher(function, arguments, 2)


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch, tmp_path_factory):
    """What is remembered of pictures is not that of the user, nor of another test."""
    monkeypatch.setattr("peft_mmrl.data.known.FILE", tmp_path_factory.mktemp("known") / "pictures.sqlite")


@pytest.fixture
def fresh_state():
    """Accelerate keeps the precision of the first `Accelerator` for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def clip():
    return make_clip()


@pytest.fixture
def tokenizer():
    return WordTokenizer()


@pytest.fixture
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def demo_processor():
    return CLIPProcessor.from_pretrained(DEMO_CLIP)


@pytest.fixture
def pictures():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (40, 32, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.fixture
def demo_images(demo_processor, pictures):
    return demo_processor(images=pictures, return_tensors="pt")["pixel_values"]


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


@pytest.fixture(scope="session")
def digit_folders(tmp_path_factory):
    """Folders `train` and `test` with sub-folders of pictures of the digits zero, one and two: 6 and 5 of each."""
    from digits import CLASS_NAMES, load_digits

    root = tmp_path_factory.mktemp("digits")
    for split, count in (("train", 6), ("test", 5)):
        digits = load_digits()[split]
        for digit in range(3):
            folder = root / split / CLASS_NAMES[digit]
            folder.mkdir(parents=True)
            rows = [row for row, label in enumerate(digits["label"]) if label == digit][:count]
            for row in rows:
                digits[row]["image"].save(folder / f"{row}.png")
    return root


@pytest.fixture(scope="session")
def digits():
    """Twelve pictures of each of four digits."""
    from digits import CLASS_NAMES, load_digits

    part = load_digits()["train"]
    rows = {digit: [row for row, label in enumerate(part["label"]) if label == digit][:12] for digit in range(4)}
    return {CLASS_NAMES[digit]: [part[row]["image"] for row in rows[digit]] for digit in rows}


# --- adapters, for tests of what PEFT and transformers do with them ----------------------------------------------

IDS = torch.tensor([[98, 1, 2, 99], [98, 3, 99, 99]])
VARIANTS = {
    "mmrl": MMRLConfig(rep_dim=16),
    "mmrl++": MMRLConfig.plus_plus(rep_dim=16, beta=0.7, vision_layers=[0, 2], text_layers=[1], num_rep_tokens=3),
}


@pytest.fixture(params=VARIANTS)
def config(request):
    return copy.deepcopy(VARIANTS[request.param])


@pytest.fixture
def model(clip, config, tokenizer):
    model = scramble(get_peft_model(clip, config))
    model.set_classes(["cat", "big dog"], tokenizer)
    return model.eval()
