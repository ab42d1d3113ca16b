"""examples/simple_loop.py: a plain loop, with `python` and with `accelerate launch`."""

import subprocess
import sys

import pytest
from conftest import DEMO_CLIP, EXAMPLES
from peft import PeftModel
from transformers import CLIPModel


LAUNCH = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--dynamo_backend", "no", "--mixed_precision", "no", "--num_cpu_threads_per_process", "1"]
LAUNCH += ["--main_process_port", "0"]  # a free one


@pytest.mark.parametrize("launch", [[], LAUNCH], ids=["python", "accelerate launch"])
def test_it_trains_on_a_folder_and_saves_a_classifier(launch, digit_folders, tmp_path):
    command = [sys.executable, *launch, EXAMPLES / "simple_loop.py", "--base_model", DEMO_CLIP, "--epochs", "3"]
    command += ["--train_dir", digit_folders / "train", "--output_dir", tmp_path / "adapter"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    losses = [float(line.rpartition(" ")[2]) for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert len(losses) == 3
    assert done.stdout.count(f"trained on 18 pictures of 3 classes; the adapter is in {tmp_path / 'adapter'}") == 1
    model = PeftModel.from_pretrained(CLIPModel.from_pretrained(DEMO_CLIP), tmp_path / "adapter")
    assert model.classes == ["one", "two", "zero"]
    assert model.decision is not None
