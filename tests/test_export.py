"""`peft-mmrl export`: a folder that answers as `predict` does, where neither torch nor this package is installed."""

import io
import json
import re
import subprocess
import sys

import numpy as np
import onnxruntime
import PIL.Image
import pytest
import torch
from architectures import ARCHITECTURES
from conftest import DEMO_CLIP, VARIANTS, WordTokenizer, pictures_of_classes, scramble
from odd_pictures import write_kinds, write_unreadable
from peft import get_peft_model
from transformers import CLIPModel, CLIPProcessor

from peft_mmrl import MMRLConfig, Preprocessing
from peft_mmrl.commands import export, predict
from peft_mmrl.data.folders import walk
from peft_mmrl.export import formats
from peft_mmrl.export.formats import write_model
from peft_mmrl.export.frozen_classifier import FrozenClassifier
from peft_mmrl.scoring.held_out import Confidence, digest_of


NAMES = ["zero", "one", "two"]
# What is not there in a workshop. Blocking these imports takes no network and no second environment.
WITHOUT = """
import runpy, sys
missing = {"torch", "torchvision", "transformers", "peft", "peft_mmrl", "accelerate", "datasets", "safetensors",
           "scipy", "huggingface_hub", "onnx", "onnxscript", "tokenizers"} - set(sys.argv[1].split())

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"{name} is not there", name=name)

sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_script(folder, *arguments, also=""):
    """What `classify.py` does in a process that can import little else."""
    command = [sys.executable, "-c", WITHOUT, also, folder / "classify.py", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, encoding="utf-8")


def classify(folder, *arguments, also=""):
    done = run_script(folder, *arguments, also=also)
    assert done.returncode == 0, done.stderr
    return done.stdout


def predicted(adapter, *arguments):
    output = io.StringIO()
    predict.main(predict.parse_args([str(argument) for argument in (adapter, *arguments)]), output)
    return output.getvalue()


def write(adapter, folder, *arguments):
    export.main(export.parse_args([str(argument) for argument in (adapter, folder, *arguments)]))
    return folder


def as_rows(text):
    return [json.loads(line) for line in text.splitlines()]


def assert_alike(found, expected):
    """Rows with the same paths, answers and errors, and probabilities of all classes that differ by little."""
    assert [row["path"] for row in found] == [row["path"] for row in expected] != []
    for row, other in zip(found, expected, strict=True):
        assert list(row) == list(other)
        assert (row["label"], row["error"]) == (other["label"], other["error"])
        ranks, others = (
            {row[name]: row[name.replace("label", "probability")] for name in row if name.startswith("label")}
            for row in (row, other)
        )
        assert ranks == pytest.approx(others, abs=0.01)


def save_adapter(folder, names=NAMES, decision=None, base=DEMO_CLIP, **config):
    """An adapter of the demo's CLIP, away from its start; with a decision on pictures of any kind."""
    torch.manual_seed(0)
    processor = CLIPProcessor.from_pretrained(DEMO_CLIP)
    config = MMRLConfig.plus_plus(rep_dim=16, **config) if "beta" in config else MMRLConfig(rep_dim=16, **config)
    model = scramble(get_peft_model(CLIPModel.from_pretrained(base, dtype=torch.float32), config))
    model.set_classes(names, processor, template="a photo of the digit {}.")
    Preprocessing.of(model, processor)
    if decision is not None:
        labels = torch.arange(6 * len(names)) % len(names)
        model.fit_decision(pictures_of_classes(labels), labels, features=decision)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return save_adapter(tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def exported(adapter, tmp_path_factory):
    return write(adapter, tmp_path_factory.mktemp("exported") / "out")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Handwritten digits of all kinds, in folders."""
    from digits import load_digits

    folder = tmp_path_factory.mktemp("many")
    digits = load_digits()["test"].select(range(150))
    for row, (picture, label) in enumerate(zip(digits["image"], digits["label"], strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        picture.save(folder / str(label) / f"{row}.png")
    return folder


KINDS = {
    "mmrl": ({}, []),
    "mmrl++": ({"beta": 0.7}, []),
    "a decision": ({"decision": "adapted"}, []),
    "a decision and new classes": ({"decision": "adapted", "zero_shot_weight": 0.3}, ["three", "zero", "axolotl"]),
    "mmrl++ and a decision without training": ({"beta": 0.4, "decision": "frozen"}, ["three"]),
    "other scripts": ({"names": ["猫", "собака", "قطة", "näyttö"], "decision": "adapted"}, ["犬"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_predict(kind, many, tmp_path):
    changes, new = KINDS[kind]
    adapter = save_adapter(tmp_path / "adapter", **changes)
    classes = ["--classes", *new] if new else []
    folder = write(adapter, tmp_path / "out", *classes)
    every = ["--top_k", "9", "--format", "jsonl"]
    expected = as_rows(predicted(adapter, many, *every, *classes))
    assert len(expected) == 150 and len({row["label"] for row in expected}) > 1
    found = as_rows(classify(folder, many, *every))
    assert_alike(found, expected)
    content = json.loads((folder / "export.json").read_text())
    assert content["decision"] == changes.get("decision") and content["agreement"] is None


def test_without_its_decision_it_answers_as_the_papers_do(many, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", decision="adapted")
    plain = save_adapter(tmp_path / "plain")
    folder = write(adapter, tmp_path / "out", "--no_decision")
    whole = write(adapter, tmp_path / "whole")
    every = [many / "3", "--top_k", "3", "--format", "jsonl"]
    assert_alike(as_rows(classify(folder, *every)), as_rows(predicted(plain, *every)))
    assert classify(whole, *every) != classify(folder, *every)


def test_a_base_model_in_bf16(many, tmp_path):
    CLIPModel.from_pretrained(DEMO_CLIP, dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    CLIPProcessor.from_pretrained(DEMO_CLIP).save_pretrained(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", decision="adapted", base=tmp_path / "base")
    folder = write(adapter, tmp_path / "out")
    every = [many, "--top_k", "3", "--format", "jsonl"]
    assert_alike(as_rows(classify(folder, *every)), as_rows(predicted(adapter, *every)))


# --- graphs ------------------------------------------------------------------------------------------------------


def tiny_model(family, config, decision, bound):
    """A model of an architecture, with the classes cat and dog trained and `bound` ones scored."""
    words = WordTokenizer()
    words.ids = {name: place for place, name in enumerate(["a", "photo", "of", ".", "cat", "dog", "newt", "ox"], 7)}

    def tokenizer(texts):
        return {"input_ids": [[family.bos, *row[1:-1], family.eos] for row in words(texts)["input_ids"]]}

    model = scramble(get_peft_model(family.model(), config))
    model.set_classes(["cat", "dog"], tokenizer)
    if decision is not None:
        labels = torch.arange(12) % 2
        model.fit_decision(pictures_of_classes(labels), labels, features=decision)
    model.set_classes(bound, tokenizer)
    return model.eval()


def assert_graph_alike(model, folder, run):
    """What a file gives is what the model gives, for any number of pictures."""
    classifier = FrozenClassifier(model, (32, 32))
    order = [model.classes.index(name) for name in classifier.classes]
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(pixel_values=images).logits.softmax(dim=1)[:, order]
    found = run(write_model(classifier, folder, "onnx"))
    for count in (1, 2, 5):
        probabilities = found.run(None, {"pixel_values": images[:count].numpy()})[0]
        np.testing.assert_allclose(probabilities, expected[:count].numpy(), atol=1e-5)


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_backbone(architecture, config, tmp_path):
    config = MMRLConfig.from_peft_type(**VARIANTS[config].to_dict())
    model = tiny_model(ARCHITECTURES[architecture], config, "adapted", ["newt", "dog", "ox", "cat"])
    assert_graph_alike(model, tmp_path, onnxruntime.InferenceSession)


@pytest.mark.parametrize("decision", [None, "frozen"])
@pytest.mark.parametrize("bound", [["cat", "dog"], ["newt", "ox"], ["dog", "newt"]])
def test_trained_and_new_classes_in_any_order(decision, bound, tmp_path):
    model = tiny_model(ARCHITECTURES["clip"], MMRLConfig(rep_dim=16), decision, bound)
    assert_graph_alike(model, tmp_path, onnxruntime.InferenceSession)


def test_layers_that_cannot_be_split_run_as_a_whole(tmp_path):
    model = tiny_model(ARCHITECTURES["clip"], MMRLConfig(rep_dim=16), "adapted", ["cat", "dog", "ox"])
    model.get_base_model().vision_model.layers[-1].register_forward_hook(lambda *passed: None)
    assert_graph_alike(model, tmp_path, onnxruntime.InferenceSession)


def test_neither_text_encoder_nor_adapter_weights_are_in_it(tmp_path):
    model = tiny_model(ARCHITECTURES["clip"], MMRLConfig(rep_dim=512), "adapted", ["cat", "dog"])
    state = torch.export.load(write_model(FrozenClassifier(model, (32, 32)), tmp_path, "torch")).state_dict
    assert not [name for name in state if "text" in name or "aligner" in name]
    encoder = sum(weight.nbytes for weight in model.get_base_model().vision_model.base_layer.parameters())
    assert encoder < sum(weight.nbytes for weight in state.values()) < 1.3 * encoder


def test_a_program_of_torch_export_needs_torch_alone(adapter, many, tmp_path):
    folder = write(adapter, tmp_path / "out", "--format", "torch")
    assert not (folder / "model.onnx").exists()
    every = [many / "4", "--top_k", "3", "--format", "jsonl"]
    torch_and_what_it_looks_for = "torch onnx"
    found = as_rows(classify(folder, *every, "--batch_size", "5", also=torch_and_what_it_looks_for))
    assert_alike(found, as_rows(predicted(adapter, *every)))


def test_models_of_other_precision_are_refused():
    model = tiny_model(ARCHITECTURES["clip"], MMRLConfig(rep_dim=16), None, ["cat", "dog"])
    with pytest.raises(ValueError, match="`model` must be in fp32"):
        FrozenClassifier(model.to(torch.bfloat16), (32, 32))


# --- reading and writing -----------------------------------------------------------------------------------------


@pytest.fixture
def odd(tmp_path):
    """Pictures of all kinds, files that cannot be read, and what is no picture, in folders."""
    folder = tmp_path / "odd"
    (folder / "b" / "c").mkdir(parents=True)
    (folder / "a.b").mkdir()
    write_kinds(folder / "b")
    write_unreadable(folder / "b" / "c")
    (folder / "b" / "turned.jpg").rename(folder / "a.b" / "without extension")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("words")
    PIL.Image.new("RGB", (700, 2), "red").save(folder / "line.png")
    PIL.Image.new("RGBA", (1, 1)).save(folder / "z.webp")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "b" / "again").symlink_to(folder)
    return folder


FITS = [{}, {"fit": "pad", "value_range": [0, 4080]}, {"fit": "squeeze", "value_range": [290, 315.5]}]


@pytest.mark.parametrize("config", FITS)
def test_pictures_of_all_kinds_are_read_alike(config, odd, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", **config)
    folder = write(adapter, tmp_path / "out")
    every = [odd, odd / "missing.png", odd / "notes.txt", "--top_k", "3", "--format", "jsonl"]
    expected = as_rows(predicted(adapter, *every))
    assert len({row["error"] for row in expected}) > 8
    assert_alike(as_rows(classify(folder, *every)), expected)
    preprocess = Preprocessing.of(*predict.load_classifier(adapter))
    from peft_mmrl.export.classify import PictureReader

    read = PictureReader(json.loads((folder / "preprocessing.json").read_text()))
    for row in expected:
        if row["error"] is None:  # two ways to resize round otherwise, by one or two of 255
            difference = np.abs(read(row["path"]) - preprocess(row["path"]).numpy()).max()
            assert difference <= 2.01 / 255 / 0.33, row["path"]


SIZES = [
    {"do_center_crop": False, "size": {"height": 32, "width": 32}},
    {"size": {"shortest_edge": 40}},
    {"size": {"shortest_edge": 24}, "resample": 2},
    {"size": {"height": 36, "width": 50}, "do_rescale": False},
    {"do_resize": False, "do_normalize": False},
]


@pytest.mark.parametrize("settings", SIZES, ids=str)
@pytest.mark.parametrize("fit", [None, "crop", "pad", "squeeze"])
def test_any_image_processor_is_followed(settings, fit, demo_processor, tmp_path):
    from peft_mmrl.export.classify import PictureReader
    from peft_mmrl.export.export_folder import portable_settings

    processor = demo_processor.image_processor
    preprocess = Preprocessing(type(processor)(**{**processor.to_dict(), **settings}), fit)
    read = PictureReader(json.loads(json.dumps(portable_settings(preprocess))))
    for size in ((61, 40), (40, 61), (20, 23), (33, 33)):
        noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).save(tmp_path / "noise.png")
        found, expected = read(tmp_path / "noise.png"), preprocess(tmp_path / "noise.png").numpy()
        assert found.shape == expected.shape == (3, 32, 32)
        unit = np.ptp(expected) / 255
        assert np.abs(found - expected).max() <= 3 * unit


def test_sizes_that_no_script_follows_are_refused(demo_processor):
    from peft_mmrl.export.export_folder import portable_settings

    processor = demo_processor.image_processor
    size = {"shortest_edge": 32, "longest_edge": 64}
    other = type(processor)(**{**processor.to_dict(), "size": size})
    with pytest.raises(ValueError, match="can be exported where it resizes to a short side"):
        portable_settings(Preprocessing(other))


@pytest.mark.parametrize("answer", ["table", "csv", "json", "jsonl"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_formats_are_those_of_predict(answer, top_k, adapter, exported, odd):
    arguments = [odd, "--format", answer, "--top_k", top_k]
    found, expected = classify(exported, *arguments), predicted(adapter, *arguments)
    number = r"\d+\.\d+(e-\d+)?"
    assert re.sub(number, "#", found) == re.sub(number, "#", expected)


@pytest.mark.parametrize("count", [1, 5])
def test_one_picture_and_batches_of_five(count, adapter, exported, many):
    pictures = sorted(many.glob("*/*.png"))[:count]
    every = ["--top_k", "3", "--format", "jsonl"]
    for size in (5, 2):
        found = as_rows(classify(exported, *pictures, *every, "--batch_size", size))
        assert_alike(found, as_rows(predicted(adapter, *pictures, *every)))


def test_left_out_files_are_counted_and_what_is_missing_ends_it(exported, odd):
    done = run_script(exported, odd)
    assert "files and folders are left out" in done.stderr and "no picture: .txt (1)" in done.stderr
    assert "pictures cannot be read" in done.stderr
    done = run_script(exported, odd / "missing.png", odd / "b" / "c" / "empty.jpg")
    assert done.returncode == 1 and "nothing could be read" in done.stderr
    done = run_script(exported, odd / "missing.png")
    assert done.returncode == 1 and "There is no file or folder" in done.stderr and not done.stdout


def test_python_s_own_script_takes_no_nonsense(exported, many):
    for wrong in (["--top_k", "0"], ["--threshold", "1.5"], ["--format", "xml"], ["--batch_size", "-1"]):
        done = run_script(exported, many, *wrong)
        assert done.returncode == 2 and wrong[0] in done.stderr and "Traceback" not in done.stderr


# --- "none of these", sets ---------------------------------------------------------------------------------------


def confident(adapter):
    """The adapter with what it would have said of 40 held-out pictures."""
    model, _ = predict.load_classifier(adapter)
    generator = np.random.default_rng(0)
    labels, predicted_ = generator.integers(0, 3, 40), generator.integers(0, 3, 40)
    largest = generator.uniform(0.4, 1, 40)
    own = np.where(labels == predicted_, largest, (1 - largest) / 2)
    columns = [column.tolist() for column in (labels, predicted_, own, largest)]
    Confidence(NAMES, *columns, decision=digest_of(model.decision)).save(adapter)
    return adapter


@pytest.mark.parametrize("aim", [["--threshold", "0.5"], ["--risk", "0.3"], ["--threshold"], ["--coverage", "0.8"]])
def test_none_of_these_and_sets_are_those_of_predict(aim, many, tmp_path):
    adapter = confident(save_adapter(tmp_path / "adapter"))
    folder = write(adapter, tmp_path / "out", *aim)
    named = ["--format", "jsonl"] if "--coverage" in aim else ["--top_k", "2", "--format", "jsonl"]
    found, expected = as_rows(classify(folder, many, *named)), as_rows(predicted(adapter, many, *named, *aim))
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert [list(row) for row in found] == [list(row) for row in expected]
    assert json.loads((folder / "classes.json").read_text())["aim"] != [] or aim[-1] == "0.5"
    for answer in ("table", "csv"):
        number = r"\d+\.\d+(e-\d+)?"
        texts = classify(folder, many, "--format", answer), predicted(adapter, many, "--format", answer, *aim)
        assert re.sub(number, "#", texts[0]) == re.sub(number, "#", texts[1])


def test_a_threshold_may_be_given_later(exported, adapter, many):
    answers = [many / "5", "--threshold", "0.9", "--format", "jsonl"]
    found = as_rows(classify(exported, *answers))
    assert_alike(found, as_rows(predicted(adapter, *answers)))
    assert any(row["label"] == "none of these" for row in found)


# --- what lies beside it, and in 8 bits --------------------------------------------------------------------------


def test_the_folder_says_nothing_of_this_machine(adapter, exported):
    names = {path.name for path in exported.iterdir()}
    assert names == {
        "README.md", "classes.json", "classify.py", "export.json", "model.onnx", "preprocessing.json", "run.json",
    }  # fmt: skip
    card, whole = (exported / "README.md").read_text(), (adapter / "README.md").read_text()
    data, words = whole.partition("\n---\n")[::2]
    begun = card.removeprefix(f"{data}\n---\n").removesuffix(words)
    assert len(begun) + len(whole) == len(card) and "`python classify.py PICTURES` names pictures" in begun
    for path in exported.glob("*.json"):
        assert str(adapter) not in path.read_text() and str(DEMO_CLIP) not in path.read_text()


def test_an_adapter_without_a_card_gets_one(tmp_path):
    adapter = save_adapter(tmp_path / "adapter")
    (adapter / "README.md").unlink()
    card = (write(adapter, tmp_path / "out") / "README.md").read_text()
    assert all(name in card for name in NAMES) and str(tmp_path) not in card


def test_eight_bits_are_smaller_and_say_how_alike_they_answer(adapter, exported, many, tmp_path, capsys):
    folder = write(adapter, tmp_path / "out", "--int8", "--pictures", many, "--force")
    content = json.loads((folder / "export.json").read_text())
    assert content["int8"] and content["bytes"] < 0.5 * json.loads((exported / "export.json").read_text())["bytes"]
    agreement = content["agreement"]
    assert agreement["pictures"] == 150 and agreement["low"] < agreement["share"] <= agreement["high"]
    said = f"{agreement['same_answer']} of 150 pictures have the same answer"
    assert said in capsys.readouterr().out and said in (folder / "README.md").read_text()
    assert agreement["same_answer"] == agreement["same_likeliest"] == same_labels(folder, adapter, many)
    assert [path for path in folder.iterdir() if path.is_dir()] == []


def same_labels(folder, adapter, pictures, *aim):
    """How many pictures get the same answer from a folder and from `predict`."""
    texts = (
        classify(folder, pictures, "--format", "jsonl"),
        predicted(adapter, pictures, "--format", "jsonl", *aim),
    )
    answers = [[row["label"] for row in as_rows(text)] for text in texts]
    return sum(one == other for one, other in zip(*answers, strict=True))


@pytest.fixture
def at_a_threshold(many, tmp_path):
    """Options and the rule by which half of the pictures are just not, or just, given another class or named at all;
    with `confidence.json` that leads to it."""

    def make(kind):
        adapter = confident(save_adapter(tmp_path / "adapter"))
        rows = as_rows(predicted(adapter, many, "--top_k", "3", "--format", "jsonl"))
        column, of = ("own", "probability_2") if kind == "--coverage" else ("largest", "probability")
        middle = float(np.median([row[of] for row in rows]))
        content = json.loads((adapter / "confidence.json").read_text())
        content[column] = [middle] * len(content["labels"])
        content["predicted"] = content["labels"] if kind == "--coverage" else [0] * len(content["labels"])
        (adapter / "confidence.json").write_text(json.dumps(content))
        return adapter, [kind, "0.9" if kind == "--coverage" else "0.1"]

    return make


@pytest.mark.parametrize("kind", ["--coverage", "--risk"])
def test_answers_that_differ_beside_the_same_likeliest_class_are_counted(kind, at_a_threshold, many, tmp_path, capsys):
    adapter, aim = at_a_threshold(kind)
    folder = write(adapter, tmp_path / "out", "--int8", "--pictures", many, "--force", *aim)
    agreement = json.loads((folder / "export.json").read_text())["agreement"]
    assert agreement["same_answer"] < agreement["same_likeliest"]
    assert agreement["same_answer"] == same_labels(folder, adapter, many, *aim)
    words = f"{agreement['same_likeliest']} ({agreement['same_likeliest'] / 150:.1%}) the same likeliest class"
    assert words in capsys.readouterr().out and words in (folder / "README.md").read_text()


WEIGHED = [("SAME_LIKELIEST", "likeliest classes"), ("SAME_ANSWERS", "answers")]


@pytest.mark.parametrize(("enough", "what"), WEIGHED)
def test_too_few_alike_are_refused_and_nothing_is_left(enough, what, adapter, many, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "SAME_LIKELIEST", 0.0)
    monkeypatch.setattr(export, "SAME_ANSWERS", 0.0)
    monkeypatch.setattr(export, enough, 1.1)
    arguments = ["--int8", "--pictures", many / "0"]
    with pytest.raises(
        SystemExit, match=f"in 8 bits .* of the {what} .* fewer than 110%: leave out --int8, or .* --force"
    ):
        write(adapter, tmp_path / "out", *arguments)
    assert list(tmp_path.iterdir()) == []
    assert (write(adapter, tmp_path / "out", *arguments, "--force") / "model.onnx").exists()


def test_agreement_is_measured_wherever_pictures_are_given(adapter, odd, tmp_path):
    folder = write(adapter, tmp_path / "out", "--pictures", odd)
    agreement = json.loads((folder / "export.json").read_text())["agreement"]
    readable = [row for row in as_rows(predicted(adapter, odd, "--format", "jsonl")) if row["error"] is None]
    assert agreement["same_answer"] == agreement["same_likeliest"] == agreement["pictures"] == len(readable)
    assert agreement["largest_difference"] < 0.01


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--int8"], "--int8 changes answers.*--pictures"),
        (["--int8", "--format", "torch", "--pictures", "."], "--int8 is for --format onnx"),
        (["--pictures", "nowhere"], "There is no file or folder nowhere"),
        (["--pictures", "EMPTY"], "holds no pictures"),
        (["--base_model", "nowhere"], "The base model 'nowhere' cannot be loaded"),
        (["--threshold", "2"], "--threshold"),
        (["--risk", "0.05"], "confidence.json"),
        (["--classes", "axolotl", "Axolotl"], "axolotl"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(arguments, message, adapter, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = [str(tmp_path / "empty") if argument == "EMPTY" else argument for argument in arguments]
    with pytest.raises(SystemExit, match=f"(?s)^error: .*{message}"):
        write(adapter, tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_folders_that_hold_something_are_refused(adapter, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(SystemExit, match="the output folder .*out is not empty"):
        write(adapter, tmp_path / "out")
    assert [path.name for path in walk(tmp_path)] == ["mine"]
    with pytest.raises(SystemExit, match="lies in the output folder|is not empty"):
        write(adapter, adapter)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="is a file"):
        write(adapter, tmp_path / "file")


def test_an_export_is_replaced_where_that_is_asked_for(adapter, tmp_path):
    folder = write(adapter, tmp_path / "out")
    with pytest.raises(SystemExit, match="--overwrite_output_dir"):
        write(adapter, folder)
    write(adapter, folder, "--overwrite_output_dir", "--format", "torch")
    assert (folder / "model.pt2").exists() and not (folder / "model.onnx").exists()


def test_adapters_that_are_none_or_have_no_classes_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="There is no folder .*nowhere with an adapter"):
        write(tmp_path / "nowhere", tmp_path / "out")
    model = get_peft_model(CLIPModel.from_pretrained(DEMO_CLIP), MMRLConfig(rep_dim=16))
    model.save_pretrained(tmp_path / "fresh")
    with pytest.raises(SystemExit, match="has no classes of its own"):
        write(tmp_path / "fresh", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(SystemExit, match="--format onnx needs onnxscript"):
        write(adapter, tmp_path / "out")
    assert (write(adapter, tmp_path / "out", "--format", "torch") / "model.pt2").exists()
