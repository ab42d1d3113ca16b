"""`predict --explain`: where the tokens look, what either feature says, and which training pictures are nearest."""

import io
import json

import numpy as np
import PIL.Image
import pytest
import torch
from accelerate import Accelerator
from architectures import ARCHITECTURES
from conftest import DEMO_CLIP, WordTokenizer, make_clip, scramble
from datasets import Dataset, Image
from peft import get_peft_model
from PIL import ImageDraw
from transformers import CLIPModel, CLIPProcessor

import peft_mmrl
from peft_mmrl import MMRLConfig, Preprocessing
from peft_mmrl.commands import predict
from peft_mmrl.explaining.attention import attention_maps
from peft_mmrl.fitting.why import Why
from peft_mmrl.hub.upload import ADAPTER_FILES
from peft_mmrl.scoring.labelled import Predictions
from peft_mmrl.scoring.reference import REFERENCE_FILE, Reference
from peft_mmrl.training import TrainingSettings


CELL = 8  # pixels: the side of a mark and of a patch
NAMES = ["vertical line", "horizontal line"]


def marked(label, generator):
    """A dark picture with a small line in a random patch, upright or lying by its class; and that patch."""
    picture = PIL.Image.fromarray(generator.integers(0, 25, (32, 32)).astype(np.uint8)).convert("RGB")
    row, column = generator.integers(0, 32 // CELL, 2)
    (x, y), draw = (column * CELL, row * CELL), ImageDraw.Draw(picture)
    box = (x + 1, y + 3, x + 6, y + 4) if label else (x + 3, y + 1, x + 4, y + 6)
    draw.rectangle(box, fill="white")
    return picture, (row, column)


def draw_marked(count, generator):
    """Pictures, their labels and the cells of their marks."""
    labels = np.arange(count) % 2
    pictures, cells = zip(*(marked(label, generator) for label in labels), strict=True)
    return list(pictures), torch.tensor(labels), cells


@pytest.fixture(scope="module")
def trained():
    """A model that looks for the marks, and its processor."""
    generator, processor = np.random.default_rng(1), CLIPProcessor.from_pretrained(DEMO_CLIP)
    torch.manual_seed(1)
    model = get_peft_model(CLIPModel.from_pretrained(DEMO_CLIP), MMRLConfig(rep_dim=64, reg_weight=0.01))
    model.set_classes(NAMES, processor)
    pictures, labels, _ = draw_marked(64, generator)
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], 3e-3)
    model.train()
    for _ in range(15):
        for rows in torch.randperm(len(labels)).split(8):
            model(pixel_values=pixels[rows], labels=labels[rows]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval(), processor


def assert_look_at(maps, cells):
    """Maps (B, 1 + K, 4, 4) of pictures with a mark each have their mass there."""
    mass = torch.stack([one[:, row, column] for one, (row, column) in zip(maps, cells, strict=True)]).mean(dim=0)
    assert mass.shape == (6,)
    assert (mass > 3 * (CELL / 32) ** 2).all(), mass  # of the class token and of all representation tokens


def test_on_a_planted_mark_the_maps_have_their_mass_there(trained):
    model, processor = trained
    pictures, labels, cells = draw_marked(40, np.random.default_rng(7))
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        right = (model(pixel_values=pixels).logits.argmax(dim=1) == labels).float().mean()
    assert right >= 0.8  # the mark alone decides: who does not look at it has 0.5
    assert_look_at(attention_maps(model, pixels), cells)


def why_of_marked(trained, folder, folds):
    """What makes a report's page on 40 pictures with a mark, their predictions and data set, labels and cells."""
    model, processor = trained
    pictures, labels, cells = draw_marked(40, np.random.default_rng(7))
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    files = [{"path": str(folder / f"{number}.png"), "bytes": None} for number in range(40)]
    names = [f"photos/{number}.png" for number in range(40)]
    data = Dataset.from_dict({"image": files, "path": names}).cast_column("image", Image(decode=False))
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad(), model.disable_adapter():
        features = model(pixel_values=pixels).image_embeds
    groups = torch.arange(40) // 2  # pictures 0 and 1 show the same scene, and so on
    paths = [file["path"] for file in files]
    reference = Reference(paths, features, torch.zeros(40, 3), labels, groups, NAMES, {})
    wrong = torch.nn.functional.one_hot(1 - labels, 2).float()
    predictions = Predictions(NAMES, [True, True], names, labels, wrong, wrong, folds=folds)
    why = Why(model, Preprocessing.of(model, processor), data, reference, Accelerator(cpu=True))
    return why, predictions, data, labels, cells


@pytest.mark.parametrize("folds", [0, 4])
def test_a_report_says_why_on_a_planted_mark(trained, tmp_path, folds):
    why, predictions, data, labels, cells = why_of_marked(trained, tmp_path, folds)
    names = data["path"][:]
    assert why.write(tmp_path / "report", "marks", predictions, data) == "why.html"
    text, page = ((tmp_path / "report" / name).read_text() for name in ("why.jsonl", "why.html"))
    rows = [json.loads(line) for line in text.splitlines()]
    numbers = [names.index(row["path"]) for row in rows]
    assert len(rows) == 4  # that is bounded
    assert_look_at(torch.tensor([list(row["maps"].values()) for row in rows]), [cells[number] for number in numbers])
    for number, row in zip(numbers, rows, strict=True):
        nearest = [names.index(other["path"]) for other in row["nearest"]]
        assert len(nearest) == 3
        assert not folds or not any(other // 2 == number // 2 for other in nearest)
        assert f"is {NAMES[labels[number]]}; the report says: before {NAMES[1 - labels[number]]}" in page
    assert page.count("<img") == 4 * (1 + 6 + 3)
    assert ("These models are not kept" in page) == bool(folds)
    assert str(tmp_path) not in text + page  # no place of this machine


@pytest.mark.parametrize("gone", [[2], [0, 3], [0, 1, 2, 3]])
def test_pictures_that_are_gone_keep_their_place_in_a_report(trained, tmp_path, gone):
    why, predictions, data, _, cells = why_of_marked(trained, tmp_path, folds=4)
    for number in gone:
        (tmp_path / f"{number}.png").unlink()
    why.write(tmp_path / "report", "marks", predictions, data)
    text, page = ((tmp_path / "report" / name).read_text() for name in ("why.jsonl", "why.html"))
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["path"] for row in rows] == [f"photos/{number}.png" for number in range(4)]
    assert [number for number, row in enumerate(rows) if row["error"]] == gone
    there = [number for number in range(4) if number not in gone]
    if there:
        maps = torch.tensor([list(rows[number]["maps"].values()) for number in there])
        assert_look_at(maps, [cells[number] for number in there])
    places = [page.index(f"photos/{number}.png") for number in range(4)]
    assert places == sorted(places)


@pytest.mark.parametrize("decided", [False, True])
@pytest.mark.parametrize("beta", [None, 0.6])
def test_maps_are_those_of_eager_attention(images, beta, decided):
    config = MMRLConfig(rep_dim=16) if beta is None else MMRLConfig.plus_plus(rep_dim=16, beta=beta)
    model = scramble(get_peft_model(make_clip(), config)).eval()
    model.set_classes(["cat", "dog"], WordTokenizer())
    model.eval()
    if decided:
        model.fit_decision(images, torch.tensor([0, 1, 0, 1]))
    expected = model(pixel_values=images).logits
    maps = attention_maps(model, images)
    assert torch.equal(model(pixel_values=images).logits, expected)  # nothing is left of the hooks
    assert maps.shape == (4, 1 + config.num_rep_tokens, 4, 4)
    assert torch.allclose(maps.sum(dim=(2, 3)), torch.ones(4, 1 + config.num_rep_tokens))
    model.get_base_model().set_attn_implementation("eager")
    output = model(pixel_values=images, output_attentions=True)
    before = 1 + config.num_rep_tokens
    own = output.vision_model_output.attentions[-1][:, :, :before, before:].mean(dim=1)
    own = own / own.sum(dim=-1, keepdim=True)
    assert torch.allclose(maps.flatten(2), own, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_backbone_has_maps(name, images):
    model = scramble(get_peft_model(ARCHITECTURES[name].model(), MMRLConfig(rep_dim=16))).eval()
    ids, _ = ARCHITECTURES[name].padded([ARCHITECTURES[name].row(1, 2), ARCHITECTURES[name].row(3)])
    model.set_classes(["cat", "dog"], lambda texts: {"input_ids": ids[: len(texts)].tolist()})
    assert attention_maps(model.eval(), images).shape[:2] == (4, 6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run on marked pictures, and these."""
    root, generator = tmp_path_factory.mktemp("run"), np.random.default_rng(1)
    for label, name in enumerate(NAMES):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(4):
            marked(label, generator)[0].save(root / "photos" / name / f"{number}.png")
    peft_mmrl.fit(
        root / "photos",
        output_dir=root / "adapter",
        base_model=str(DEMO_CLIP),
        settings=TrainingSettings(epochs=1),
        folds=0,
    )
    return root


def test_a_run_has_the_page_beside_its_report_and_it_is_not_pushed(run, tmp_path):
    out = tmp_path / "quick"
    peft_mmrl.fit(run / "photos", output_dir=out, base_model=str(DEMO_CLIP), quick=True, folds=2)
    assert 'href="why.html"' in (out / "report" / "report.html").read_text()
    rows = [json.loads(line) for line in (out / "report" / "why.jsonl").read_text().splitlines()]
    shown = (out / "report" / "report.html").read_text()
    assert rows and all(row["path"] in shown and list(row["maps"]) == ["class token"] for row in rows)
    assert all(row["path"] not in [other["path"] for other in row["nearest"]] for row in rows)
    assert {"report/why.html", "report/why.jsonl"} <= set(json.loads((out / "run.json").read_text())["files"])
    assert not [path for pattern in ADAPTER_FILES for path in out.glob(pattern) if "why" in path.name]


def test_a_training_picture_is_not_its_own_neighbour(run, tmp_path):
    picture = run / "photos" / NAMES[0] / "0.png"
    answered(run / "adapter", picture, "--explain", tmp_path / "why")
    row = json.loads((tmp_path / "why" / "explain.jsonl").read_text())
    assert len(row["nearest"]) == 3 and str(picture) not in [other["path"] for other in row["nearest"]]


def test_a_run_without_decision_and_figures_keeps_what_its_pictures_are_like(run, tmp_path):
    given = {"base_model": str(DEMO_CLIP), "flip": False, "decision": False, "folds": 0, "epochs": 1}
    peft_mmrl.fit(run / "photos", output_dir=tmp_path / "plain", **given)
    assert len(Reference.load(tmp_path / "plain")) == 8


def answered(*arguments):
    output = io.StringIO()
    predict.main(predict.parse_args([*map(str, arguments), "--format", "jsonl"]), output)
    return output.getvalue()


def test_pages_say_why_and_answers_stay_the_same(run, tmp_path):
    photos = tmp_path / "new"
    photos.mkdir()
    first = next((run / "photos" / NAMES[0]).iterdir())
    (photos / "a.png").write_bytes(first.read_bytes())
    (photos / "b.png").write_bytes(b"")
    out = tmp_path / "why"
    assert answered(run / "adapter", photos, "--explain", out) == answered(run / "adapter", photos)
    rows = [json.loads(line) for line in (out / "explain.jsonl").read_text().splitlines()]
    answer = json.loads(answered(run / "adapter", photos).splitlines()[0])
    assert [row["path"] for row in rows] == [str(photos / "a.png"), str(photos / "b.png")]
    assert rows[1]["error"] == "the file is empty"
    assert list(rows[0]["maps"]) == ["class token", *(f"token {number}" for number in range(1, 6))]
    assert rows[0]["scores"][0]["label"] == answer["label"]
    assert rows[0]["scores"][0]["probability"] == pytest.approx(answer["probability"], abs=1e-4)
    assert {"class_logit", "rep_logit"} <= set(rows[0]["scores"][0])
    nearest = rows[0]["nearest"][0]
    assert (
        nearest["path"] == str(first)
        and nearest["label"] == NAMES[0]
        and nearest["cosine"] == pytest.approx(1, abs=1e-3)
    )
    page = (out / "explain-1.html").read_text()
    assert page.count("<img") == 1 + 6 + 3 and "the file is empty" in page
    assert json.loads((out / "run.json").read_text())["files"] == ["explain-1.html", "explain.jsonl"]


def test_a_training_picture_that_is_gone_is_named(run, tmp_path):
    photos = tmp_path / "new"
    photos.mkdir()
    gone = run / "photos" / NAMES[1] / "3.png"
    content = gone.read_bytes()
    (photos / "a.png").write_bytes(content)
    gone.unlink()
    answered(run / "adapter", photos, "--explain", tmp_path / "why")
    gone.write_bytes(content)
    assert f"{gone} is not there" in (tmp_path / "why" / "explain-1.html").read_text()


def test_an_adapter_that_knows_no_training_pictures_says_so(run, tmp_path, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in (run / "adapter").iterdir():
        if path.is_file() and path.name != REFERENCE_FILE:
            (bare / path.name).write_bytes(path.read_bytes())
    answered(bare, run / "photos" / NAMES[0] / "0.png", "--explain", tmp_path / "why")
    assert "nearest training pictures are not shown" in capsys.readouterr().err
    assert json.loads((tmp_path / "why" / "explain.jsonl").read_text())["nearest"] is None


def test_nothing_is_lost_in_the_folder(run, tmp_path):
    picture, out = run / "photos" / NAMES[0] / "0.png", tmp_path / "why"
    answered(run / "adapter", picture, "--explain", out)
    for place, words in [(out, "holds a run already"), (run / "adapter", "another script"), (run, "other things")]:
        with pytest.raises(SystemExit, match=words):
            answered(run / "adapter", picture, "--explain", place)
    answered(run / "adapter", picture, "--explain", out, "--overwrite_output_dir")
