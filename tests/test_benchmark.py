"""`peft-mmrl benchmark`, on the smallest setting."""

import json
import subprocess
import sys

import pytest

from peft_mmrl.commands import benchmark, benchmark_steps


def test_it_measures_every_method(tmp_path, capsys):
    arguments = ["--model", "ViT-B/32", "--classes", "2", "--batch_sizes", "1", "--repeats", "1"]
    benchmark.main(benchmark.parse_args([*arguments, "--output_dir", str(tmp_path)]))
    content = json.loads((tmp_path / "benchmark.json").read_text())
    (result,) = content["results"]
    assert set(result["ratio_to_mmrl"]) == set(benchmark_steps.STEPS)
    assert result["ratio_to_mmrl"]["mmrl"] == 1
    assert all(value > 0 for value in result["seconds"].values())
    trunk_states, frozen_feature = 50 * 768, 512  # 7 x 7 patches and CLS; the projected feature
    assert result["cached_view_mib"] == (trunk_states + frozen_feature) * 4 / 2**20
    assert (tmp_path / "benchmark.png").stat().st_size > 1000
    assert "eval s/img" in capsys.readouterr().out


def test_peak_memory_is_that_of_the_process_alone():
    held = bytearray(2**30)  # what the process that starts the measurement holds doesn't count
    code = "from peft_mmrl.commands import benchmark; print(benchmark.peak_rss())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 0.1 < float(found.stdout) < benchmark.peak_rss() - len(held) / 2**31


def test_names_get_the_same_tokens_in_and_out_of_prompts():
    (name,), (prompt,) = (benchmark_steps.tokenizer([text])["input_ids"] for text in ("owl", "a photo of a owl."))
    assert prompt[5:-2] == name[1:-1]


def test_mmrl_must_be_among_the_methods(capsys):
    with pytest.raises(SystemExit):
        benchmark.parse_args(["--methods", "lora"])
    assert "--methods must include mmrl" in capsys.readouterr().err
