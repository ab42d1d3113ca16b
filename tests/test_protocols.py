"""The field's protocols: who is trained on what, tested among which classes, and what becomes of the runs."""

import json
import random
import shutil
from dataclasses import replace

import base_to_new
import cross_dataset
import digits
import few_shot
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from demo_parts.methods import load_clip
from published_layouts import WORDNET, write_split, write_wordnet

from peft_mmrl import protocols
from peft_mmrl.commands import protocol_arguments
from peft_mmrl.data import save_split
from peft_mmrl.data.benchmarks import BenchmarkData, load_benchmark
from peft_mmrl.protocols import runs as runs_module
from peft_mmrl.protocols.comparison import table
from peft_mmrl.protocols.readable import check_pictures_of_runs
from peft_mmrl.protocols.rows import make_rows
from peft_mmrl.protocols.runs import Run, sample
from peft_mmrl.protocols.tasks import check_classes, select_classes
from peft_mmrl.training import TrainingSettings, Transfer, fit_classifier, make_accelerator


NAMES = ["ant", "bee", "cat", "dog", "eel"]


def labelled(labels, names=NAMES):
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=names), "path": Value("string")})
    rows = {"image": [None] * len(labels), "label": labels, "path": [f"{place}.png" for place in range(len(labels))]}
    return Dataset.from_dict(rows, features=features)


def make_data(name="animals", train=(4, 3, 2, 1, 0) * 6, test=(0, 1, 2, 3, 4, 4), names=NAMES, **kwargs):
    train = None if train is None else labelled(list(train), names)
    return BenchmarkData(name, name, "a {}.", list(names), train, None, labelled(list(test), names), **kwargs)


class Recorder:
    """Stands for training and the classifier that it gives: right on every picture but the first of each test."""

    def __init__(self):
        self.trained, self.tested = None, []

    def __call__(self, train, names, template):
        self.trained = (train["path"][:], train["label"][:], names, template)
        return {"mmrl": self}

    def logits(self, dataset, names, transfer=None):
        labels = torch.tensor(dataset["label"][:])
        self.tested.append((labels.tolist(), names, transfer))
        right = torch.nn.functional.one_hot(labels, len(names)).float()
        right[0] = right[0].roll(1)
        return right

    def with_decision(self, train, names):
        self.decided = (train["path"][:], names)
        return self

    def save(self, folder):
        folder.mkdir()


@pytest.mark.parametrize(("classes", "base"), [(10, 5), (11, 6), (37, 19), (101, 51), (1000, 500)])
def test_base_classes_are_the_first_half_and_the_middle_one(classes, base):
    found, new = protocols.base_new_classes(classes)
    assert (list(found), list(new)) == (list(range(base)), list(range(base, classes)))


def test_selected_classes_are_numbered_from_0():
    chosen = select_classes(labelled([4, 0, 3, 1, 3]), range(3, 5))
    assert chosen["label"][:] == [1, 0, 0]
    assert chosen["path"][:] == ["0.png", "2.png", "4.png"]
    assert chosen.features["label"].names == ["dog", "eel"]


def test_base_to_new_trains_on_base_and_tests_each_part_among_itself():
    recorder, data = Recorder(), make_data()
    scores = protocols.base_to_new(data, data.train.select(range(10)), recorder)
    paths, labels, names, template = recorder.trained
    assert (names, template) == (["ant", "bee", "cat"], "a {}.")
    assert labels == [2, 1, 0, 2, 1, 0]
    assert paths == ["2.png", "3.png", "4.png", "7.png", "8.png", "9.png"]
    assert recorder.tested == [
        ([0, 1, 2], ["ant", "bee", "cat"], None),
        ([0, 1, 1], ["dog", "eel"], Transfer("a {}.")),  # new whatever their names: class feature alone
    ]
    assert scores == {"mmrl": pytest.approx({"base": 200 / 3, "new": 200 / 3, "h": 200 / 3})}


def test_all_classes_compete_where_that_is_asked_for():
    recorder, data = Recorder(), make_data()
    scores = protocols.base_to_new(data, data.train, recorder, with_all=True)
    assert recorder.tested[2:] == [([0, 1, 2, 3, 4, 4], NAMES, Transfer("a {}.", trained=3))]
    assert list(scores["mmrl"]) == ["base", "new", "h", "all"]
    assert scores["mmrl"]["all"] == pytest.approx(500 / 6)


def test_few_shot_tests_all_classes():
    recorder, data = Recorder(), make_data()
    assert protocols.few_shot(data, data.train, recorder) == {"mmrl": pytest.approx({"accuracy": 500 / 6})}
    assert recorder.trained[2] == NAMES
    assert recorder.tested == [([0, 1, 2, 3, 4, 4], NAMES, None)]


def test_targets_are_new_classes_with_their_own_template_and_beta():
    recorder, data = Recorder(), make_data()
    target = replace(make_data("eurosat", None, [1, 0], ["ant", "road"]), template="seen from above: {}.")
    other = make_data("unheard-of", None, [0, 1, 1, 0], ["x", "y"])
    scores = protocols.cross_dataset(data, data.train, recorder, [target, other])
    assert scores == {"mmrl": pytest.approx({"animals": 500 / 6, "eurosat": 50, "unheard-of": 75})}
    transfers = [transfer for _, _, transfer in recorder.tested]
    assert transfers == [None, Transfer("seen from above: {}.", 0.3), Transfer("a {}.", None)]


def test_the_class_feature_alone_scores_other_data_sets():
    clip, processor = load_clip()
    settings = TrainingSettings(epochs=1, config={"beta": 0.9})
    accelerator = make_accelerator(settings)
    pictures = digits.as_benchmark().test.select(range(12))
    names = digits.CLASS_NAMES
    classifier = fit_classifier("mmrl++", clip, processor, pictures, names, digits.TEMPLATE, settings, accelerator)
    fused = classifier.logits(pictures, names)
    moved = classifier.logits(pictures, names, Transfer("the number {}.", beta=0.3))
    config = classifier.model.peft_config["default"]
    assert (config.beta, config.template) == (0.9, digits.TEMPLATE)
    assert torch.equal(classifier.logits(pictures, names), fused)
    config.beta = 0.3
    classifier.model.set_classes(names, processor, template="the number {}.")
    images = [processor(images=digits.load_digits()["test"][row]["image"], return_tensors="pt") for row in range(12)]
    with torch.no_grad():
        expected = classifier.model(pixel_values=torch.cat([image.pixel_values for image in images])).class_logits
    assert torch.allclose(moved, expected, atol=1e-4)
    assert not torch.allclose(moved, fused, atol=1e-2)


def test_classes_without_pictures_are_named():
    with pytest.raises(ValueError, match=r"2 of 5 classes have no picture in the train split .*0 to 4\): dog, eel"):
        check_classes(make_data(train=[0, 1, 2]), "base-to-new")
    with pytest.raises(ValueError, match=r"1 of 5 classes have no picture in the test split .*: bee"):
        check_classes(make_data(test=[0, 2, 3, 4]), "few-shot")
    with pytest.raises(ValueError, match="at least 4"):
        check_classes(make_data(train=[0, 1, 2], test=[0, 1, 2], names=NAMES[:3]), "base-to-new")
    with pytest.raises(ValueError, match="no training pictures"):
        check_classes(make_data(train=None), "few-shot")


def make_run(data, seed=1, shots=2, method="mmrl", **settings):
    return Run("few-shot", data, method, shots, TrainingSettings(seed=seed, **settings), "no-clip")


def folder_with_imagenet(root, reverse):
    numbers = list(WORDNET)[::-1] if reverse else list(WORDNET)
    write_wordnet(root, "imagenet", [f"{part}/{number}" for part in ("val", "train") for number in numbers])
    for number in numbers:
        for extra in ("9.JPEG", "10.JPEG", "3.JPEG")[:: -1 if reverse else 1]:
            shutil.copy(
                root / f"imagenet/images/train/{number}/1.JPEG", root / f"imagenet/images/train/{number}/{extra}"
            )
    return load_benchmark("imagenet", root)


def test_a_seed_draws_the_same_pictures_on_every_machine(tmp_path):
    """Whatever the order in which files were made, the root, and what else used `random`."""
    first = folder_with_imagenet(tmp_path / "here", reverse=False)
    second = folder_with_imagenet(tmp_path / "moved" / "there", reverse=True)
    drawn = []
    for seed in (1, 2, 3):
        found = sample(make_run(first, seed))["train"]
        random.random()
        assert sample(make_run(second, seed))["train"]["path"][:] == found["path"][:]
        assert found["label"][:] == [0, 0, 1, 1, 2, 2]
        drawn.append(found["path"][:])
    assert drawn[0] != drawn[1] != drawn[2]


def test_validation_pictures_are_drawn_after_the_others(tmp_path):
    rows = [(f"{name}/{number}.jpg", label, name) for label, name in enumerate("ab") for number in range(9)]
    write_split(tmp_path, "dtd", rows)
    data = load_benchmark("dtd", tmp_path)
    parts = sample(make_run(data, seed=1, shots=8))
    rng = random.Random(1)
    groups = [[index for index, row in enumerate(rows) if row[1] == label] for label in (0, 1)]
    for part, count in (("train", 8), ("validation", 4)):
        expected = [index for group in groups for index in rng.sample(group, count)]
        source = data.train if part == "train" else data.validation
        assert parts[part]["path"][:] == [source["path"][index] for index in expected]


@pytest.fixture
def fake_training(monkeypatch):
    """Runs that train nothing; gives what was trained."""
    trained = []

    def fit_classifier(method, clip, processor, train, names, template, settings, accelerator):
        trained.append((method, settings.seed))
        if settings.seed == 13:
            raise KeyboardInterrupt
        return Recorder()

    monkeypatch.setattr(runs_module, "load_clip", lambda name: (None, None))
    monkeypatch.setattr(runs_module, "fit_classifier", fit_classifier)
    return trained


def test_finished_runs_are_not_repeated_and_interrupted_ones_go_on(tmp_path, fake_training, capsys):
    data = make_data()
    planned = [make_run(data, seed) for seed in (1, 13, 3)]
    with pytest.raises(KeyboardInterrupt):
        protocols.complete(planned, protocols.few_shot, tmp_path)
    assert fake_training == [("mmrl", 1), ("mmrl", 13)]
    assert (tmp_path / "animals" / "mmrl" / "shots_2" / "seed_13" / "split.json").exists()
    fake_training.clear()
    planned = [make_run(data, seed) for seed in (1, 3)]
    results = protocols.complete(planned, protocols.few_shot, tmp_path, save_adapters=True)
    assert fake_training == [("mmrl", 3)]
    assert results == [{"mmrl": {"accuracy": pytest.approx(500 / 6)}}] * 2
    assert "run 2 of 2: animals, mmrl, 2 shots, seed 3" in capsys.readouterr().err
    assert (planned[1].folder(tmp_path) / "adapter").is_dir()
    assert protocols.complete(planned, protocols.few_shot, tmp_path) == results
    assert fake_training == [("mmrl", 3)]


def test_a_run_with_a_decision_has_both_results_and_is_no_other_run(tmp_path, fake_training):
    data = make_data()
    plain, decides = make_run(data), replace(make_run(data), decision=True)
    results = protocols.complete([decides], protocols.few_shot, tmp_path, save_adapters=True)
    assert list(results[0]) == ["mmrl", "mmrl-decision"]
    assert protocols.complete([decides], protocols.few_shot, tmp_path) == results
    assert fake_training == [("mmrl", 1)]  # once for both
    with pytest.raises(ValueError, match=r"another value of decision \(decision: True there, None now"):
        runs_module.read_scores(plain, tmp_path)
    protocols.complete([plain], protocols.few_shot, tmp_path / "plain")
    with pytest.raises(ValueError, match=r"another value of decision \(decision: None there, True now"):
        runs_module.read_scores(decides, tmp_path / "plain")


def test_rows_of_a_decision_stand_beside_the_papers_way():
    runs = [
        Run("base-to-new", make_data(name), "mmrl", 16, TrainingSettings(), "no-clip", decision=True)
        for name in ("eurosat", "dtd")
    ]
    papers, decided = ({"base": 90.0, "new": 60.0, "h": 72.0, "all": value} for value in (40.0, 70.0))
    rows = make_rows(runs, [{"mmrl": papers, "mmrl-decision": decided}] * 2)
    assert [row.method for row in rows] == ["mmrl", "mmrl-decision"] * 3
    assert [row.mean["all"] for row in rows[-2:]] == [40, 70]  # the averages
    assert rows[0].paper
    assert not rows[1].paper  # the papers know no decision
    lines = table(rows).splitlines()
    assert lines[0].split()[-3:] == ["all", "paper", "rerun"]
    assert lines[1].split()[-11:-9] == ["40.00", "85.67"]
    assert lines[2].split()[:3] == ["DTD", "MMRL,", "decision"]
    assert lines[2].split()[-3:] == ["70.00", "-", "-"]


def test_the_split_of_earlier_runs_can_be_read_again(tmp_path, fake_training):
    data = make_data()
    protocols.complete([make_run(data, 7)], protocols.few_shot, tmp_path / "old")
    split = json.loads((tmp_path / "old" / "animals" / "mmrl" / "shots_2" / "seed_7" / "split.json").read_text())
    assert len(split["train"]) == 10
    again = sample(make_run(data, 7, method="lora"), tmp_path / "old")["train"]
    assert again["path"][:] == split["train"]
    with pytest.raises(FileNotFoundError, match="--split_dir: there is no .*seed_8"):
        sample(make_run(data, 8), tmp_path / "old")


def test_a_run_with_other_pictures_is_refused(tmp_path, fake_training):
    data = make_data()
    run = make_run(data)
    run_with_other_pictures = make_run(replace(data, train=data.train.select(range(29, -1, -1))))
    protocols.complete([run], protocols.few_shot, tmp_path / "old")
    protocols.complete([run_with_other_pictures], protocols.few_shot, tmp_path / "other")
    runs_module.check_split(run, tmp_path / "old", None)
    runs_module.check_split(run, tmp_path / "old", tmp_path / "old")
    runs_module.check_split(run, tmp_path / "new", tmp_path / "other")
    with pytest.raises(ValueError, match=r"seed_1/split.json holds other pictures .*repeat --split_dir"):
        runs_module.check_split(run, tmp_path / "old", tmp_path / "other")
    with pytest.raises(ValueError, match="holds other pictures"):
        runs_module.check_split(run_with_other_pictures, tmp_path / "old", None)


def test_a_folder_of_another_run_is_refused(tmp_path, fake_training):
    data = make_data()
    protocols.complete([make_run(data, epochs=3)], protocols.few_shot, tmp_path)
    with pytest.raises(ValueError, match=r"seed_1 holds a run with another value of epochs \(epochs: 3 there, 4 now"):
        runs_module.read_scores(make_run(data, epochs=4), tmp_path)
    other = tmp_path / "animals" / "mmrl" / "shots_2" / "seed_2"
    other.mkdir()
    (other / "notes.txt").touch()
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        runs_module.read_scores(make_run(data, 2), tmp_path)


def test_rows_hold_mean_spread_average_and_published_numbers():
    runs = [
        Run("base-to-new", make_data(name), "mmrl", 16, TrainingSettings(seed=seed), "no-clip")
        for name in ("eurosat", "dtd")
        for seed in (1, 2)
    ]
    pairs = [(90.0, 60.0), (100.0, 80.0), (80.0, 50.0), (80.0, 50.0)]
    results = [{"mmrl": {"base": base, "new": new, "h": 2 * base * new / (base + new)}} for base, new in pairs]
    dtd, eurosat, average = make_rows(runs, results)  # in the order of the benchmarks
    assert (dtd.dataset, eurosat.dataset, average.dataset) == ("dtd", "eurosat", "average of 2 data sets")
    assert eurosat.mean == pytest.approx({"base": 95, "new": 70, "h": 2 * 95 * 70 / 165})
    assert eurosat.spread["new"] == pytest.approx(10)
    assert eurosat.paper["new"] == 80.17
    assert average.mean == pytest.approx({"base": 87.5, "new": 60, "h": 2 * 87.5 * 60 / 147.5})
    assert average.paper["base"] == pytest.approx((95.60 + 85.67) / 2)
    text = table([dtd, eurosat, average])
    assert "EuroSAT                 MMRL    95.00 ± 5.00  70.00 ± 10.00" in text
    assert "95.60 / 80.17 / 87.21  96.10 / 72.33 / 82.54" in text


def test_transfer_is_averaged_without_source_and_apart_from_variants():
    run = Run("cross-dataset", make_data("imagenet"), "mmrl", 16, TrainingSettings(), "no-clip")
    scores = {"imagenet": 72.0, "dtd": 40.0, "eurosat": 50.0, "imagenet_a": 50.0, "imagenet_r": 70.0}
    averages = {row.dataset: row.mean["accuracy"] for row in make_rows([run], [{"mmrl": scores}])[5:]}
    assert averages == {"average of 2 data sets": 45.0, "average of 2 variants": 60.0}


def damaged_eurosat(root):
    """Four classes of 25 test pictures, of which one is missing and two are damaged; one to train on is missing."""
    rows = [(f"{label}/{n}.jpg", label, f"class {label}") for label in range(4) for n in range(25)]
    images = write_split(root, "eurosat", rows) / "2750"
    (images / "test_0/3.jpg").unlink()
    for name in ("test_1/4.jpg", "test_3/24.jpg"):
        (images / name).write_bytes((images / name).read_bytes()[:200])
    (images / "train_2/11.jpg").unlink()
    return ["--data_dir", str(root), "--datasets", "eurosat", "--base_model", str(digits.as_benchmark().base_model)]


def test_pictures_that_cannot_be_read_are_found_before_the_first_run(tmp_path):
    given = [*damaged_eurosat(tmp_path / "data"), "--shots", "25", *QUICK, "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stopped:
        base_to_new.main(base_to_new.parse_args(given))
    message = str(stopped.value)
    assert "4 pictures cannot be read" in message
    assert "EuroSAT, 2750/test_0/3.jpg: there is no such file" in message
    assert "EuroSAT, 2750/test_1/4.jpg: damaged" in message
    assert "EuroSAT, 2750/train_2/11.jpg: there is no such file" in message
    assert "--on_bad_image skip" in message
    assert not (tmp_path / "out").exists()


def test_a_result_of_some_of_the_pictures_is_marked(tmp_path, capsys):
    given = [*damaged_eurosat(tmp_path / "data"), "--shots", "2", *QUICK, "--baseline", "zero-shot"]
    given += ["--output_dir", str(tmp_path / "out"), "--on_bad_image", "skip"]
    base_to_new.main(base_to_new.parse_args(given))
    said = capsys.readouterr()
    assert "2750/test_0/3.jpg: there is no such file" in said.err
    assert "not comparable: EuroSAT, of which 97 of 100 test pictures were used" in said.out
    content = check_report(tmp_path / "out", "not comparable: EuroSAT")
    assert content["not_comparable"] == {"eurosat": "97 of 100 test pictures"}
    run = json.loads((tmp_path / "out/eurosat/zero-shot/shots_2/seed_1/run.json").read_text())
    assert (run["test_pictures"], run["incomplete"]) == (97, {"eurosat": "97 of 100 test pictures"})


def test_validation_pictures_are_drawn_but_need_not_be_there(tmp_path):
    """Nothing is trained or tested on them, and the split file names them all the same."""
    shutil.rmtree(damaged_eurosat(tmp_path)[1] + "/eurosat/2750/val_0")
    data = load_benchmark("eurosat", tmp_path)
    drawn = sample(make_run(data, shots=2))
    accelerator = make_accelerator(TrainingSettings())
    incomplete = check_pictures_of_runs([make_run(data, shots=2)], [], "skip", None, accelerator)
    assert incomplete == {"eurosat": "97 of 100 test pictures"}
    after = sample(make_run(data, shots=2))
    assert {name: part["path"][:] for name, part in after.items()} == {
        name: part["path"][:] for name, part in drawn.items()
    }
    assert any("val_0" in path for path in after["validation"]["path"])


def test_shots_that_cannot_be_read_are_replaced_unless_a_split_names_them(tmp_path):
    damaged_eurosat(tmp_path)
    data = load_benchmark("eurosat", tmp_path)
    accelerator, shots = make_accelerator(TrainingSettings()), 24
    incomplete = check_pictures_of_runs([make_run(data, shots=shots)], [], "skip", None, accelerator)
    assert incomplete == {"eurosat": "99 of 100 train pictures, 97 of 100 test pictures"}
    drawn = sample(make_run(data, shots=shots))["train"]
    assert len(drawn) == 4 * shots
    assert "2750/train_2/11.jpg" not in drawn["path"]
    data = load_benchmark("eurosat", tmp_path)
    folder = tmp_path / "earlier" / "eurosat" / "mmrl" / "shots_25" / "seed_1"
    folder.mkdir(parents=True)
    save_split(folder / "split.json", {"train": data.train, "validation": data.validation})
    with pytest.raises(ValueError, match=r"train_2/11\.jpg: there is no such file\nThe runs of --split_dir"):
        check_pictures_of_runs([make_run(data, shots=25)], [], "skip", tmp_path / "earlier", accelerator)


QUICK = ["--seeds", "1", "--epochs", "1"]


def check_report(folder, *texts):
    report = (folder / "results.txt").read_text()
    assert all(text in report for text in texts)
    assert (folder / "results.png").stat().st_size > 5000
    return json.loads((folder / "results.json").read_text())


def test_base_to_new_on_digits(tmp_path, capsys):
    given = ["--datasets", "digits", "--shots", "2", *QUICK, "--method", "mmrl++", "--baseline", "zero-shot"]
    base_to_new.main(base_to_new.parse_args([*given, "--output_dir", str(tmp_path)]))
    content = check_report(tmp_path, "MMRL++", "zero-shot")
    zero_shot = next(row["mean"] for row in content["rows"] if row["method"] == "zero-shot")
    assert zero_shot == pytest.approx({"base": 91.75, "new": 79.40, "h": 85.13}, abs=0.3)
    assert "zero-shot" in capsys.readouterr().out
    split = json.loads((tmp_path / "digits" / "mmrl++" / "shots_2" / "seed_1" / "split.json").read_text())
    assert len(split["train"]) == 20  # sampled of all classes, before base classes are chosen


def test_a_decision_stands_beside_what_the_papers_do(tmp_path):
    given = ["--datasets", "digits", "--shots", "2", *QUICK, "--method", "mmrl", "--baseline", "untrained"]
    given += ["--save_adapters"]
    for extra in ([], ["--decision"]):
        folder = tmp_path / "-".join(["out", *extra])
        base_to_new.main(base_to_new.parse_args([*given, *extra, "--output_dir", str(folder)]))
    plain, both = (
        {row["method"]: row["mean"] for row in check_report(tmp_path / name, "MMRL")["rows"]}
        for name in ("out", "out---decision")
    )
    assert list(both) == ["mmrl", "mmrl-decision", "untrained"]
    assert all(list(scores) == ["base", "new", "h", "all"] for scores in both.values())
    for method, scores in plain.items():
        assert scores == {name: both[method][name] for name in ("base", "new", "h")}
    assert both["mmrl-decision"]["all"] > both["mmrl"]["all"]
    check_report(tmp_path / "out---decision", "MMRL, decision", "decision without training", "all")
    adapter = "digits/mmrl/shots_2/seed_1/adapter/decision.safetensors"
    assert (tmp_path / "out---decision" / adapter).exists()
    assert not (tmp_path / "out" / adapter).exists()


def test_a_decision_changes_runs_only_where_it_has_a_say(tmp_path):
    given = ["--datasets", "digits", *QUICK, "--output_dir", str(tmp_path), "--decision"]
    given += ["--method", "mmrl", "--baseline", "lora"]
    marks = {}
    for module, protocol in ((base_to_new, "base-to-new"), (few_shot, "few-shot")):
        args = module.parse_args([*given, "--shots", "1"])
        planned = protocol_arguments.plan_runs(protocol, args, [digits.as_benchmark()], [1])
        marks[protocol] = {run.method: "decision" in run.description() for run in planned}
    assert marks == {"base-to-new": {"mmrl": True, "lora": True}, "few-shot": {"mmrl": True, "lora": False}}


def test_few_shot_on_digits(tmp_path):
    given = ["--datasets", "digits", "--shots", "1", "8", "--seeds", "1", "--baseline", "linear-probe"]
    few_shot.main(few_shot.parse_args([*given, "--output_dir", str(tmp_path)]))
    rows = check_report(tmp_path, "shots", "linear probe")["rows"]
    assert [row["shots"] for row in rows] == [1, 8]
    assert rows[0]["mean"]["accuracy"] + 5 < rows[1]["mean"]["accuracy"]


def test_transfer_from_digits(tmp_path):
    given = ["--source", "digits", "--targets", "digits_inverted", "--shots", "2", *QUICK, "--decision"]
    cross_dataset.main(cross_dataset.parse_args([*given, "--output_dir", str(tmp_path)]))
    assert [(row["dataset"], row["method"]) for row in check_report(tmp_path, "digits_inverted")["rows"]] == [
        ("digits", "mmrl"),
        ("digits", "mmrl-decision"),
        ("digits_inverted", "mmrl"),
        ("digits_inverted", "mmrl-decision"),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--datasets", "cifar10"], "no data set 'cifar10', only imagenet"),
        (["--datasets", "dtd", "--data_dir", "/nowhere"], "/nowhere/dtd"),
        (["--datasets", "digits", "digits"], "'digits' is named twice"),
        (["--datasets", "digits_inverted"], "no training pictures"),
        (["--datasets", "digits", "--shots", "0"], "`--shots` must be a positive"),
        (["--datasets", "digits", "--epochs", "0"], "`--epochs` must be a positive"),
        (["--datasets", "digits", "--seeds", "-1"], "`--seeds` must be a whole number from 0 to 4294967295, got -1"),
        (["--datasets", "digits", "--base_model", "/nowhere"], "The base model '/nowhere' can't be loaded"),
        (["--datasets", "digits", "--split_dir", "/nowhere"], "--split_dir: there is no /nowhere"),
        pytest.param(
            ["--datasets", "digits", "--mixed_precision", "fp16"],
            "fp16",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, on which fp16 works"),
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(given, message, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        base_to_new.main(base_to_new.parse_args([*given, "--output_dir", str(tmp_path / "out")]))
    assert message in str(stopped.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("results.txt", "is not empty, it holds other things"),
        ("eurosat/2750/notes.txt", "--data_dir with eurosat: .* lies in --output_dir"),
    ],
)
def test_what_no_run_has_written_is_not_replaced(name, message, tmp_path):
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    if "eurosat" in name:
        (tmp_path / "out" / "run.json").write_text('{"kind": "base-to-new"}')
    given = [
        "--datasets",
        "digits",
        *QUICK,
        "--data_dir",
        str(tmp_path / "out"),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    with pytest.raises(SystemExit, match=message):
        base_to_new.main(base_to_new.parse_args(given))
    assert mine.read_text() == "mine"


def test_an_interrupted_protocol_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs_module, "fit_classifier", interrupted)
    given = ["--datasets", "digits", *QUICK, "--shots", "1", "--output_dir", str(tmp_path / "out")]
    for _ in range(2):  # what it left is no obstacle
        with pytest.raises(SystemExit, match="^130$"):
            base_to_new.main(base_to_new.parse_args(given))
        assert "interrupted. Finished runs are kept: to go on, repeat the command" in capsys.readouterr().err
