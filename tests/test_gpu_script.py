"""tests/gpu/run.py, which is meant for a GPU, at its tiny size on a CPU."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parent / "gpu" / "run.py"
sys.path.append(str(SCRIPT.parent))

import checks  # noqa: E402
import run as gpu_run  # noqa: E402
import speed  # noqa: E402


@pytest.fixture
def place(tmp_path, fresh_state):
    return checks.Place("cpu", True, tmp_path)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_each_check_holds_on_a_cpu(check, place):
    assert check(place)


@pytest.mark.parametrize("part", [speed.prediction, speed.steps])
def test_speed_is_measured_row_by_row(part, place):
    rows = list(part(place))
    assert rows
    for row in rows:
        line = gpu_run.prediction_line if part is speed.prediction else gpu_run.step_line
        assert any(character.isdigit() for character in line(row))


def test_a_wrong_number_is_noticed():
    import torch

    one = (torch.tensor(1.0), torch.ones(5))
    assert checks.compare(one, one, 1e-4)
    with pytest.raises(checks.CheckError, match=r"loss differs by 1\.0e-02"):
        checks.compare((torch.tensor(1.01), torch.ones(5)), one, 1e-4)
    with pytest.raises(checks.CheckError, match="gradients differ"):
        checks.compare((torch.tensor(1.0), torch.full((5,), 1.01)), one, 1e-4)


def test_a_check_that_fails_is_kept_and_the_next_one_runs(tmp_path, capsys):
    def broken(place):
        raise RuntimeError("no such kernel")

    def fine(place):
        return "loss 0e+00"

    results = gpu_run.Results(tmp_path / "results.json", {"device": "none"})
    gpu_run.run_checks(results, None, (broken, fine), lambda: True)
    gpu_run.run_checks(results, None, (fine,), lambda: False)
    found = json.loads((tmp_path / "results.json").read_text())["checks"]
    assert [row.get("error") for row in found] == ["RuntimeError: no such kernel", None, None]
    assert [row.get("found") for row in found] == [None, "loss 0e+00", None]
    assert found[2]["left out"] == "no time left"
    assert results.failed
    assert "FAILED RuntimeError: no such kernel" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(tmp_path):
    command = [sys.executable, str(SCRIPT), "--output_dir", str(tmp_path)]
    done = subprocess.run(command, env={"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "There is no GPU here that PyTorch can use: nothing was tried.\n")


def test_wheels_beside_it_fill_in_what_is_lacking_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setenv("PYTHONPATH", "")
    for name in ("not_here", "torch"):
        with zipfile.ZipFile(tmp_path / f"{name}-9.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "")
            wheel.writestr(f"{name}-9.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n")
    assert gpu_run.unpack_wheels(tmp_path, tmp_path / "libraries") == ["not-here"]
    assert sys.path[0] == str(tmp_path / "libraries")
    assert not (tmp_path / "libraries" / "torch").exists()


def test_versions_are_compared_with_the_oldest_that_are_taken():
    assert gpu_run.version_numbers("2.11.0+cu126") == (2, 11, 0)
    assert gpu_run.is_lacking("torch", {"torch": "99.0"})
    assert not gpu_run.is_lacking("torch", gpu_run.oldest_versions())
    assert gpu_run.is_lacking("no-such-library", {})
    assert "tokenizers" in gpu_run.oldest_versions("examples")
    assert {"huggingface-hub", "torch", "transformers"} <= gpu_run.oldest_versions().keys()
