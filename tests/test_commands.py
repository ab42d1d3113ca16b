"""`peft-mmrl`: its commands and their help, the same as the scripts in `examples/`."""

import os
import runpy
import subprocess
import sys

import pytest
from conftest import EXAMPLES

from peft_mmrl.commands.main import COMMANDS, main


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    printed = capsys.readouterr()
    return stopped.value.code, printed.out + printed.err


def test_help_lists_every_command_with_a_line(capsys):
    code, text = said(capsys, "--help")
    assert code == 0
    for name, what in COMMANDS.items():
        assert f"  {name} " in text and what in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_names_it(name, capsys):
    code, text = said(capsys, name, "--help")
    assert code == 0
    assert text.startswith(f"usage: peft-mmrl {name} ")
    assert f"    peft-mmrl {name} " in text


def test_importing_a_command_changes_nothing_and_running_it_nothing_for_good():
    code = """
import warnings, datasets, huggingface_hub.utils
from transformers.utils import logging

def state():
    hub = huggingface_hub.utils.are_progress_bars_disabled()
    hides = any("is_gradient_checkpointing" in str(one[1] and one[1].pattern) for one in warnings.filters)
    return hides, datasets.are_progress_bars_disabled(), hub, logging.is_progress_bar_enabled()

from peft_mmrl.commands import console, train
before = state()
assert before == (False, False, False, True)
with console.command_line():
    assert state() == (True, True, True, False)
assert state() == before
"""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("DISABLE_PROGRESS_BARS")}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)


def test_an_unknown_command_is_refused_with_those_that_there_are(capsys):
    code, text = said(capsys, "trian")
    assert code == 2
    assert "'trian'" in text and "'train'" in text


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "peft_mmrl", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: peft-mmrl COMMAND ...")


@pytest.mark.parametrize("name", [name.replace("-", "_") for name in COMMANDS if name not in ("convert", "push")])
def test_the_script_of_a_command_takes_its_options(name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [str(EXAMPLES / f"{name}.py"), "--help"])
    with pytest.raises(SystemExit, match="^0$"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    assert capsys.readouterr().out.startswith(f"usage: {name}.py ")
