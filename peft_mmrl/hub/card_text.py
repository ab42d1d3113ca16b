"""What a model card says of an adapter, in Markdown."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft.utils import get_peft_model_state_dict

from ..scoring.rungs import describe_rungs
from ..tuner.config import MMRLConfig, adapted_layers
from ..tuner.validation import is_hub_id


if TYPE_CHECKING:
    from ..tuner.decision import Decision
    from ..tuner.peft_model import PeftModelForZeroShotImageClassification

LOCAL_BASE = "path/to/clip"  # stands for a base model that is not on the Hub
CLASSES_IN_FULL = 100  # longer lists show their beginning
CLASSES_SHOWN = 20

SNIPPET = """\
```python
import torch
from peft import {peft_names}
from PIL import Image
from transformers import AutoModel, AutoProcessor

import peft_mmrl  # makes the method known to PEFT

adapter = {adapter}
base = {base}
clip = AutoModel.from_pretrained(base)
processor = AutoProcessor.from_pretrained(base)
model = PeftModel.from_pretrained(clip, adapter{subfolder}).eval()
{set_classes}
preprocess = peft_mmrl.Preprocessing.of(model, processor)  # reads a picture as it was done in training
picture = Image.new("RGB", (224, 224))  # yours: "picture.jpg"
with torch.no_grad():
    logits = model(pixel_values=preprocess(picture)[None]).logits
for name, probability in zip(model.classes, logits.softmax(-1)[0].tolist()):
    print(f"{{probability:6.1%}}  {{name}}")
```"""

LIMITS = """\
## Limits

- Loading needs `import peft_mmrl` first: PEFT alone does not know the method (`KeyError: 'MMRL'`).
- The answer is always one of the named classes, also for a picture that shows none of them. Where there is a
  `confidence.json`, `peft-mmrl predict` can go by it: "none of these" (`--risk 0.05`), several classes
  (`--coverage 0.9`).
- Classes that it was not trained on are known by name only: no figure here says how well it tells them.
- It fits the base model that it was trained on, and cannot be merged into it.
- What is known of the base model's limits and biases holds for the adapter too."""

CITATIONS = """\
```bibtex
@inproceedings{guo2025mmrl,
  title={MMRL: Multi-Modal Representation Learning for Vision-Language Models},
  author={Guo, Yuncheng and Gu, Xiaodong},
  booktitle={Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2025}
}
@article{guo2025mmrlpp,
  title={MMRL++: Parameter-Efficient and Interaction-Aware Representation Learning for Vision-Language Models},
  author={Guo, Yuncheng and Gu, Xiaodong},
  journal={International Journal of Computer Vision},
  year={2025}
}
```"""


@dataclass
class RunFacts:
    """What a training run knows of an adapter; `write_card` says what each is."""

    license: str | None = None
    data: str | None = None
    eval_data: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    zero_shot: Mapping[str, float] = field(default_factory=dict)
    per_class: list[Mapping[str, Any]] = field(default_factory=list)
    rungs: list[Mapping[str, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    folds: int = 0
    pictures: list[str] = field(default_factory=list)


class AdapterFacts:
    """What the adapter itself tells: the active one of a model.

    Args:
        model: the model with the adapter.
        name: the adapter's name on the Hub, or that of its folder.
        is_published: whether `name` is one on the Hub.
    """

    def __init__(self, model: PeftModelForZeroShotImageClassification, name: str, is_published: bool) -> None:
        self.name = name
        self.is_published = is_published
        self.adapter_name = model.one_active_adapter()
        self.config: MMRLConfig = model.peft_config[self.adapter_name]
        self.decision = model.decision
        clip = model.get_base_model()
        base = self.config.base_model_name_or_path or clip.name_or_path
        self.has_base = bool(base)
        self.base_model = base if is_hub_id(base) else None
        self.vision_layers = adapted_layers(
            self.config.vision_layers, clip.config.vision_config.num_hidden_layers, "vision_layers"
        )
        self.text_layers = adapted_layers(
            self.config.text_layers, clip.config.text_config.num_hidden_layers, "text_layers"
        )
        weights = get_peft_model_state_dict(model, adapter_name=self.adapter_name, save_embedding_layers=False)
        self.num_parameters = sum(weight.numel() for weight in weights.values())
        self.num_bytes = sum(weight.nbytes for weight in weights.values())

    @property
    def method(self) -> str:
        """MMRL, or MMRL++ where any of its three additions is in use."""
        config = self.config
        return "MMRL" if config.aligner_rank is None and config.proj_rank is None and config.beta == 1 else "MMRL++"


def card_text(adapter: AdapterFacts, run: RunFacts) -> str:
    """The text of a card, without metadata."""
    sections = [
        _introduction(adapter),
        _use(adapter),
        _results(run),
        _classes(adapter.config),
        _settings(adapter),
        _training(run),
        LIMITS,
        f"## Licence\n\n{run.license or 'None was named for this adapter.'} The base model has its own.",
        f"## Citation\n\n{CITATIONS}",
    ]
    return "\n\n".join(section for section in sections if section)


def code(text: str) -> str:
    """Any text as a Markdown code span, in which no character means anything."""
    text = " ".join(text.split())
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    blank = " " if "`" in text else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def _quoted(text: str | None) -> str:
    return json.dumps(text, ensure_ascii=False)


def without_path(data: str) -> str:
    """What data are called: a path's last part, anything else as it is."""
    is_path = os.path.exists(data) or os.path.isabs(data)
    return Path(data).resolve().name if is_path else data


def _linked(name: str, kind: str = "") -> str:
    return f"[{name}](https://huggingface.co/{kind}{name})" if is_hub_id(name) else code(without_path(name))


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _introduction(adapter: AdapterFacts) -> str:
    base = _linked(adapter.base_model) if adapter.base_model else "a CLIP that is not on the Hub"
    classes = adapter.config.classes
    job = (
        f"It sorts pictures among the {len(classes)} classes that it was trained on"
        if classes
        else "It was not trained on any classes yet; it sorts pictures among those that are named to it"
    )
    return (
        f"# {code(adapter.name.rpartition('/')[2])}\n\n"
        f"An {adapter.method} adapter for {base}, made with `peft_mmrl` for "
        f"[PEFT](https://huggingface.co/docs/peft). {job}, and takes new classes by name."
    )


def _use(adapter: AdapterFacts) -> str:
    peft_names, base, note = "PeftModel", _quoted(adapter.base_model), ""
    if adapter.base_model is None and adapter.has_base and not adapter.is_published:
        peft_names, base = "PeftConfig, PeftModel", "PeftConfig.from_pretrained(adapter).base_model_name_or_path"
    elif adapter.base_model is None:
        base, note = f'"{LOCAL_BASE}"', "The base model is not on the Hub: `base` is where your copy of it lies.\n\n"
    name, subfolder = adapter.name, ""
    if adapter.adapter_name != "default" and adapter.is_published:
        subfolder = f", subfolder={_quoted(adapter.adapter_name)}"
    elif adapter.adapter_name != "default":
        name = f"{name}/{adapter.adapter_name}"
    snippet = SNIPPET.format(
        peft_names=peft_names,
        adapter=_quoted(name),
        base=base,
        subfolder=subfolder,
        set_classes=_set_classes(adapter.config),
    )
    return f"## Use\n\n{note}{snippet}\n\n{_what_decides(adapter.decision)}"


def _what_decides(decision: Decision | None) -> str:
    """What the probabilities of the code are made of."""
    if decision is None:
        return (
            "Among trained classes both features of a picture decide, among new ones the class feature alone. Where "
            "both kinds compete, their scores are on different scales: `model.fit_decision(images, labels)` on the "
            "training pictures mends that."
        )
    what = "those of frozen CLIP" if decision.features == "frozen" else "these and those of frozen CLIP"
    return (
        "A decision that was fitted on the training pictures puts trained and new classes on one scale "
        f"(`decision.safetensors`, {decision.nbytes / 1e6:.2g} MB); the features that it goes by are {what}. "
        "`model.decision = None` takes it off: then it decides as in the papers."
    )


def _set_classes(config: MMRLConfig) -> str:
    """The line of the code that binds classes, where loading does not do it."""
    if config.classes is None:
        return 'model.set_classes(["cat", "dog"], processor)\n'
    if config.class_input_ids is None:
        return "model.set_classes(processor=processor)\n"
    return '# with a new class: model.set_classes([*model.classes, "a new class"], processor)\n'


def _results(run: RunFacts) -> str:
    if not run.metrics and not run.pictures:
        return ""
    parts = ["## Results"]
    if run.metrics:
        if run.eval_data:
            measured_on = f"On {_linked(run.eval_data, 'datasets/')}"
        elif run.folds:
            measured_on = (
                f"On {_linked(run.data, 'datasets/')}, each picture answered by a model that was trained without"
            )
            measured_on += f" it ({run.folds} folds; this adapter was trained on all)"
        else:
            measured_on = f"On pictures of {_linked(run.data, 'datasets/')} that it was not trained on"
        rows = [
            [name.replace("_", " "), _percent(value), _percent(run.zero_shot.get(name))]
            for name, value in run.metrics.items()
        ]
        parts.append(f"{measured_on}, in percent:")
        parts.append(_table(["", "this adapter", "zero-shot CLIP"], rows))
        parts += [f"{describe_rungs(run.rungs).capitalize()}."] if run.rungs else []
        parts += run.remarks
        parts += _recalls(run.per_class)
    for picture in run.pictures:
        title = picture.rpartition("/")[2].rpartition(".")[0].replace("_", " ")
        parts.append(f"![{title}]({picture})")
    return "\n\n".join(parts)


def _recalls(per_class: list[Mapping[str, Any]]) -> list[str]:
    """What accuracy hides: the classes of which least is recognised."""
    rows = sorted((row for row in per_class if row["pictures"]), key=lambda row: (row["recall"], row["class"]))
    shown = rows if len(rows) <= CLASSES_SHOWN else rows[:CLASSES_SHOWN]
    if not rows:
        return []
    which = "each class" if len(shown) == len(rows) else f"the {len(shown)} of {len(rows)} classes where it is lowest"
    cells = [
        [code(row["class"]), f"{row['pictures']}", _percent(row["recall"]), _percent(row["zero_shot_recall"])]
        for row in shown
    ]
    header = ["class", "pictures", "this adapter", "zero-shot CLIP"]
    return [f"Recall of {which}, the share of its pictures that is recognised:", _table(header, cells)]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _classes(config: MMRLConfig) -> str:
    if config.classes is None:
        return ""
    names = config.classes if len(config.classes) <= CLASSES_IN_FULL else config.classes[:CLASSES_SHOWN]
    what = "all" if len(names) == len(config.classes) else f"the first {len(names)} of {len(config.classes)}"
    listed = "\n".join(f"- {code(name)}" for name in names)
    templates = ", ".join(code(template) for template in config.templates)
    return (
        f"## Classes\n\n{len(config.classes)} classes, in the prompt {templates}. `adapter_config.json` has them.\n\n"
        f"<details><summary>Names ({what})</summary>\n\n{listed}\n\n</details>"
    )


def _settings(adapter: AdapterFacts) -> str:
    config = adapter.config
    rows = [
        ["representation tokens (K)", f"{config.num_rep_tokens}"],
        ["width of the representation space (d_r)", f"{config.rep_dim}"],
        ["adapted vision layers, from 0", ", ".join(map(str, adapter.vision_layers))],
        ["adapted text layers, from 0", ", ".join(map(str, adapter.text_layers))],
        ["weight of the class feature (alpha)", f"{config.alpha:g}"],
        ["regularisation (lambda, `reg_weight`)", f"{config.reg_weight:g}"],
        ["progressive composition (beta)", f"{config.beta:g}"],
        ["pictures that are not square", config.fit or "as the base model does it"],
        [
            "black and white in grey of more than 8 bits",
            " to ".join(f"{end:g}" for end in config.value_range or ()) or "by type",
        ],
        ["rank of the aligner's residuals", f"{config.aligner_rank or 'full maps'}"],
        ["rank of the representation projection", f"{config.proj_rank or 'full'}"],
        ["parameters", f"{adapter.num_parameters:,}"],
        ["weights on disk", f"{adapter.num_bytes / 1e6:.3g} MB"],
    ]
    papers = "[MMRL](https://huggingface.co/papers/2503.08497), [MMRL++](https://huggingface.co/papers/2505.10088)"
    return f"## Method\n\n{adapter.method}; papers: {papers}.\n\n{_table(['setting', 'value'], rows)}"


def _training(run: RunFacts) -> str:
    if run.data is None and not run.training:
        return ""
    parts = ["## Training"]
    if run.data is not None:
        parts.append(f"Trained on {_linked(run.data, 'datasets/')}.")
    if run.training:
        rows = [[name.replace("_", " "), code(str(value))] for name, value in run.training.items()]
        parts.append(_table(["setting", "value"], rows))
    return "\n\n".join(parts)
