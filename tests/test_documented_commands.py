"""The command lines of the documents, run as they stand there: on a folder with what they name, and a stand-in Hub.

What starts several processes is started; `peft-mmrl` and scripts of one process are called in this one, which spares
each the imports (`test_wheel.py` starts the installed `peft-mmrl`, `test_simple_loop.py` a script).
"""

import ast
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from conftest import DEMO_CLIP, EXAMPLES
from demo_parts.methods import load_clip
from hub_server import HubServer, use_hub
from peft import get_peft_model

from peft_mmrl import MMRLConfig
from peft_mmrl.commands.main import main
from peft_mmrl.hub.bundle import Bundle


ROOT = EXAMPLES.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", EXAMPLES / "README.md", *sorted(EXAMPLES.glob("*.py"))]
DOCUMENTS += sorted((ROOT / "peft_mmrl").rglob("*.py"))
LAUNCHERS = ("accelerate launch", "make", "peft-mmrl", "pip install", "python", "srun", "torchrun")

# What is not run here, as regular expressions, and why: to be run by hand.
BY_HAND = {
    r"^(peft-mmrl|python -m peft_mmrl|accelerate launch -m peft_mmrl)( [\w-]+)?$": "a name, no call",
    r"^make\b": "sets up an environment and runs this suite, or is run by test_demo.py",
    r"^pip install\b": "asks for the network",
    r"-m pytest\b": "parts of this suite",
    r"\.\.\.|\bCOMMAND\b|\bNAME\b": "stands for other commands",
    r"--multi_gpu\b|--device cuda": "needs GPUs",
    r"--data_dir\b": "needs the papers' data sets",
    r"\b(base.to.new|few.shot|cross.dataset)\b": "trains for minutes; in short it is in test_protocols.py",
    r"\b(benchmark|demo|promises|tune_demo|pretrain_demo_clip)\b": "runs for minutes; in short it is in its own tests",
    r"\blabel_curves\b": "runs for minutes; in short it is in test_label_curves.py",
    r"\bgpu/run\.py\b": "works in a clone; test_gpu_script.py runs it",
    r"\bclassify\.py\b": "needs an exported folder; test_export.py makes some",
    r"\bexport\b.*--(int8|coverage|risk)\b": "needs answers alike, or held-out pictures; test_export.py has them",
    r"^peft-mmrl app\b|\bspace/app\.py\b": "serves until Ctrl-C; test_app_command.py and test_space.py end it",
    r"\bapp_pictures\.py\b": "draws the README's pictures anew, in a browser",
    r"\bsuggest my-adapter\b": "needs the folder of a run; test_suggestions.py has one",
    r"\bmonitor my-adapter\b": "needs a run on 20 pictures; test_monitor.py has one",
    r"\bconvert\b": "needs a checkpoint of the papers' code; test_convert.py makes some",
}


def spans(document):
    """Texts of a document that may be commands: lines of code, with those that they go on with, and code in a line."""
    text = document.read_text(encoding="utf-8")
    if document.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
        blocks = re.findall(r"^    .*$", text, re.MULTILINE)
    else:
        blocks = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = re.sub(r"\\\n\s*", "", "\n".join(blocks)).splitlines()
    return lines + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def documented():
    """Every command once, with the documents that have it."""
    found = {}
    for document in DOCUMENTS:
        for span in spans(document):
            command = re.sub(r"\s+#.*", "", span).strip()
            if any(command.startswith(f"{launcher} ") for launcher in LAUNCHERS):
                found.setdefault(command, []).append(document.relative_to(ROOT).as_posix())
    return found


COMMANDS = documented()
RUN = [command for command in COMMANDS if not any(re.search(pattern, command) for pattern in BY_HAND)]


def test_all_kinds_of_commands_are_found_and_no_reason_is_out_of_date():
    assert {command.split()[0] for command in RUN} >= {"accelerate", "python", "torchrun"}
    for word in ("train", "predict", "evaluate", "train_with_trainer"):
        assert any(re.search(rf"\b{word}\b", command) for command in RUN), word
    for pattern in BY_HAND:
        assert any(re.search(pattern, command) for command in COMMANDS), pattern


@pytest.fixture(scope="module")
def site(digit_folders, tmp_path_factory):
    """A folder with everything that the commands name."""
    site = tmp_path_factory.mktemp("site")
    folders = {"train": ["photos", "train"], "test": ["test", "test-photos", "more-photos", "split/test"]}
    for split, names in folders.items():
        for path in (path for folder in digit_folders.glob(f"{split}/*") for path in sorted(folder.iterdir())[:2]):
            for name in names:  # few pictures, so that training takes few steps
                copy = site / name / path.parent.name / path.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    pictures = sorted(site.glob("photos/*/*.png"))
    for name in ("photo.jpg", "holiday.jpg"):
        shutil.copyfile(pictures[0], site / name)
    rows = [f"{path.relative_to(site).as_posix()},{path.parent.name}\n" for path in pictures]
    (site / "labels.csv").write_text("image,label\n" + "".join(rows))
    clip, processor = load_clip()
    model = get_peft_model(clip, MMRLConfig(rep_dim=16))
    model.set_classes(["zero", "one", "two"], processor)
    model.peft_config["default"].base_model_name_or_path = "openai/clip-vit-base-patch16"
    model.save_pretrained(site / "my-adapter")
    Bundle.of(site / "my-adapter", str(DEMO_CLIP)).save(site / "bundle", "bundle")
    return site


@pytest.fixture(scope="module")
def hub(site, tmp_path_factory):
    """A Hub that has base model, adapter and data set of those names."""
    with HubServer() as hub:
        for name, folder in (("openai/clip-vit-base-patch16", DEMO_CLIP), ("me/my-adapter", site / "my-adapter")):
            hub.commit(name, "main", {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
        files = {}
        for split in ("train", "test"):
            data = datasets.load_dataset("imagefolder", data_dir=str(site / split), split="train")
            data.to_parquet(table := tmp_path_factory.mktemp("tables") / f"{split}.parquet")
            files[f"data/{split}-00000-of-00001.parquet"] = table.read_bytes()
        hub.commit("datasets/AI-Lab-Makerere/beans", "main", files)
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """For what is downloaded."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def start(hub, home):
    """Runs a command in processes of its own; gives its exit code, standard output and standard error."""
    unset = {"HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "ACCELERATE_USE_CPU"}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(home),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "me",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }

    def run(command):
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=600)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def call(hub, home, capsys, monkeypatch, fresh_state):
    """The same in this process."""
    use_hub(monkeypatch, hub.url, home / "hub")

    def run(command):
        words, _, answers = command.partition(" > ")
        program, *words = shlex.split(words)
        monkeypatch.setattr("sys.argv", words if program == "python" else [program, *words])
        code = 0
        try:
            if program == "python":
                runpy.run_path(words[0], run_name="__main__")
            else:
                main()
        except SystemExit as stopped:
            code = stopped.code
        out, err = capsys.readouterr()
        if answers:
            Path(answers).write_text(out)
        return code or 0, out, f"{err}{code}"

    return run


@pytest.mark.parametrize("command", RUN, ids=lambda command: re.sub(r"\s+", " ", command))
def test_a_documented_command_works_as_it_stands(command, site, hub, tmp_path, monkeypatch, request):
    if re.search(r"\bpush\b|--push_to_hub", command):  # something new
        monkeypatch.setattr(hub, "branches", {name: at for name, at in hub.branches.items() if name[0][:3] != "me/"})
    folder = Path(shutil.copytree(site, tmp_path / "site"))
    (folder / "examples").symlink_to(EXAMPLES)
    words = shlex.split(command)
    if "photos/test" in words:
        shutil.rmtree(folder / "photos")
        (folder / "split").rename(folder / "photos")
    if words[1] == "bundle":  # it is to be made
        shutil.rmtree(folder / "bundle")
    output_dir = words[words.index("--output_dir") + 1] if "--output_dir" in words else None
    if output_dir is not None and (folder / output_dir).exists():
        shutil.rmtree(folder / output_dir)
    monkeypatch.chdir(folder)
    run = request.getfixturevalue("start" if command.startswith(("accelerate ", "torchrun ")) else "call")
    code, out, err = run(command)
    assert code == 0, f"{COMMANDS[command]}: {err}"
    if output_dir is not None:
        assert {"adapter_config.json", "report.html"} & {path.name for path in (folder / output_dir).iterdir()}
    if re.search(r"\bpredict\b", command):
        answers = folder / words[-1] if ">" in words else None
        text = answers.read_text() if answers else out
        named = sum(
            len(list(folder.glob(f"{word.rstrip('/')}/*/*"))) or 1 for word in words if is_source(folder, word)
        )
        assert len(text.splitlines()) - text.startswith("path,") == named  # each picture once


def is_source(folder, word):
    """Whether a word of a command names pictures."""
    return word.rstrip("/").endswith(("photos", ".jpg")) and (folder / word).exists()
