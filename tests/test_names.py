"""When two names are the same class, in folders, tables, files of names and saved adapters alike."""

import csv
import json

import PIL.Image
import pytest
import torch
from accelerate import PartialState
from conftest import WordTokenizer, load_example, make_clip, scramble
from datasets import ClassLabel, Dataset
from demo_parts.methods import DEMO_CLIP, load_clip
from golden import Case
from peft import get_peft_model

from peft_mmrl import MMRLConfig, convert_checkpoint
from peft_mmrl.data import (
    PictureSource,
    load_training_data,
    match_labels,
    new_class_names,
    notes_on_codes,
    prompt_names,
    read_class_names,
)
from peft_mmrl.scoring.unlabelled import load_classifier
from peft_mmrl.training import TrainingSettings, make_accelerator
from peft_mmrl.training.classifiers import fit_classifier
from peft_mmrl.tuner.loading import load_prompt_tokenizer
from peft_mmrl.tuner.names import clean_names, distinct_names, how_they_differ, match_keys, name_keys, spaced
from peft_mmrl.tuner.tokenization import PromptTokenizer


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


class CasedTokenizer(WordTokenizer):
    """A tokenizer that keeps case apart and composes nothing."""

    def __call__(self, texts):
        return {
            "input_ids": [[98, *(self.ids.setdefault(w, len(self.ids) + 1) for w in t.split()), 99] for t in texts]
        }


@pytest.fixture(params=["none", "clip", "cased"])
def any_tokenizer(request):
    if request.param == "none":
        return None
    if request.param == "clip":
        return load_prompt_tokenizer(str(DEMO_CLIP))
    return PromptTokenizer(CasedTokenizer(), make_clip().config.text_config)


def draw(folder, *paths):
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.effect_noise((32, 32), 20 + number).convert("RGB").save(folder / path)
    return folder


def labelled(*names):
    dataset = Dataset.from_dict({"label": list(range(len(names))), "path": list(names)})
    return dataset.cast_column("label", ClassLabel(names=list(names)))


# --- the function ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        (COMPOSED, DECOMPOSED, r"Unicode composition alone: 'caf\xe9' and 'cafe\u0301'"),
        ("hot_dog", "hot dog", "blanks or underscores alone"),
        (" hot   dog_", "hot dog", "blanks or underscores alone"),
        (f"{COMPOSED}_au lait", f"{DECOMPOSED} au lait", "Unicode composition and blanks or underscores alone"),
    ],
)
def test_what_makes_no_class(name, other, said, any_tokenizer):
    first, second = name_keys([name, other], any_tokenizer)
    assert first == second
    assert said in how_they_differ(name, other)
    assert distinct_names(["owl", name, other], any_tokenizer) == ["owl", name]


def test_case_counts_where_the_tokenizer_says_so(any_tokenizer):
    first, second = name_keys(["Cat", "cat"], any_tokenizer)
    is_cased = any_tokenizer is not None and isinstance(any_tokenizer.tokenizer, CasedTokenizer)
    assert (first != second) == is_cased
    assert how_they_differ("Cat", "cat") == "they differ in capitals alone"


def test_other_names_are_other_classes(any_tokenizer):
    names = ["hotdog", "hot dog", "hot-dog", "cafe", COMPOSED]
    assert len(set(name_keys(names, any_tokenizer))) == len(names)


def test_equal_names_are_matched_in_their_order():
    assert match_keys(["b", "a", "b", "b", "c"], ["a", "b", "b"]) == [1, 0, 2, 2, None]


def test_set_classes_asks_the_same_function():
    model = get_peft_model(make_clip(), MMRLConfig(rep_dim=16))
    tokenizer = CasedTokenizer()
    model.set_classes([COMPOSED, "hot dog", "cat"], tokenizer)
    model.set_classes(["Cat", "hot_dog", DECOMPOSED], tokenizer)
    assert model.seen == [False, True, True]
    ids = model._bound["default"].prompts[0].input_ids[2].tolist()
    assert " ".join(map(str, ids)).startswith(model.peft_config["default"].class_input_ids[0][0])
    with pytest.raises(ValueError, match=r"'caf.' at position 0: .* Unicode composition alone: 'caf\\xe9' and"):
        model.set_classes([COMPOSED, DECOMPOSED], tokenizer)
    with pytest.raises(ValueError, match="'hot_dog' at position 1 .* 'hot dog' .* blanks or underscores alone"):
        model.set_classes(["hot dog", "hot_dog"], tokenizer)


# --- folders' names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["001.Black_footed_Albatross", "002.Laysan_Albatross"], ["Black footed Albatross", "Laysan Albatross"]),
        (["017.Cardinal", "101.White_Pelican", "200.Yellowthroat"], ["Cardinal", "White Pelican", "Yellowthroat"]),
        (["1.cat", "2.dog", "10.owl", *(f"{n}.x{n}" for n in range(3, 10))], ["cat", "dog", "owl"]),
        (["0.cat", "1.dog"], ["cat", "dog"]),
        (["n02085620-Chihuahua", "n02085782-Japanese_spaniel"], ["Chihuahua", "Japanese spaniel"]),
    ],
)
def test_numbers_go_where_all_folders_are_numbered(folders, names):
    said, notes = prompt_names(folders)
    assert list(said.values())[: len(names)] == names
    (note,) = notes
    assert f"{folders[0]!r} is {names[0]!r}" in note
    assert "--class_names" in note


@pytest.mark.parametrize(
    "folders",
    [
        ["10.M8 bolt", "12.M10 bolt"],
        ["10.M8 bolt", "cat"],
        ["001.cat", "dog"],
        ["2023.Winter", "2024.Summer"],
        ["1042.AB", "1043.CD"],
        ["01.cat", "01.dog"],
        ["n02085620-Chihuahua", "dog"],
        ["n02085620-Chihuahua", "01.dog"],
        ["1.5 mm", "2.5 mm"],
    ],
)
def test_other_numbers_are_part_of_the_name(folders):
    said, notes = prompt_names(folders)
    assert said == {folder: folder for folder in folders}
    assert notes == []


@pytest.mark.parametrize(
    "folders", [["1.AB", "2.AB"], ["01.Winter", "02.winter"], ["n01440764-cr\u00e8me", "n01443537-cre\u0300me"]]
)
def test_numbers_stay_where_names_would_be_the_same_without(folders):
    said, notes = prompt_names(folders)
    assert len(set(name_keys(list(said.values()), None))) == 2
    assert "are kept" in notes[0]
    assert "--class_names" in notes[0]


def test_codes_are_noted():
    (note,) = notes_on_codes(["1042.AB", "7", "n02085620", "cat", "ox", "M8 bolt", "\u4e03\u53f7", "class 3"])
    assert "'7', '1042.AB', 'n02085620'." in note
    assert "--class_names" in note
    assert notes_on_codes(["cat", "TV"]) == []


# --- files of names, and matching --------------------------------------------------------------------------------


def test_a_file_of_names_may_write_folders_in_another_way(tmp_path, any_tokenizer):
    (tmp_path / "names.csv").write_text(f"{COMPOSED},coffee house\nhot_dog,sausage\n", encoding="utf-8")
    names = read_class_names(tmp_path / "names.csv", [DECOMPOSED, "hot dog", "owl"], any_tokenizer)
    assert names == {DECOMPOSED: "coffee house", "hot dog": "sausage"}
    (tmp_path / "names.csv").write_text(f"{COMPOSED},coffee house\n{DECOMPOSED},tea house\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: .* is named a second time"):
        read_class_names(tmp_path / "names.csv", [DECOMPOSED, "owl"], any_tokenizer)


def test_pictures_are_matched_however_their_class_is_written(any_tokenizer):
    notes = []
    dataset = labelled(COMPOSED, "hot_dog", "owl", "bat")
    found, unknown, missing = match_labels(dataset, ["hot dog", DECOMPOSED, "owl"], None, any_tokenizer, notes)
    assert (found["label"][:], unknown, missing, notes) == ([2 - 1, 0, 2], ["bat"], [], [])
    assert new_class_names(dataset, ["hot dog", DECOMPOSED, "owl"], None, any_tokenizer) == ["bat"]


def test_names_of_a_file_hold_for_test_folders_that_are_written_in_another_way(any_tokenizer):
    renamed = {COMPOSED: "coffee house", "hot_dog": "sausage"}
    found, unknown, _ = match_labels(
        labelled(DECOMPOSED, "hot dog", "hot_dog"), ["hot dog", "sausage", "coffee house"], renamed, any_tokenizer
    )
    assert (found["label"][:], unknown) == ([2, 0, 1], [])


def test_a_number_in_front_counts_only_where_it_must(any_tokenizer):
    notes = []
    found, unknown, _ = match_labels(
        labelled("101.White_Pelican", "owl"), ["owl", "White Pelican"], None, any_tokenizer, notes
    )
    assert (found["label"][:], unknown) == ([1, 0], [])
    assert notes == ["a number in front makes no difference here: '101.White_Pelican' is 'White Pelican'"]
    _, unknown, missing = match_labels(labelled("1042.AB", "1043.AB", "owl"), ["owl", "AB"], None, any_tokenizer)
    assert (unknown, missing) == (["1042.AB", "1043.AB"], ["AB"])
    names = ["2023.Winter", "2024.Winter"]
    found, unknown, missing = match_labels(labelled("2024.Winter", "Winter"), names, None, any_tokenizer)
    assert (found["label"][:], unknown, missing) == ([1], ["Winter"], ["2023.Winter"])
    _, unknown, missing = match_labels(labelled("2024.Winter", "owl"), ["2023.Winter", "owl"], None, any_tokenizer)
    assert (unknown, missing) == (["2024.Winter"], ["2023.Winter"])


def test_names_that_are_nearly_the_same_are_shown():
    cased = PromptTokenizer(CasedTokenizer(), make_clip().config.text_config)
    notes = []
    _, unknown, missing = match_labels(labelled("Cat", "cafe", "owl"), ["cat", COMPOSED, "owl"], None, cased, notes)
    assert (unknown, missing) == (["cafe", "Cat"], ["cat", COMPOSED])
    assert notes[0].startswith(r"'cafe' is not 'caf\xe9' to the model")
    assert notes[1] == "'Cat' is not 'cat' to the model; if they are the same, rename one, or use --class_names"
    with pytest.raises(ValueError, match=r"'hotdog' is not 'hot dog' to the model\. Rename"):
        match_labels(labelled("hotdog"), ["hot dog"], None, cased)


def test_two_folders_of_one_class_are_evaluated_as_one_and_noted():
    notes = []
    found, _, _ = match_labels(labelled("hot_dog", "Hot dog", "owl"), ["owl", "hot dog"], notes=notes)
    assert found["label"][:] == [1, 1, 0]
    assert notes == [
        "several of these pictures' classes are one class of the model: 'Hot dog' is 'hot dog', 'hot_dog' is 'hot dog'"
    ]


# --- training data -----------------------------------------------------------------------------------------------


def load(root, any_tokenizer, **more):
    return load_training_data(PictureSource(folder=root), PartialState(cpu=True), tokenizer=any_tokenizer, **more)


def test_folders_that_are_one_class_are_named_with_a_way_out(tmp_path, any_tokenizer):
    draw(tmp_path, "hot_dog/1.png", "hot dog/1.png", "owl/1.png")
    with pytest.raises(ValueError) as refused:
        load(tmp_path, any_tokenizer)
    message = str(refused.value)
    assert "'hot dog' and 'hot_dog'" in message
    assert "they differ in blanks or underscores alone" in message
    assert "--class_names" in message
    assert "allow_duplicates" not in message
    (tmp_path / "names.csv").write_text("hot_dog,sausage\nowl,hot dog\n")  # `hot_dog` is that folder, to the letter
    with pytest.raises(ValueError, match=r"'hot dog' and 'owl' \(in prompts 'hot dog' and 'hot dog'\)"):
        load(tmp_path, any_tokenizer, class_names=tmp_path / "names.csv")
    (tmp_path / "names.csv").write_text("hot_dog,sausage\n")
    data = load(tmp_path, any_tokenizer, class_names=tmp_path / "names.csv")
    assert data.class_names == ["hot dog", "sausage", "owl"]


def test_training_and_test_folders_may_be_composed_otherwise(tmp_path, any_tokenizer):
    draw(tmp_path / "train", f"{DECOMPOSED}/1.png", "owl/1.png")
    draw(tmp_path / "test", f"{COMPOSED}/1.png", "owl/1.png")
    data = load(tmp_path / "train", any_tokenizer, validation=PictureSource(folder=tmp_path / "test"))
    assert data.class_names == [COMPOSED, "owl"]
    assert data.validation["label"][:] == [0, 1]
    assert data.notes == []


def test_parts_of_names_never_go_without_a_note(tmp_path):
    draw(tmp_path, "2023.Winter/1.png", "2024.Winter/1.png", "1042.AB/1.png", "10.M8 bolt/1.png")
    data = load(tmp_path, None)
    assert data.class_names == ["10.M8 bolt", "1042.AB", "2023.Winter", "2024.Winter"]
    assert ["numbers or codes: '1042.AB'" in note for note in data.notes] == [True]


# --- saved adapters ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """An adapter two of whose classes have one name."""
    clip, processor = load_clip()
    model = scramble(get_peft_model(clip, MMRLConfig(rep_dim=16)))
    model.set_classes(["missile", "hot dog", "missile", COMPOSED], processor, allow_duplicates=True)
    folder = tmp_path_factory.mktemp("twice")
    model.save_pretrained(folder)
    return folder


def test_trained_classes_of_one_name_are_bound_as_one(twice):
    model, _ = load_classifier(twice)
    assert model.classes == ["missile", "hot dog", COMPOSED]
    assert model.seen == [True] * 3


@pytest.mark.parametrize("name", ["hot_dog", "Hot Dog", DECOMPOSED, "missile"])
def test_a_new_class_that_was_trained_is_the_trained_one(twice, name):
    model, _ = load_classifier(twice, None, [name, "owl"])
    assert model.classes == ["missile", "hot dog", COMPOSED, "owl"]
    assert model.seen == [True, True, True, False]


def test_new_classes_that_are_the_same_are_refused(twice):
    with pytest.raises(ValueError, match="capitals alone. Name one of them otherwise, or leave it out") as refused:
        load_classifier(twice, None, ["owl", "OWL"])
    assert "allow_duplicates" not in str(refused.value)


def test_predict_and_evaluate_say_how_they_treat_classes_of_one_name(twice, tmp_path, capsys):
    pictures = draw(tmp_path / "pictures", "missile/1.png", "hot_dog/1.png", f"{DECOMPOSED}/1.png", "owl/1.png")
    predict, evaluate = load_example("predict"), load_example("evaluate")
    predict.main(predict.parse_args([str(twice), str(pictures), "--classes", "hot_dog", "owl", "--format", "csv"]))
    told = capsys.readouterr()
    assert "one name are scored as one class: 'missile' (positions 0 and 2)" in told.err
    assert len(list(csv.DictReader(told.out.splitlines()))) == 4
    evaluate.main(evaluate.parse_args([str(twice), str(pictures), "--output_dir", str(tmp_path / "out")]))
    assert "one name are scored as one class: 'missile' (positions 0 and 2)" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [row["class"] for row in metrics["per_class"]] == ["missile", "hot dog", COMPOSED, "owl"]
    assert [row["pictures"] for row in metrics["per_class"]] == [1] * 4


def test_the_converter_says_what_classes_of_one_name_mean(tmp_path):
    case = Case("mmrl")
    arguments = {name: case.settings[name] for name in ("template", "vision_layers", "text_layers")}
    with pytest.warns(UserWarning, match=r"same name: 'cat' \(positions 0 and 2\)"):
        convert_checkpoint(
            case.folder / "model.pth.tar-5",
            tmp_path,
            base_model_name_or_path=str(case.folder / "clip"),
            classes=["cat", "polar bear", "cat"],
            **arguments,
        )


def test_the_linear_probe_tells_equal_names_apart():
    settings = TrainingSettings(epochs=1)
    names = ["missile", "owl", "missile"]
    pictures = [PIL.Image.new("RGB", (32, 32), color) for color in ("red", "green", "blue")] * 4
    dataset = Dataset.from_dict({"image": pictures, "label": [0, 1, 2] * 4, "path": list(map(str, range(12)))})
    clip, processor = load_clip()
    classifier = fit_classifier(
        "linear-probe", clip, processor, dataset, names, "a {}", settings, make_accelerator(settings, cpu=True)
    )
    assert torch.equal(classifier.logits(dataset, names).argmax(dim=1), torch.tensor(dataset["label"]))
    assert classifier.logits(dataset, ["Owl", "zero", "Missile"]).argmax(dim=1)[1] == 0


def test_names_are_saved_as_given_but_for_underscores_and_outer_blanks():
    assert clean_names(["one__two", f" {DECOMPOSED}\t"]) == ["one  two", DECOMPOSED]
    assert [spaced(name) for name in ("one__two", f" {DECOMPOSED}  au_lait", "A")] == [
        "one two",
        f"{COMPOSED} au lait",
        "A",
    ]
