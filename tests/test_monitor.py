"""`peft-mmrl monitor`: an alarm on pictures of another kind; on those of the same kind at most at the stated rate."""

import csv
import json
import os

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import DEMO_CLIP
from datasets import concatenate_datasets
from digits import CLASS_NAMES, load_digits
from PIL import ImageChops, ImageFilter, ImageOps

import peft_mmrl
from peft_mmrl.commands import monitor
from peft_mmrl.hub.upload import ADAPTER_FILES
from peft_mmrl.monitoring.martingale import conformal_p_values, simple_jumper
from peft_mmrl.scoring.reference import REFERENCE_FILE, Reference


CHANGES = {
    "inverted": ImageOps.invert,
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(2)),
    "shifted": lambda picture: ImageChops.offset(picture, 6, 6),
}
SHOTS, NEW, STREAMS = 16, 60, 20


def save(pictures, folder):
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        path = folder / f"{number}.png"
        picture.save(path)
        os.utime(path, (1_700_000_000 + 60 * number,) * 2)
    return folder


@pytest.fixture(scope="module")
def digits():
    """All pictures of the digits, and which are of each, in a random order."""
    data = concatenate_datasets(list(load_digits().values()))
    labels, generator = np.array(data["label"]), np.random.default_rng(0)
    return data["image"][:], [generator.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]


@pytest.fixture(scope="module")
def adapter(digits, tmp_path_factory):
    """A run on 16 pictures of each of five digits, without training."""
    pictures, of = digits
    root = tmp_path_factory.mktemp("run")
    for digit in range(5):
        save([pictures[row] for row in of[digit][:SHOTS]], root / "photos" / CLASS_NAMES[digit])
    peft_mmrl.fit(root / "photos", output_dir=root / "adapter", base_model=str(DEMO_CLIP), quick=True)
    return root / "adapter"


@pytest.fixture(scope="module")
def fresh(digits):
    pictures, of = digits
    rows = np.concatenate([of[digit][SHOTS:] for digit in range(5)])
    return [pictures[row] for row in rows]


def watched(adapter, folder, out, *arguments):
    """Exit code and findings."""
    try:
        monitor.main(monitor.parse_args([str(adapter), str(folder), "--output_dir", str(out), *map(str, arguments)]))
        code = 0
    except SystemExit as stopped:
        code = stopped.code
    return code, json.loads((out / "monitor.json").read_text()) if (out / "monitor.json").exists() else None


def some(pictures, seed=0, count=NEW):
    return [pictures[row] for row in np.random.default_rng(seed).permutation(len(pictures))[:count]]


def test_twenty_streams_of_the_same_kind_raise_no_alarm(adapter, fresh, tmp_path):
    codes = [
        watched(adapter, save(some(fresh, seed), tmp_path / f"new{seed}"), tmp_path / f"out{seed}", "--seed", seed)[0]
        for seed in range(STREAMS)
    ]
    assert codes == [0] * STREAMS  # at 1% there may be one; the evidence of these stays below 12, and 100 is an alarm


@pytest.mark.parametrize("change", CHANGES)
def test_changed_pictures_raise_an_alarm(adapter, fresh, tmp_path, change, capsys):
    changed = [CHANGES[change](picture) for picture in some(fresh)]
    code, found = watched(adapter, save(changed, tmp_path / "new"), tmp_path / "out")
    assert code == monitor.ALARM and found["alarm"]
    assert found["words"] in capsys.readouterr().out
    page = (tmp_path / "out" / "monitor.html").read_text()
    assert found["words"].split(":")[0] in page and page.count("<img") == len(found["drivers"]) > 0
    expected = {"inverted": "brighter", "blurred": "less contrast", "shifted": "farther from all reference pictures"}
    assert expected[change] in {step["what"] for step in found["steps"] if step["path"] in found["drivers"]}


def test_other_digits_raise_an_alarm(adapter, digits, tmp_path):
    pictures, of = digits
    others = [pictures[row] for row in np.concatenate([of[digit] for digit in range(5, 10)])]
    assert watched(adapter, save(some(others), tmp_path / "new"), tmp_path / "out")[0] == monitor.ALARM


def test_the_alarm_comes_after_the_change_and_not_before(adapter, fresh, tmp_path):
    pictures = some(fresh)
    stream = pictures[:30] + [ImageOps.invert(picture) for picture in pictures[30:]]
    code, found = watched(adapter, save(stream, tmp_path / "new"), tmp_path / "out")
    assert code == monitor.ALARM
    assert [step["path"] for step in found["steps"]].index(found["alarm_at"]) >= 30


def test_only_one_class_is_no_alarm(adapter, digits, tmp_path):
    pictures, of = digits
    stream = [pictures[row] for row in of[1][SHOTS : SHOTS + NEW]]
    assert watched(adapter, save(stream, tmp_path / "new"), tmp_path / "out")[0] == 0


def test_order_is_that_of_times_of_names_or_of_a_column(adapter, fresh, tmp_path):
    folder = save(some(fresh, count=12), tmp_path / "new")
    for number in range(12):
        os.utime(folder / f"{number}.png", (1_700_000_000 - 60 * number,) * 2)

    def order(place, out, *arguments):
        _, found = watched(adapter, place, tmp_path / out, *arguments)
        return [int(os.path.basename(step["path"]).removesuffix(".png")) for step in found["steps"]]

    assert order(folder, "time") == list(range(11, -1, -1))
    assert order(folder, "name", "--order", "name") == list(range(12))
    table = tmp_path / "table.csv"
    with open(table, "w", newline="") as file:
        rows = [
            ("image", "when"),
            *((f"new/{number}.png", f"2026-01-{1 + number * 5 % 12:02} 08:00") for number in range(12)),
        ]
        csv.writer(file).writerows(rows)
    assert order(table, "column", "--time_column", "when") == sorted(range(12), key=lambda number: number * 5 % 12)


def test_a_folder_may_be_the_reference(adapter, fresh, tmp_path):
    reference = save(fresh[::4], tmp_path / "right")
    rest = [picture for row, picture in enumerate(fresh) if row % 4]
    same, changed = save(some(rest), tmp_path / "same"), save(map(ImageOps.invert, some(rest)), tmp_path / "changed")
    assert watched(adapter, same, tmp_path / "out", "--reference", reference)[0] == 0
    code, found = watched(adapter, changed, tmp_path / "out2", "--reference", reference)
    assert code == monitor.ALARM and found["reference"] == len(fresh[::4])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        monitor.main(monitor.parse_args(list(map(str, arguments))))
    assert stopped.value.code not in (0, monitor.ALARM)
    return str(stopped.value.code)


def test_what_is_refused_is_named_and_nothing_written(adapter, fresh, tmp_path, capsys):
    new, out = save(some(fresh, count=3), tmp_path / "new"), tmp_path / "out"
    few = save(some(fresh, count=19), tmp_path / "few")
    table = tmp_path / "table.csv"
    table.write_text("image,when\nnew/0.png,soon\n")
    for arguments, words in [
        ([new, "--reference", few], "19 different pictures, and 20 are needed"),
        ([new, "--reference", tmp_path / "none"], "--reference: there is no"),
        ([tmp_path / "none"], "no file or folder"),
        ([new, "--false_alarms", 0], "--false_alarms"),
        ([new, "--false_alarms", 1.5], "--false_alarms"),
        ([new, "--time_column", "when"], "--time_column when"),
        ([table], "--time_column"),
        ([table, "--time_column", "where"], "no column 'where'"),
        ([table, "--time_column", "when"], "line 2: --time_column when must be a number"),
    ]:
        assert words in refused(capsys, adapter, *arguments, "--output_dir", out)
        assert not out.exists()
    assert "holds other things" in refused(capsys, adapter, new, "--output_dir", tmp_path)


def test_an_adapter_without_reference_says_so(adapter, fresh, tmp_path, capsys):
    new = save(some(fresh, count=3), tmp_path / "new")
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in adapter.iterdir():
        if path.is_file() and path.name != REFERENCE_FILE:
            (bare / path.name).write_bytes(path.read_bytes())
    words = refused(capsys, bare, new, "--output_dir", tmp_path / "out")
    assert REFERENCE_FILE in words and "--reference" in words
    (bare / REFERENCE_FILE).write_bytes(b"nothing")
    assert "is damaged" in refused(capsys, bare, new, "--output_dir", tmp_path / "out")


def test_the_reference_is_the_run_s_own_file_and_is_never_pushed(adapter):
    run = json.loads((adapter / "run.json").read_text())
    assert REFERENCE_FILE in run["files"]
    assert not any(name == REFERENCE_FILE or name.startswith("reference") for name in ADAPTER_FILES)
    reference = Reference.load(adapter)
    assert len(reference) == 5 * SHOTS and sorted(reference.class_names) == sorted(CLASS_NAMES[:5])
    assert torch.allclose(reference.features.norm(dim=1), torch.ones(len(reference)), atol=1e-4)
    for path, label in zip(reference.paths, reference.labels, strict=True):
        assert os.path.isabs(path) and path.split(os.sep)[-2] == reference.class_names[label]
        PIL.Image.open(path).close()


def test_false_alarms_are_at_most_the_stated_rate_however_long_the_stream():
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        values = generator.integers(0, 50, 330).tolist()  # with many ties
        kinds = generator.integers(0, 3, 330).tolist()
        ranks = conformal_p_values(values[:30], kinds[:30], values[30:], kinds[30:], generator)
        alarms += simple_jumper(ranks).max() >= 10
    assert alarms <= 0.1 * 400 + 12  # two standard deviations


def test_a_martingale_is_fair():
    """Its mean over all ranks of three pictures is the stake, 1."""
    grid = (np.arange(20) + 0.5) / 20
    ranks = np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(-1, 3)
    assert np.mean([simple_jumper(row)[-1] for row in ranks]) == pytest.approx(1)
