"""Processes that a launcher has started join, or refuse to do all of the work each."""

import os
import socket
import subprocess
import sys

import pytest
from accelerate.state import AcceleratorState
from conftest import EXAMPLES
from demo_parts.methods import load_clip
from peft import get_peft_model

from peft_mmrl import MMRLConfig
from peft_mmrl.training import make_accelerator
from peft_mmrl.training.launching import MPI, SLURM, TORCH, launched_processes


MODULE = [sys.executable, "-m", "peft_mmrl", "predict"]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher, and no state of Accelerate from before."""
    for names in (TORCH, *MPI, SLURM):
        for name in names:
            monkeypatch.delenv(name, raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "4", "RANK": "0"}, 4),
        ({"WORLD_SIZE": "1", "RANK": "0"}, 1),
        ({"RANK": "2"}, 3),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, 2),
        ({"PMI_SIZE": "3", "PMI_RANK": "1"}, 3),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, 1),  # the script of a job, of which srun has not started tasks
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, 4),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "WORLD_SIZE": "8", "RANK": "3"}, 8),  # torchrun in srun
        ({"WORLD_SIZE": "", "RANK": "-1"}, 1),
    ],
)
def test_launchers_are_known_by_their_variables(variables, count, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched_processes() == count


def test_without_a_launcher_there_is_one_process():
    assert make_accelerator().num_processes == 1


def test_processes_that_do_not_find_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(ValueError, match="2 processes were started .*SLURM_PROCID.* `accelerate launch`"):
        make_accelerator()


@pytest.fixture(scope="module")
def command(digit_folders, tmp_path_factory):
    """A call that names 15 pictures."""
    clip, processor = load_clip()
    model = get_peft_model(clip, MMRLConfig(rep_dim=16))
    model.set_classes(["zero", "one"], processor)
    adapter = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(adapter)
    return [*MODULE, str(adapter), str(digit_folders / "test"), "--format", "csv", "--batch_size", "4"]


def test_a_command_says_that_it_would_run_several_times(command):
    environment = os.environ | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("error: 2 processes were started (SLURM_STEP_NUM_TASKS and")


def test_processes_of_mpirun_join_on_a_cpu(command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    running = []
    for rank in map(str, range(2)):
        variables = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": rank, "MASTER_PORT": port}
        variables |= {"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": rank}
        environment = os.environ | variables
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert len(outputs[0].splitlines()) == 16  # with the header
    assert outputs[1] == ""


def test_the_trainer_s_script_joins_on_a_cpu(digit_folders, tmp_path):
    arguments = ["--train_dir", str(digit_folders / "train"), "--output_dir", str(tmp_path / "adapter")]
    arguments += ["--base_model", str(EXAMPLES / "demo_clip"), "--max_steps", "2", "--report_to", "none"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    script = str(EXAMPLES / "train_with_trainer.py")
    done = subprocess.run([*launch, script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("18 pictures of 3 classes") == 1
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
