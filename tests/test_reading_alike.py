"""Every documented way to read a picture gives the same answer, from training to the pipelines."""

import contextlib
import io
import json
import re

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import DEMO_CLIP, scramble
from odd_pictures import stroke, write_kinds
from peft import PeftModel, get_peft_model
from transformers import AutoProcessor, CLIPModel, pipeline

from peft_mmrl import MMRLConfig, Preprocessing
from peft_mmrl.commands import evaluate, predict, train


NAMES = ["six", "nine", "zero"]
TEMPLATE = "the digit {}."


@pytest.fixture(params=[{}, {"fit": "pad", "value_range": [0, 4080]}, {"fit": "squeeze", "value_range": [290, 315.5]}])
def adapter(request, demo_processor, tmp_path):
    model = scramble(get_peft_model(CLIPModel.from_pretrained(DEMO_CLIP), MMRLConfig(rep_dim=16, **request.param)))
    model.set_classes(NAMES, demo_processor, template=TEMPLATE)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def predicted(adapter, *pictures):
    """What `peft-mmrl predict` says: probabilities by class name, of each picture."""
    output = io.StringIO()
    arguments = [str(adapter), *map(str, pictures), "--format", "jsonl", "--top_k", "3"]
    predict.main(predict.parse_args(arguments), output)
    rows = [json.loads(line) for line in output.getvalue().splitlines()]
    return [{row[f"label{rank}"]: row[f"probability{rank}"] for rank in ("", "_2", "_3")} for row in rows]


def by_the_card(adapter, picture, monkeypatch):
    """What the code of the model card says of a picture, which is named where the code says so."""
    text = re.search(r"```python\n(.*?)\n```", (adapter / "README.md").read_text(), re.DOTALL)[1]
    text, replaced = re.subn(r"picture = .*", f"picture = {str(picture)!r}", text)
    assert replaced == 1
    monkeypatch.chdir(adapter.parent)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(text, "README.md", "exec"), {})
    return {line.split()[1]: float(line.split("%")[0]) / 100 for line in printed.getvalue().splitlines()}


def test_card_and_pipelines_answer_as_predict_does(adapter, tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    pictures = write_kinds(tmp_path / "pictures")
    answers = predicted(adapter, *pictures)
    assert len({max(answer.values()) for answer in answers}) > 3  # they differ
    processor = AutoProcessor.from_pretrained(DEMO_CLIP)
    model = PeftModel.from_pretrained(CLIPModel.from_pretrained(DEMO_CLIP), adapter).eval()
    preprocess = Preprocessing.of(model, processor)
    assert Preprocessing.of(model) == preprocess
    classify = pipeline("image-classification", model=model, image_processor=processor.image_processor)
    zero_shot = pipeline(
        "zero-shot-image-classification",
        model=model,
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
    )
    for picture, answer in zip(pictures, answers, strict=True):
        assert by_the_card(adapter, picture, monkeypatch) == pytest.approx(answer, abs=6e-4)
        with PIL.Image.open(picture) as opened:
            for image in (picture, picture.read_bytes(), opened):
                with torch.no_grad():
                    found = model(pixel_values=preprocess(image)[None]).logits.softmax(-1)[0].tolist()
                assert dict(zip(NAMES, found, strict=True)) == pytest.approx(answer, abs=1e-5)
        prepared = preprocess.read(picture)
        found = {row["label"]: row["score"] for row in classify(prepared)}
        assert found == pytest.approx(answer, abs=1e-5)
        rows = zero_shot(prepared, candidate_labels=NAMES, hypothesis_template=TEMPLATE)
        assert {row["label"]: row["score"] for row in rows} == pytest.approx(answer, abs=1e-5)


# --- from training on ---------------------------------------------------------------------------------------------


def prepare(source, target, change):
    """A copy of a folder of digits, each changed and written as a file with another ending."""
    for path in sorted(source.glob("*/*.png")):
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        with PIL.Image.open(path) as picture:
            change(picture.convert("L")).save(target / path.parent.name / f"{path.stem}.tif")
    return target


def twelve_bits(picture):
    return PIL.Image.fromarray(np.asarray(picture).astype(np.uint16) * 16)


def run(output_dir, *arguments):
    given = ["--base_model", str(DEMO_CLIP), "--output_dir", str(output_dir), "--epochs", "1", *map(str, arguments)]
    train.main(train.parse_args(given))
    return json.loads((output_dir / "adapter_config.json").read_text())


def test_deep_pictures_are_trained_evaluated_and_named_in_one_range(digit_folders, tmp_path, capsys):
    photos, test = (prepare(digit_folders / part, tmp_path / part, twelve_bits) for part in ("train", "test"))
    plain = run(tmp_path / "plain", "--train_dir", digit_folders / "train", "--eval_dir", digit_folders / "test")
    said = capsys.readouterr().out
    config = run(tmp_path / "deep", "--train_dir", photos, "--eval_dir", test)
    deep_said = capsys.readouterr().out
    assert "18 pictures are grey of more than 8 bits: 0 becomes black" in deep_said
    assert plain["value_range"] is None and config["value_range"] == [0, pytest.approx(4080, abs=160)]
    zero_shot = r"zero-shot accuracy on 15 pictures: ([\d.]+)%"
    accuracies = [float(re.search(zero_shot, text)[1]) for text in (said, deep_said)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=7)

    evaluate.main(evaluate.parse_args([str(tmp_path / "deep"), str(test), "--output_dir", str(tmp_path / "e")]))
    assert "beyond" not in capsys.readouterr().out
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    report = json.loads((tmp_path / "deep" / "report" / "metrics.json").read_text())
    assert metrics["accuracy"] == report["accuracy"]

    bright = tmp_path / "bright.tif"
    twelve_bits(stroke()).point(lambda value: value * 8).save(bright)
    predicted_bright = predicted(tmp_path / "deep", bright, next(test.glob("*/*")))
    assert len(predicted_bright) == 2
    assert "1 pictures hold values beyond 0 (black)" in capsys.readouterr().err


def long(picture):
    wide = PIL.Image.new("L", (96, 32), picture.getpixel((0, 0)))
    wide.paste(picture.resize((32, 32)), (0, 0))
    return wide


def test_most_are_long_so_they_are_squeezed_unless_somebody_knows_better(digit_folders, tmp_path, capsys):
    photos = prepare(digit_folders / "train", tmp_path / "train", long)
    source = ["--train_dir", photos, "--folds", "0"]
    assert run(tmp_path / "own", *source)["fit"] == "squeeze"
    assert "18 of 18 pictures are far from square" in capsys.readouterr().out
    assert run(tmp_path / "asked", *source, "--fit", "pad")["fit"] == "pad"
    assert "far from square" not in capsys.readouterr().out
    assert run(tmp_path / "cropped", *source, "--fit", "crop")["fit"] == "crop"
    assert "never sees 67%" in capsys.readouterr().out
