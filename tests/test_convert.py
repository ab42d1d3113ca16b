"""The converter for checkpoints of the papers' own code."""

import collections
import io
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from golden import PARITY, Case, relative_error
from peft import PeftModel

from peft_mmrl import checkpoint_file, convert_checkpoint


def arguments(case, **changes):
    names = ("classes", "template", "vision_layers", "text_layers", "alpha", "reg_weight")
    beta = None if case.settings["method"] == "MMRL" else case.settings["beta"]
    kwargs = {name: case.settings[name] for name in names}
    return {"base_model_name_or_path": str(case.folder / "clip"), **kwargs, "beta": beta, **changes}


@pytest.fixture(params=["mmrl", "mmrlpp"])
def case(request):
    return Case(request.param)


def test_converted_adapter_gives_the_golden_logits(case, tmp_path):
    convert_checkpoint(case.folder / "model.pth.tar-5", tmp_path, **arguments(case))
    model = PeftModel.from_pretrained(case.clip(), tmp_path)
    output = model(pixel_values=case.golden["pixel_values"])
    assert relative_error(output.logits, case.golden["out.fused_logits"]) < 1e-5
    assert relative_error(output.class_logits, case.golden["out.class_logits"]) < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_several_gpu_prefix_is_removed(case, tmp_path):
    checkpoint = torch.load(case.folder / "model.pth.tar-5", weights_only=False)
    state = {f"module.{name}": tensor for name, tensor in checkpoint["state_dict"].items()}
    torch.save({"state_dict": state}, tmp_path / "file")
    convert_checkpoint(tmp_path / "file", tmp_path / "adapter", **arguments(case))
    model = PeftModel.from_pretrained(case.clip(), tmp_path / "adapter")
    assert (
        relative_error(model(pixel_values=case.golden["pixel_values"]).logits, case.golden["out.fused_logits"]) < 1e-5
    )


def test_tensors_tagged_for_a_gpu_are_read(case, tmp_path):
    """The location tag is part of the pickle, so that a file from a GPU can be made without one."""
    with zipfile.ZipFile(case.folder / "model.pth.tar-5") as source, zipfile.ZipFile(tmp_path / "gpu", "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"X\x06\x00\x00\x00cuda:0" in content or b"X\x03\x00\x00\x00cpu" in content
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            target.writestr(item, content)
    convert_checkpoint(tmp_path / "gpu", tmp_path / "adapter", **arguments(case))
    model = PeftModel.from_pretrained(case.clip(), tmp_path / "adapter")
    assert (
        relative_error(model(pixel_values=case.golden["pixel_values"]).logits, case.golden["out.fused_logits"]) < 1e-5
    )


class ConstantWarmupScheduler(torch.optim.lr_scheduler.LRScheduler):
    """As the papers' code has it (Dassl): a constant rate first, then that of another scheduler inside."""

    def __init__(self, optimizer, successor, warmup_epoch, cons_lr):
        self.successor, self.warmup_epoch, self.cons_lr = successor, warmup_epoch, cons_lr
        super().__init__(optimizer)

    def get_lr(self):
        return [self.cons_lr for _ in self.base_lrs]

    def step(self, epoch=None):
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step(epoch)


class Settings(dict):
    """A dictionary that takes and gives attributes, as yacs has it."""

    __getattr__, __setattr__ = dict.__getitem__, dict.__setitem__


def as_the_trainer_saves(case, optimizer_cls):
    """A checkpoint after three steps: the optimizer in the schedulers has a state for each weight by then."""
    state = torch.load(case.folder / "model.pth.tar-5", weights_only=False)["state_dict"]
    trained = {name: torch.nn.Parameter(tensor) for name, tensor in state.items() if "rep" in name}
    optimizer = optimizer_cls(trained.values(), lr=1e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    scheduler = ConstantWarmupScheduler(optimizer, cosine, 1, 1e-5)
    before = {name: tensor.detach().clone() for name, tensor in trained.items()}
    for _ in range(3):
        sum(tensor.square().sum() for tensor in trained.values()).backward()
        optimizer.step()
        scheduler.step()
    assert optimizer.state
    for name, tensor in trained.items():
        tensor.data.copy_(before[name])  # the golden weights are what is looked for
    return {
        "state_dict": {**state, **trained},
        "epoch": 5,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler,
        "val_result": np.float64(81.5),
    }


def check_converted(case, folder):
    model = PeftModel.from_pretrained(case.clip(), folder)
    logits = model(pixel_values=case.golden["pixel_values"]).logits
    assert relative_error(logits, case.golden["out.fused_logits"]) < 1e-5


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "before torch 1.6"])
@pytest.mark.parametrize(
    "optimizer_cls", [torch.optim.AdamW, lambda weights, lr: torch.optim.SGD(weights, lr, momentum=0.9)]
)
def test_the_optimizer_in_the_scheduler_may_have_a_state(case, optimizer_cls, zipped, tmp_path):
    content = as_the_trainer_saves(case, optimizer_cls)
    torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    convert_checkpoint(tmp_path / "file", tmp_path / "adapter", **arguments(case))
    check_converted(case, tmp_path / "adapter")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_whatever_else_lies_in_the_file_is_passed_over(protocol, tmp_path):
    case = Case("mmrl")
    state = torch.load(case.folder / "model.pth.tar-5", weights_only=False)["state_dict"]
    others = [
        collections.defaultdict(list, {"a": [torch.ones(2)]}),
        collections.deque([1, 2], maxlen=3),
        collections.Counter("abc"),
        Settings(lr=1e-3, nested=Settings(name="mmrl")),
        {torch.nn.Parameter(torch.ones(2)): {"step": torch.tensor(3.0)}},
        {torch.device("cpu"): torch.Size([2]), (1, 2): torch.bfloat16},
        np.float64(0.5),
        np.arange(3),
        {1, 2},
        frozenset("a"),
        b"bytes",
        bytearray(b"more"),
        2**70,
        complex(1, 2),
        torch.ones(3, 3).to_sparse(),
        torch.Generator().get_state(),
        torch.cuda.amp.GradScaler,
        collections.OrderedDict,
    ]
    content = {"state_dict": collections.OrderedDict(state), "others": others}
    torch.save(content, tmp_path / "file", pickle_protocol=protocol)
    convert_checkpoint(tmp_path / "file", tmp_path / "adapter", **arguments(case))
    check_converted(case, tmp_path / "adapter")


class Payload:
    """Unpickled without care, this makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class HarmlessLookingPayload(Payload):
    def __reduce__(self):
        return exec, (f"import pathlib; pathlib.Path({self.path!r}).mkdir()",)


class PayloadOfTorch(Payload):
    """A function of torch's own that unpickles without care."""

    def __reduce__(self):
        inner = io.BytesIO()
        torch.save(Payload(self.path), inner)
        return torch.storage._load_from_bytes, (inner.getvalue(),)


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "before torch 1.6"])
@pytest.mark.parametrize("payload", [Payload, HarmlessLookingPayload, PayloadOfTorch])
def test_nothing_in_the_file_is_executed(payload, zipped, tmp_path):
    case = Case("mmrl")
    state = torch.load(case.folder / "model.pth.tar-5", weights_only=False)["state_dict"]
    content = {"state_dict": state, "scheduler": payload(tmp_path / "pwned")}
    torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    convert_checkpoint(tmp_path / "file", tmp_path / "adapter", **arguments(case))
    check_converted(case, tmp_path / "adapter")
    assert not (tmp_path / "pwned").exists()
    with open(tmp_path / "file", "rb"):  # the payload works where nobody takes care
        torch.load(tmp_path / "file", weights_only=False)
    assert (tmp_path / "pwned").exists()


@pytest.mark.parametrize("base", ["no-such-model", "no-tokenizer"])
def test_without_a_tokenizer_the_adapter_asks_for_one(case, base, tmp_path):
    case.clip().save_pretrained(tmp_path / "no-tokenizer")
    with pytest.warns(UserWarning, match="without token ids"):
        convert_checkpoint(
            case.folder / "model.pth.tar-5",
            tmp_path,
            **arguments(case, base_model_name_or_path=str(tmp_path / base)),
        )
    model = PeftModel.from_pretrained(case.clip(), tmp_path)
    images = case.golden["pixel_values"]
    with pytest.raises(ValueError, match=r"set_classes\(processor=\.\.\.\)"):
        model(pixel_values=images)
    model.set_classes(processor=case.tokenizer())
    assert relative_error(model(pixel_values=images).logits, case.golden["out.fused_logits"]) < 1e-5
    model.save_pretrained(tmp_path / "again")
    again = PeftModel.from_pretrained(case.clip(), tmp_path / "again")
    assert torch.equal(again(pixel_values=images).logits, model(pixel_values=images).logits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_layers": [1, 2, 3]}, "2 adapted vision layers.*names 3"),
        ({"text_layers": [3]}, "2 adapted text layers.*names 1"),
        ({"vision_layers": [3, 4]}, "`vision_layers` names layer 4.*4 layers"),
        ({"beta": 0.5}, "`beta` must be 1"),
        ({"classes": ["cat", " _ "]}, "class name at position 1 is empty"),
        ({"classes": "cat"}, "`names` must be a list"),
        ({"template": "a photo"}, "`template`"),
        ({"alpha": 2}, "`alpha`"),
    ],
)
def test_arguments_that_do_not_fit_write_nothing(changes, message, tmp_path):
    case = Case("mmrl")
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(case.folder / "model.pth.tar-5", tmp_path / "adapter", **arguments(case, **changes))
    assert not (tmp_path / "adapter").exists()


def test_default_layers_are_the_last_seven_of_twelve(tmp_path):
    case = Case("mmrl")  # 2 of 4 layers, which is what None means
    convert_checkpoint(
        case.folder / "model.pth.tar-5", tmp_path, **arguments(case, vision_layers=None, text_layers=None)
    )
    model = PeftModel.from_pretrained(case.clip(), tmp_path)
    assert (
        relative_error(model(pixel_values=case.golden["pixel_values"]).logits, case.golden["out.fused_logits"]) < 1e-5
    )
    case = Case("mmrlpp")  # 3 of 4 layers
    with pytest.raises(ValueError, match="3 adapted vision layers.*left out"):
        convert_checkpoint(case.folder / "model.pth.tar-5", tmp_path, **arguments(case, vision_layers=None))


def test_mmrlpp_needs_its_beta(tmp_path):
    case = Case("mmrlpp")
    with pytest.raises(ValueError, match="`beta` must be given"):
        convert_checkpoint(case.folder / "model.pth.tar-5", tmp_path / "adapter", **arguments(case, beta=None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a checkpoint", "torch cannot read it"),
        (b"", "torch cannot read it"),
        ({"epoch": 5}, "no `state_dict`"),
        ([1, 2], "no `state_dict`"),
        ({"state_dict": {"layer.weight": torch.ones(2)}}, "compound_rep_tokens` is missing"),
        (
            {"state_dict": {"representation_learner.compound_rep_tokens": torch.ones(5, 8)}},
            r"compound_rep_tokens_r2vproj\.0\.weight` is missing",
        ),
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / "file").write_bytes(content)
    else:
        torch.save(content, tmp_path / "file")
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "file", tmp_path / "adapter", **arguments(Case("mmrl")))
    assert not (tmp_path / "adapter").exists()


def change(name, new):
    """The state of the golden checkpoint with one tensor changed."""

    def changed(method):
        state = torch.load(PARITY / method / "model.pth.tar-5", weights_only=False)["state_dict"]
        state[name] = new(state[name])
        return state

    return changed


R = "representation_learner.compound_rep_tokens"


@pytest.mark.parametrize(
    ("method", "changed", "message"),
    [
        ("mmrl", change(R, lambda r: r[0]), "contradict"),
        ("mmrl", change(R, lambda r: r[None]), "contradict"),
        ("mmrl", change(R, lambda r: r[:, :5]), "contradict"),
        ("mmrl", change(R, lambda r: r.int()), "dense tensor of floats"),
        ("mmrl", change(R, lambda r: r.to_sparse()), "dense tensor of floats"),
        ("mmrl", change(f"{R}_r2vproj.1.weight", lambda w: w[:5]), "different sizes"),
        ("mmrl", change(f"{R}_r2tproj.1.bias", lambda b: b[:5]), "different sizes"),
        ("mmrl", change("image_encoder.proj_rep", lambda p: p[0]), "contradict"),
        ("mmrl", change("image_encoder.proj_rep", lambda p: p[:5]), "contradict"),
        ("mmrlpp", change("image_encoder.A", lambda a: a[0]), "contradict"),
        ("mmrlpp", change("representation_learner.srra_r2vproj.weight", lambda w: w[:, :5]), "contradict"),
    ],
)
def test_sizes_that_contradict_each_other_write_nothing(method, changed, message, tmp_path):
    torch.save({"state_dict": changed(method)}, tmp_path / "file")
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "file", tmp_path / "adapter", **arguments(Case(method)))
    assert not (tmp_path / "adapter").exists()


def test_duplicate_names_are_customary(tmp_path):
    case = Case("mmrl")
    convert_checkpoint(case.folder / "model.pth.tar-5", tmp_path, **arguments(case, classes=["cat", "dog", "cat"]))
    assert PeftModel.from_pretrained(case.clip(), tmp_path).classes == ["cat", "dog", "cat"]


@pytest.mark.parametrize(
    "pickled",
    [
        b"cos\nsystem\n(S'touch pwned'\ntR.",  # called
        b"(S'touch pwned'\nios\nsystem\n.",  # made an instance
        b"cbuiltins\ngetattr\n(cos\n_wrap_close\nS'__init__'\ntR.",  # looked up inside another
        b"ctorch._utils\n_rebuild_tensor_v2\n}S'__code__'\nS'x'\nsb.",  # a function that is known is written to
        b"ctorch._utils\n_rebuild_tensor_v2\nN}S'__defaults__'\n(I1\nts\x86b.",
        b"ccollections\nOrderedDict\n}S'get'\nS'x'\nsb.",
        b"cpeft_mmrl.checkpoint_file\nInert\n}S'get'\nS'x'\nsb.",
    ],
)
def test_hand_made_pickles_change_nothing(pickled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = (torch._utils._rebuild_tensor_v2, checkpoint_file._rebuild_tensor)
    before = [(function.__code__, function.__defaults__, dict(vars(function))) for function in known]
    with zipfile.ZipFile("file", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    with pytest.raises(ValueError):
        convert_checkpoint("file", "adapter", **arguments(Case("mmrl")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    assert [(function.__code__, function.__defaults__, dict(vars(function))) for function in known] == before
    assert checkpoint_file.Inert().get("x") is None


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "before torch 1.6"])
def test_a_file_that_ends_early_is_refused(zipped, tmp_path):
    case = Case("mmrl")
    content = torch.load(case.folder / "model.pth.tar-5", weights_only=False)["state_dict"]
    torch.save({"state_dict": content}, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="torch cannot read it"):
        convert_checkpoint(tmp_path / "file", tmp_path / "adapter", **arguments(case))
    assert not (tmp_path / "adapter").exists()


def test_pickles_that_are_no_archive_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(pickle.dumps(Payload(tmp_path / "pwned")))
    with pytest.raises(ValueError, match="torch cannot read it"):
        convert_checkpoint(tmp_path / "file", tmp_path / "adapter", **arguments(Case("mmrl")))
    assert not (tmp_path / "pwned").exists()


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="no-such-file"):
        convert_checkpoint(tmp_path / "no-such-file", tmp_path / "adapter", **arguments(Case("mmrl")))


def test_command_line(tmp_path):
    case = Case("mmrl")
    command = [sys.executable, "-m", "peft_mmrl.convert", str(case.folder / "model.pth.tar-5"), str(tmp_path / "out")]
    command += ["--base_model_name_or_path", str(case.folder / "clip"), "--classes", *case.settings["classes"]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Wrote the adapter" in done.stdout
    model = PeftModel.from_pretrained(case.clip(), tmp_path / "out")
    assert (
        relative_error(model(pixel_values=case.golden["pixel_values"]).logits, case.golden["out.fused_logits"]) < 1e-5
    )
    failed = subprocess.run([*command, "--beta", "0.5"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "`beta` must be 1" in failed.stderr
    assert "Traceback" not in failed.stderr
