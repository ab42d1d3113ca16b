import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_clip
from huggingface_hub import ModelCard
from peft import get_peft_model
from transformers import CLIPModel, CLIPProcessor

from peft_mmrl import MMRLConfig
from peft_mmrl.hub.card import write_card


DEMO_CLIP = Path(__file__).parent.parent / "examples" / "demo_clip"
AWKWARD = [
    "no",
    "yes",
    "on",
    "1.0",
    "a: b",
    "<script>",
    "</details>",
    "a|b",
    "`",
    "a``b`",
    "*x*",
    "[y](z)",
    "# h",
    "é\\",
]


@pytest.fixture
def model(tokenizer):
    model = get_peft_model(make_clip(), MMRLConfig.plus_plus(rep_dim=16, reg_weight=3.0))
    model.set_classes(["cat", "dog"], tokenizer, template=["a photo of a {}.", "a | {}"])
    return model


def saved_card(model, folder, **facts):
    model.save_pretrained(folder)
    if facts:
        write_card(folder, model, **facts)
    return ModelCard.load(folder / "README.md")


def name_base(model, name):
    model.peft_config["default"].base_model_name_or_path = name
    return model


def test_a_plain_save_writes_what_the_adapter_knows(model, tmp_path):
    card = saved_card(name_base(model, "somebody/clip"), tmp_path / "pets")
    assert card.data.to_dict() == {
        "base_model": "somebody/clip",
        "library_name": "peft",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["base_model:adapter:somebody/clip", "clip", "few-shot", "mmrl++", "peft_mmrl", "transformers"],
    }
    parameters, _ = model.get_nb_trainable_parameters()
    for row in (
        "representation tokens (K) | 5",
        "width of the representation space (d_r) | 16",
        "adapted vision layers, from 0 | 2, 3",
        "adapted text layers, from 0 | 1, 2",
        "weight of the class feature (alpha) | 0.7",
        "regularisation (lambda, `reg_weight`) | 3",
        "progressive composition (beta) | 0.9",
        "rank of the aligner's residuals | 4",
        "rank of the representation projection | 64",
        f"parameters | {parameters:,}",
        f"weights on disk | {4 * parameters / 1e6:.3g} MB",
    ):
        assert f"| {row} |" in card.text
    assert "2 classes, in the prompt `a photo of a {}.`, `a | {}`" in card.text
    assert "- `cat`\n- `dog`\n" in card.text
    assert "@article{guo2025mmrlpp" in card.text
    assert "More Information Needed" not in card.text and "## Results" not in card.text
    assert len(re.findall("import peft_mmrl", card.text)) == 2  # in the code, and among the limits


@pytest.mark.parametrize("count", [3, 25])
def test_the_classes_of_which_least_is_recognised_stand_below_the_accuracy(count, model, tmp_path):
    rows = [{"class": f"a|{row}", "pictures": 4, "recall": row / count, "zero_shot_recall": 1} for row in range(count)]
    rows.append({"class": "missing", "pictures": 0, "recall": None, "zero_shot_recall": None})
    card = saved_card(model, tmp_path / "pets", data="photos", metrics={"accuracy": 0.9}, per_class=rows[::-1])
    assert "| `a\\|0` | 4 | 0.0 | 100.0 |\n| `a\\|1` | 4 |" in card.text
    assert ("Recall of each class" in card.text) == (count == 3)
    assert ("Recall of the 20 of 25 classes where it is lowest" in card.text) == (count == 25)
    assert card.text.count("| `a\\|") == min(count, 20)
    assert "`missing`" not in card.text


def test_mmrl_is_called_mmrl(tmp_path):
    model = get_peft_model(make_clip(), MMRLConfig(rep_dim=16))
    card = saved_card(model, tmp_path / "pets")
    assert "mmrl" in card.data.tags and "mmrl++" not in card.data.tags
    assert "| rank of the aligner's residuals | full maps |" in card.text
    assert "## Classes" not in card.text  # there are none yet


def test_what_a_training_knows_is_in_text_and_metadata(model, tmp_path):
    picture = tmp_path / "confusion_matrix.png"
    picture.write_bytes(b"a picture")
    card = saved_card(
        model,
        tmp_path / "pets",
        data="somebody/pictures",
        training={"epochs": 5, "learning rate": 2e-3},
        metrics={"accuracy": 0.912, "f1": 0.9},
        zero_shot={"accuracy": 0.8},
        license="cc-by-4.0",
        repo_id="me/pets",
        pictures=[picture],
        tags=["animals"],
    )
    assert card.data.license == "cc-by-4.0" and "cc-by-4.0" in card.text
    assert card.data.datasets == ["somebody/pictures"] and card.data.metrics == ["accuracy", "f1"]
    assert "animals" in card.data.tags
    assert card.data.model_name == "pets"
    result = card.data.eval_results[0]
    assert (result.dataset_type, result.metric_type, result.metric_value) == ("somebody/pictures", "accuracy", 0.912)
    pictures = "[somebody/pictures](https://huggingface.co/datasets/somebody/pictures)"
    assert f"On pictures of {pictures} that it was not trained on" in card.text
    assert "| accuracy | 91.2 | 80.0 |\n| f1 | 90.0 |  |" in card.text
    assert "| epochs | `5` |\n| learning rate | `0.002` |" in card.text
    assert "![confusion matrix](pictures/confusion_matrix.png)" in card.text
    assert (tmp_path / "pets/pictures/confusion_matrix.png").read_bytes() == b"a picture"
    assert 'adapter = "me/pets"' in card.text


def test_no_path_of_this_machine_gets_into_a_card(model, tmp_path):
    base = tmp_path / "My Models" / "clip"
    base.mkdir(parents=True)
    pictures = tmp_path / "shop pictures"
    pictures.mkdir()
    card = saved_card(
        name_base(model, str(base)), tmp_path / "pets", data=str(pictures), eval_data="/gone", metrics={"accuracy": 1}
    )
    assert card.data.base_model is None and card.data.datasets is None
    assert card.data.eval_results[0].dataset_name == "gone"
    assert "Trained on `shop pictures`." in card.text
    assert str(tmp_path) not in str(card) and "My Models" not in str(card) and "/gone" not in str(card)


def test_a_relative_path_of_a_base_model_is_no_name_on_the_hub(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "clip").mkdir(parents=True)
    assert saved_card(name_base(model, "models/clip"), tmp_path / "pets").data.base_model is None


def test_any_class_name_is_shown_as_it_is(tmp_path):
    model = get_peft_model(make_clip(), MMRLConfig(rep_dim=16, classes=AWKWARD))
    card = saved_card(model, tmp_path / "pets")
    shown = re.findall(r"^- (.+)$", card.text.partition("<details>")[2].partition("\n</details>")[0], re.MULTILINE)
    spans = [re.fullmatch(r"(`+)( ?)(.*?)\2\1", line) for line in shown]
    assert [span[3] for span in spans] == AWKWARD
    assert all(span[1] not in re.findall("`+", span[3]) for span in spans)  # the fence is not in the name
    assert MMRLConfig.from_pretrained(tmp_path / "pets").classes == AWKWARD


def test_many_classes_are_counted_not_listed(tmp_path):
    model = get_peft_model(make_clip(), MMRLConfig(rep_dim=16, classes=[f"class {number}" for number in range(1000)]))
    text = saved_card(model, tmp_path / "pets").text
    assert "1000 classes" in text and "the first 20 of 1000" in text
    assert "`class 19`" in text and "`class 20`" not in text


def test_up_to_a_hundred_classes_are_listed(tmp_path):
    model = get_peft_model(make_clip(), MMRLConfig(rep_dim=16, classes=[f"class {number}" for number in range(100)]))
    assert "Names (all)" in saved_card(model, tmp_path / "pets").text


def test_saving_again_brings_the_card_up_to_date_and_keeps_what_people_wrote(model, tmp_path):
    card = saved_card(model, tmp_path, data="somebody/pictures", metrics={"accuracy": 0.9})
    card.text = f"Written by Ann.\n{card.text}\nAsk her about the pictures.\n"
    card.data.license, card.data.language, card.data.base_model = "mit", "en", "ann/clip"
    card.data.tags.append("animals")
    card.save(tmp_path / "README.md")
    model.peft_config["default"].alpha = 0.25
    card = saved_card(model, tmp_path)
    assert "Written by Ann." in card.text and "Ask her about the pictures." in card.text
    assert (card.data.license, card.data.language, card.data.base_model) == ("mit", "en", "ann/clip")
    assert "animals" in card.data.tags
    assert card.text.count("## Method") == 1 and "(alpha) | 0.25 |" in card.text
    assert card.data.eval_results is None and card.data.metrics is None  # of other weights, for all one knows
    before = (tmp_path / "README.md").read_text()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == before


@pytest.mark.parametrize("what", ["text", "results"])
def test_an_edited_text_or_result_stays_as_it_is(model, tmp_path, what):
    card = saved_card(model, tmp_path, data="somebody/pictures", metrics={"accuracy": 0.9})
    if what == "text":
        card.text = card.text.replace("## Limits", "## Limits\n\n- Blurred pictures.")
    else:
        card.data.eval_results[0].metric_value = 0.85
    card.save(tmp_path / "README.md")
    edited = str(ModelCard.load(tmp_path / "README.md"))
    with pytest.warns(UserWarning, match=r"README.md was edited by hand"):
        assert str(saved_card(model, tmp_path)) == edited


def test_a_card_of_another_origin_keeps_its_text(model, tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\nmetrics: [wer]\n---\n\n# My pets\n")
    card = saved_card(model, tmp_path)
    assert card.text.startswith("\n# My pets\n") and "## Use" in card.text
    assert card.data.license == "mit" and card.data.metrics == ["wer"] and card.data.library_name == "peft"


@pytest.mark.parametrize("content", [b"---\na: [\n---\n", b"---\n- a\n---\n", b"\xff\xfe"])
def test_a_card_that_cannot_be_read_does_not_stop_saving(model, tmp_path, content):
    (tmp_path / "README.md").write_bytes(content)
    with pytest.warns(UserWarning, match=r"README.md stays as it is"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == content
    assert (tmp_path / "adapter_model.safetensors").exists()


def test_wrong_facts_are_refused_before_anything_is_written(model, tmp_path):
    folder = tmp_path / "pets"
    for facts, error, message in (
        (
            {"metrics": {"accuracy": 91.2}, "data": "x"},
            ValueError,
            r"`metrics\['accuracy'\]` must be a number from 0 to 1, got 91.2",
        ),
        ({"metrics": {"accuracy": 0.9}}, ValueError, "`metrics` need `data` or `eval_data`"),
        ({"pictures": [tmp_path / "no.png"]}, OSError, "`pictures` must hold files, there is none at .*no.png"),
        ({"pictures": [__file__, __file__]}, ValueError, "`pictures` must have different file names"),
    ):
        with pytest.raises(error, match=message):
            write_card(folder, model, **facts)
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["trained", "without ids", "fresh"])
def test_the_code_of_a_card_runs_as_it_stands(tmp_path, kind, monkeypatch, capsys):
    processor = CLIPProcessor.from_pretrained(DEMO_CLIP)
    config = MMRLConfig.plus_plus(classes=None if kind != "without ids" else ["cat", "dog"])
    model = get_peft_model(CLIPModel.from_pretrained(DEMO_CLIP), config)
    if kind == "trained":
        model.set_classes(["cat", "dog"], processor)
    card = saved_card(model, tmp_path / "my pets")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet(card), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["cat", "dog"]


def test_the_code_of_a_card_runs_in_a_fresh_process_with_an_adapter_of_any_name(tmp_path):
    model = get_peft_model(CLIPModel.from_pretrained(DEMO_CLIP), MMRLConfig(), adapter_name="shop")
    model.set_classes(["cat", "dog"], CLIPProcessor.from_pretrained(DEMO_CLIP))
    script = tmp_path / "snippet.py"
    script.write_text(snippet(saved_card(model, tmp_path / "pets")))
    ran = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 2


def snippet(card):
    return re.search(r"```python\n(.*?)\n```", card.text, re.DOTALL)[1]
