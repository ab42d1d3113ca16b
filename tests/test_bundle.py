"""`peft-mmrl bundle`: a folder that works wherever it is, without network, and says nothing of where it comes from."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import DEMO_CLIP, make_clip, scramble
from peft import PeftModel, get_peft_model
from safetensors import safe_open
from transformers import CLIPModel, CLIPProcessor

from peft_mmrl import AutoPeftModelForZeroShotImageClassification, MMRLConfig
from peft_mmrl.commands.main import main
from peft_mmrl.data import load_folder
from peft_mmrl.hub.bundle import stored_dtype
from peft_mmrl.scoring.held_out import Confidence, digest_of
from peft_mmrl.scoring.unlabelled import load_classifier


NAMES = ["zero", "one", "two"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A machine with a base model, and an adapter on it with everything that a run leaves."""
    home = tmp_path_factory.mktemp("home-of-somebody")
    base, adapter = home / "clip", home / "my-adapter"
    shutil.copytree(DEMO_CLIP, base)
    processor = CLIPProcessor.from_pretrained(base)
    model = get_peft_model(CLIPModel.from_pretrained(base), MMRLConfig(rep_dim=16))
    model.set_classes(NAMES, processor, template="a photo of the digit {}.")
    scramble(model)
    labels = torch.arange(6) % 3
    model.fit_decision(torch.randn(6, 3, *[model.get_base_model().config.vision_config.image_size] * 2), labels)
    model.save_pretrained(adapter)
    decision = digest_of(model.decision)
    Confidence(NAMES, [0] * 40, [0] * 40, [0.9] * 40, [0.9] * 40, decision=decision).save(adapter)
    for name in ("trained_on.json", "run.json", "report/report.html"):
        (adapter / name).parent.mkdir(exist_ok=True)
        (adapter / name).write_text(json.dumps({"kind": "training", "place": str(home), "files": []}))
    return home


@pytest.fixture(scope="module")
def bundle(home, tmp_path_factory):
    """The bundle, moved elsewhere, and nothing left of where it was made."""
    made, moved = home / "out", tmp_path_factory.mktemp("elsewhere") / "bundle"
    main(["bundle", str(home / "my-adapter"), str(made)])
    shutil.move(made, moved)
    home.rename(home.with_name("gone"))
    yield moved
    home.with_name("gone").rename(home)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_it_is_loaded_from_anywhere(home, bundle, no_network, tmp_path, monkeypatch, demo_images):
    before = load_classifier(home.with_name("gone") / "my-adapter", str(home.with_name("gone") / "clip"))[0]
    expected = before(pixel_values=demo_images).logits
    for place, cwd in ((bundle, tmp_path), (os.path.relpath(bundle, bundle.parent), bundle.parent), (".", bundle)):
        monkeypatch.chdir(cwd)
        model = AutoPeftModelForZeroShotImageClassification.from_pretrained(str(place)).eval()
        assert model.classes == NAMES and model.decision is not None
        torch.testing.assert_close(model(pixel_values=demo_images).logits, expected)
    model.set_classes([*NAMES, "three"])  # finds its tokenizer
    clip = CLIPModel.from_pretrained(bundle / "base")
    PeftModel.from_pretrained(clip, bundle).set_classes([*NAMES, "three"])


def test_commands_take_it_without_network(bundle, digit_folders, tmp_path):
    sitecustomize = "import socket\ndef refuse(*a, **k):\n    raise SystemExit('something asked for the network')\n"
    sitecustomize += "socket.socket.connect = socket.getaddrinfo = refuse\n"
    (tmp_path / "sitecustomize.py").write_text(sitecustomize)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": path, "HF_HOME": str(tmp_path / "hf")}
    commands = [
        ["predict", "bundle", digit_folders / "test", "--format", "jsonl", "--coverage", "0.9"],
        ["predict", "bundle", digit_folders / "test", "--format", "jsonl", "--classes", "three"],
        ["evaluate", "bundle", digit_folders / "test", "--output_dir", tmp_path / "evaluation"],
    ]
    code = "import sys; from peft_mmrl.commands.main import main; [main(line.split('|')) for line in sys.argv[1:]]"
    lines = ["|".join(map(str, command)) for command in commands]
    done = subprocess.run(
        [sys.executable, "-c", code, *lines], cwd=bundle.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('{"path"') == 2 * len(load_folder(digit_folders / "test")[0])
    assert (tmp_path / "evaluation" / "metrics.json").is_file()


def test_nothing_in_it_tells_where_it_comes_from(home, bundle):
    names = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert {"adapter_config.json", "adapter_model.safetensors", "decision.safetensors", "confidence.json"} <= names
    assert {"README.md", "base/config.json", "base/model.safetensors", "base/tokenizer.json"} <= names
    assert not [name for name in names if "trained_on" in name or name.startswith("report/")]
    for name in names:
        content = (bundle / name).read_bytes()
        for place in (home, DEMO_CLIP, home.name, "my-adapter"):
            assert str(place).encode() not in content, name


def test_the_card_s_code_runs_beside_the_folder(bundle, no_network, monkeypatch, capsys):
    card = (bundle / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    monkeypatch.chdir(bundle.parent)
    (bundle.parent / "out").symlink_to(bundle)  # as it was called when it was made
    exec(code, {})
    assert capsys.readouterr().out.count("%") == 3


def test_the_base_model_keeps_its_precision_and_its_config(home, bundle):
    with safe_open(bundle / "base" / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys() if "weight" in name} == {torch.float16}  # noqa: SIM118
    assert (bundle / "base" / "model.safetensors").stat().st_size < 1.1 * (
        DEMO_CLIP / "model.safetensors"
    ).stat().st_size
    said = [json.loads((place / "config.json").read_text())["dtype"] for place in (DEMO_CLIP, bundle / "base")]
    assert said == ["float32", "float32"]


@pytest.mark.parametrize(("dtype", "shard"), [(torch.bfloat16, "5GB"), (torch.float16, "1MB"), (torch.float32, "5GB")])
def test_any_precision_of_the_files_is_known(tmp_path, dtype, shard):
    make_clip().to(dtype).save_pretrained(tmp_path, max_shard_size=shard)
    config = json.loads((tmp_path / "config.json").read_text()) | {"dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert stored_dtype(str(tmp_path)) == dtype


def test_a_bundle_that_is_loaded_and_saved_can_still_be_moved(bundle, no_network, tmp_path, demo_images, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(bundle, here)
    monkeypatch.chdir(tmp_path)
    model = AutoPeftModelForZeroShotImageClassification.from_pretrained("here").eval()
    expected = model(pixel_values=demo_images).logits
    model.save_pretrained(here)
    here.rename(there)
    for path in filter(Path.is_file, there.rglob("*")):
        assert str(tmp_path).encode() not in path.read_bytes(), path
    assert 'base = f"{adapter}/base"' in (there / "README.md").read_text(encoding="utf-8")
    again = AutoPeftModelForZeroShotImageClassification.from_pretrained(there).eval()
    torch.testing.assert_close(again(pixel_values=demo_images).logits, expected)
    Confidence.load(there).check_fits(again)


def test_the_report_goes_along_where_that_is_asked_for(home, bundle, tmp_path):
    gone = home.with_name("gone")
    arguments = [str(gone / "my-adapter"), str(tmp_path / "out"), "--base_model", str(gone / "clip"), "--report"]
    main(["bundle", *arguments])
    assert (tmp_path / "out" / "report" / "report.html").is_file()
    main(["bundle", str(tmp_path / "out"), str(tmp_path / "copy")])  # a bundle is an adapter, too
    assert (tmp_path / "copy" / "base" / "model.safetensors").is_file()
    with pytest.raises(SystemExit, match="holds a run already"):
        main(["bundle", *arguments])
    main(["bundle", *arguments[:-1], "--overwrite_output_dir"])
    assert not (tmp_path / "out" / "report").exists()


def test_what_cannot_be_bundled_is_refused_and_nothing_is_written(home, bundle, tmp_path):
    gone, out = home.with_name("gone"), tmp_path / "out"

    def refused(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["bundle", *map(str, arguments)])
        assert not out.exists()
        return str(stopped.value)

    assert "no folder" in refused(tmp_path / "nowhere", out)
    assert "name another place with --base_model" in refused(gone / "my-adapter", out)
    assert "--base_model" in refused(gone / "my-adapter", out, "--base_model", gone / "nowhere")
    assert "it holds" in refused(bundle, gone)
    assert "lies in the output folder" in refused(bundle, bundle.parent / "bundle", "--overwrite_output_dir")


def test_nothing_is_left_of_a_bundle_that_fails(home, bundle, tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CLIPModel, "save_pretrained", fail)
    with pytest.raises(SystemExit, match="No space left"):
        main(["bundle", str(bundle), str(tmp_path / "out")])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.json"]
