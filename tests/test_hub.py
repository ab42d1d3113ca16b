import json
import shlex
import shutil
import socket

import huggingface_hub
import pytest
import torch
import train
from conftest import make_clip, scramble
from demo_parts.methods import DEMO_CLIP
from hub_server import HubServer, use_hub
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from transformers import CLIPConfig, CLIPModel

from peft_mmrl import AutoPeftModelForZeroShotImageClassification, MMRLConfig
from peft_mmrl.commands import push
from peft_mmrl.commands.main import main
from peft_mmrl.hub import upload
from peft_mmrl.hub.card import write_card
from peft_mmrl.hub.upload import check_can_push, push_folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        use_hub(monkeypatch, server.url, tmp_path / "cache")
        yield server


@pytest.fixture
def model(tokenizer):
    """A trained adapter on a CLIP without a name."""
    model = scramble(get_peft_model(make_clip(), MMRLConfig.plus_plus(rep_dim=16)))
    model.set_classes(["cat", "dog"], tokenizer)
    return model.eval()


@pytest.fixture
def hub_model(hub, model, tokenizer):
    """The same on a CLIP that is on the Hub."""
    model.unload().push_to_hub("me/clip")
    model = scramble(get_peft_model(CLIPModel.from_pretrained("me/clip"), MMRLConfig.plus_plus(rep_dim=16)))
    model.set_classes(["cat", "dog"], tokenizer)
    return model.eval()


def logits_of(model, images):
    with torch.no_grad():
        return model(pixel_values=images).logits


@pytest.mark.parametrize("auto", [False, True])
def test_a_pushed_adapter_loads_bit_for_bit(hub, hub_model, images, auto):
    hub_model.push_to_hub("me/pets")
    if auto:
        loaded = AutoPeftModelForZeroShotImageClassification.from_pretrained("me/pets").eval()
    else:
        loaded = PeftModel.from_pretrained(CLIPModel.from_pretrained("me/clip"), "me/pets").eval()
    expected, weights = get_peft_model_state_dict(hub_model), get_peft_model_state_dict(loaded)
    assert expected.keys() == weights.keys()
    assert all(torch.equal(expected[name], weights[name]) for name in expected)
    assert loaded.classes == ["cat", "dog"]
    assert torch.equal(logits_of(loaded, images), logits_of(hub_model, images))
    assert not [request for request in hub.unknown_requests if "me/" in request]


@pytest.mark.parametrize("auto", [False, True])
def test_a_decision_is_pushed_and_loaded_with_the_adapter(hub, hub_model, tokenizer, images, monkeypatch, auto):
    hub_model.fit_decision(images, torch.tensor([0, 1, 0, 1]))
    hub_model.set_classes(["dog", "newt", "cat"], tokenizer)
    expected = logits_of(hub_model, images)
    hub_model.push_to_hub("me/pets")
    assert "decision.safetensors" in hub.files("me/pets")

    def load():
        if auto:
            return AutoPeftModelForZeroShotImageClassification.from_pretrained("me/pets").eval()
        return PeftModel.from_pretrained(CLIPModel.from_pretrained("me/clip"), "me/pets").eval()

    loaded = load()
    loaded.set_classes(["dog", "newt", "cat"], tokenizer)
    assert torch.equal(logits_of(loaded, images), expected)
    loaded.decision = None
    assert not torch.allclose(logits_of(loaded, images), expected, atol=1e-3)
    loaded.load_adapter("me/pets", "default")  # in place
    loaded.load_adapter("me/pets", "again")
    for name in ("default", "again"):
        loaded.set_adapter(name)
        loaded.set_classes(["dog", "newt", "cat"], tokenizer)
        assert torch.equal(logits_of(loaded, images), expected)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load().decision is not None


def test_a_decision_that_was_taken_off_is_gone_from_the_hub_too(hub, hub_model, images):
    hub_model.fit_decision(images, torch.tensor([0, 1, 0, 1]))
    hub_model.push_to_hub("me/pets")
    hub_model.decision = None
    hub_model.push_to_hub("me/pets")
    loaded = AutoPeftModelForZeroShotImageClassification.from_pretrained("me/pets").eval()
    assert torch.equal(logits_of(loaded, images), logits_of(hub_model, images))


def test_a_downloaded_adapter_loads_again_without_network(hub, hub_model, monkeypatch):
    hub_model.push_to_hub("me/pets")
    AutoPeftModelForZeroShotImageClassification.from_pretrained("me/pets")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    loaded = AutoPeftModelForZeroShotImageClassification.from_pretrained("me/pets")
    assert loaded.classes == ["cat", "dog"]


def test_a_pushed_adapter_has_its_files_and_its_card(hub, hub_model):
    hub_model.push_to_hub("pets", tags=["animals"], commit_message="First try")
    files = hub.files("me/pets")
    assert sorted(files) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    card = huggingface_hub.ModelCard(files["README.md"].decode())
    assert card.data.base_model == "me/clip"
    assert {"animals", "mmrl++", "base_model:adapter:me/clip"} <= set(card.data.tags)
    assert 'adapter = "me/pets"' in card.text and 'base = "me/clip"' in card.text
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "me/clip"


def test_what_people_wrote_into_the_card_on_the_hub_survives_a_push(hub, model):
    model.push_to_hub("me/pets")
    card = huggingface_hub.ModelCard.load("me/pets")
    card.text += "\nAsk Ann about the pictures.\n"
    card.data.license = "mit"
    huggingface_hub.HfApi().upload_file(
        path_or_fileobj=str(card).encode(), path_in_repo="README.md", repo_id="me/pets"
    )
    model.peft_config["default"].alpha = 0.25
    model.push_to_hub("me/pets")
    card = huggingface_hub.ModelCard(hub.files("me/pets")["README.md"].decode())
    assert "Ask Ann about the pictures." in card.text
    assert "| weight of the class feature (alpha) | 0.25 |" in card.text
    assert card.data.license == "mit"


def test_a_push_drops_the_path_of_a_local_base_model_and_a_local_save_keeps_it(hub, model, tokenizer, tmp_path):
    base = tmp_path / "My Models" / "clip"
    model.unload().save_pretrained(base)
    model = get_peft_model(CLIPModel.from_pretrained(base), MMRLConfig(rep_dim=16))
    model.set_classes(["cat", "dog"], tokenizer)
    model.save_pretrained(tmp_path / "pets")
    assert json.loads((tmp_path / "pets/adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    model.push_to_hub("me/pets")
    push_folder(tmp_path / "pets", "me/pets", revision="folder")
    for branch in ("main", "folder"):
        files = hub.files("me/pets", branch)
        assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] is None
        assert not any(b"My Models" in content for content in files.values())
    assert model.peft_config["default"].base_model_name_or_path == str(base)
    loaded = PeftModel.from_pretrained(CLIPModel.from_pretrained(base), "me/pets")
    assert loaded.classes == ["cat", "dog"]


def test_every_adapter_of_a_model_is_pushed(hub, model):
    model.add_adapter("shop", MMRLConfig(rep_dim=16))
    model.set_adapter("shop")
    model.push_to_hub("me/pets")
    assert 'from_pretrained(clip, adapter, subfolder="shop")' in hub.files("me/pets")["README.md"].decode()
    loaded = PeftModel.from_pretrained(make_clip(), "me/pets", subfolder="shop")
    expected = get_peft_model_state_dict(model, adapter_name="shop")
    assert all(torch.equal(expected[name], weight) for name, weight in get_peft_model_state_dict(loaded).items())


def test_of_a_folder_with_a_whole_run_the_adapter_alone_is_uploaded(hub, model, tmp_path):
    picture = tmp_path / "curves.png"
    picture.write_bytes(b"a picture")
    run = tmp_path / "run"
    model.save_pretrained(run)
    write_card(run, model, repo_id="me/pets", pictures=[picture])
    model.save_pretrained(run / "checkpoint-1")
    (run / "optimizer.pt").write_bytes(b"much")
    check_can_push("me/pets")
    push_folder(run, "me/pets")
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors", "pictures/curves.png"]
    assert sorted(hub.files("me/pets")) == names
    with pytest.raises(FileNotFoundError, match=r"no adapter in .*empty"):
        push_folder(tmp_path / "empty", "me/pets")


def test_whether_a_push_will_work_is_found_out_without_a_repository(hub):
    assert check_can_push("pets") == "me/pets"
    assert not hub.branches
    hub.commit("me/pets", "main", {})
    assert check_can_push("me/pets", private=False) == "me/pets"
    with pytest.raises(ValueError, match="me/pets is public already"):
        check_can_push("me/pets", private=True)


@pytest.mark.parametrize(
    "repo_id, token, error, message",
    [
        ("you/pets", "me", OSError, "'you/pets': the access token does not allow to write there"),
        ("you/theirs", "me", OSError, "'you/theirs': the access token does not allow to write there"),
        ("reader/pets", "reader", OSError, "'reader/pets': the access token does not allow to write there"),
        ("me/pets", "expired", OSError, "'me/pets': the Hub does not accept the access token"),
        ("me/pets", None, OSError, "needs an access token: run `hf auth login` or set `HF_TOKEN`"),
        ("my pets", "me", ValueError, "`repo_id` must be .* got 'my pets'"),
        ("me/my/pets", "me", ValueError, "`repo_id` must be .* got 'me/my/pets'"),
        (7, "me", ValueError, "`repo_id` must be .* got 7"),
    ],
)
def test_what_cannot_be_pushed_is_said_before_training(hub, monkeypatch, tmp_path, repo_id, token, error, message):
    hub.commit("you/theirs", "main", {})  # anybody can see it
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(error, match=message):
        check_can_push(repo_id)
    assert hub.files("you/theirs") == {} and list(hub.branches) == [("you/theirs", "main")]


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_that_cannot_be_reached_is_said_before_training(monkeypatch, tmp_path, offline):
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)  # nobody listens there
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(upload, "WAITS", (0, 0))
    with pytest.raises(OSError, match="Cannot push to 'me/pets': the Hub cannot be reached"):
        check_can_push("me/pets")


@pytest.mark.parametrize("offline", [False, True])
def test_training_and_saving_need_no_network(monkeypatch, model, images, tmp_path, offline):
    calls = []

    def refuse(*args, **kwargs):
        calls.append(args)
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model.get_base_model().config._name_or_path = "somebody/clip"  # PEFT asks for the base's vocabulary by this name
    model.peft_config["default"].base_model_name_or_path = "somebody/clip"
    model.train()(pixel_values=images, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    model.save_pretrained(tmp_path / "pets")
    write_card(tmp_path / "pets", model, data="somebody/pictures", metrics={"accuracy": 0.9})
    assert PeftModel.from_pretrained(make_clip(), tmp_path / "pets").classes == ["cat", "dog"]
    assert not calls  # libraries catch what their look-ups raise


def test_an_mmrl_plus_plus_adapter_of_vit_b_16_is_small(tokenizer, tmp_path):
    with torch.device("meta"):  # the base's weights are not saved
        text = {"bos_token_id": 98, "eos_token_id": 99}  # the tokenizer's
        clip = CLIPModel(CLIPConfig(text_config=text, vision_config={"patch_size": 16}, projection_dim=512))
        model = get_peft_model(clip, MMRLConfig.plus_plus())
    for tower in (clip.text_model, clip.vision_model):
        for name, module in tower.named_children():
            if name.startswith("mmrl_"):
                module.to_empty(device="cpu")
    model.set_classes([f"an everyday thing {a} of kind {b}" for a in "abcdefghij" for b in "abcdefghij"], tokenizer)
    model.save_pretrained(tmp_path)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes["adapter_model.safetensors"] > 4 * 813_312  # all of it, in fp32
    assert sum(sizes.values()) < 3_500_000


def test_train_py_pushes_adapter_card_and_confidence_but_no_run(hub, digit_folders, tmp_path):
    folder = tmp_path / "digits"
    data = ["--train_dir", digit_folders / "train", "--eval_dir", digit_folders / "test", "--output_dir", folder]
    options = ["--base_model", DEMO_CLIP, "--epochs", "1", "--push_to_hub"]
    train.main(train.parse_args(list(map(str, [*data, *options]))))
    files = hub.files("me/digits")
    pictures = ["pictures/per_class.png", "pictures/reliability.png"]
    assert sorted(files) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "confidence.json",
        "decision.safetensors",
        *pictures,
    ]
    card = huggingface_hub.ModelCard(files["README.md"].decode())
    assert "accuracy" in [result.metric_type for result in card.data.eval_results]
    assert {result.dataset_name for result in card.data.eval_results} == {"test"}
    assert 'adapter = "me/digits"' in card.text
    assert str(digit_folders) not in files["README.md"].decode()
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] is None


def train_and_push(digit_folders, folder, *more):
    data = ["--train_dir", digit_folders / "train", "--eval_dir", digit_folders / "test", "--output_dir", folder]
    options = ["--base_model", DEMO_CLIP, "--epochs", "1", "--push_to_hub"]
    train.main(train.parse_args(list(map(str, [*data, *options, *more]))))


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr(upload, "WAITS", (0, 0))


@pytest.mark.parametrize("address", ["whoami", "repos/create", "preupload", "/commit/"])
def test_a_hub_that_is_busy_for_a_moment_is_asked_again(hub, no_waiting, model, tmp_path, address):
    model.save_pretrained(tmp_path / "pets")
    hub.busy.append(address)
    push.main(push.parse_args([str(tmp_path / "pets")]))
    assert not hub.busy
    assert "adapter_model.safetensors" in hub.files("me/pets")


def test_an_adapter_that_cannot_be_pushed_is_pushed_later(hub, no_waiting, digit_folders, tmp_path, capsys):
    folder = tmp_path / "my digits"
    hub.busy += ["/commit/"] * 9
    with pytest.raises(SystemExit) as stopped:
        train_and_push(digit_folders, folder, "--hub_model_id", "me/digits", "--private")
    message = str(stopped.value)
    assert "Cannot push to 'me/digits': the Hub answers" in message and f"is safe in {folder}" in message
    assert "accuracy on 15 pictures" in capsys.readouterr().out
    hub.busy.clear()
    command = shlex.split(message.partition("upload it later with: ")[2])
    assert command[:2] == ["peft-mmrl", "push"]
    main(command[1:])
    assert "confidence.json" in hub.files("me/digits") and "me/digits" in hub.private
    assert "Uploaded" in capsys.readouterr().out


def test_a_token_that_expires_during_training_loses_nothing(hub, digit_folders, tmp_path, monkeypatch):
    check = check_can_push

    def check_and_expire(*args, **kwargs):
        name = check(*args, **kwargs)
        monkeypatch.setenv("HF_TOKEN", "expired")
        return name

    monkeypatch.setattr("peft_mmrl.commands.pushing.check_can_push", check_and_expire)
    with pytest.raises(
        SystemExit, match="does not accept the access token.*peft-mmrl push .*--hub_model_id me/digits"
    ):
        train_and_push(digit_folders, tmp_path / "digits")
    assert (tmp_path / "digits" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"--train_dir": "/nowhere"},
        {"--base_model": "/nowhere"},
        {"--template": "no place"},
        {"--train_dir": "one class"},
        {"--cached_views": "-1"},
    ],
    ids=str,
)
def test_a_training_that_does_not_begin_leaves_no_repository(hub, digit_folders, tmp_path, wrong):
    if wrong.get("--train_dir") == "one class":
        shutil.copytree(digit_folders / "train" / "one", tmp_path / "photos" / "one")
        wrong = {"--train_dir": tmp_path / "photos"}
    with pytest.raises(SystemExit):
        train_and_push(digit_folders, tmp_path / "digits", *(part for pair in wrong.items() for part in pair))
    assert not hub.branches and not (tmp_path / "digits").exists()


def test_what_becomes_public_is_said_before_training(hub, digit_folders, tmp_path, capsys):
    train_and_push(digit_folders, tmp_path / "digits")
    said = capsys.readouterr().err
    assert "me/digits on the Hub gets the adapter" in said and "everybody can see" in said and "--private" in said
    train_and_push(digit_folders, tmp_path / "digits2", "--private")
    assert "everybody" not in capsys.readouterr().err
    assert hub.private == {"me/digits2"}
    with pytest.raises(SystemExit, match="me/digits is public already"):
        train_and_push(digit_folders, tmp_path / "digits3", "--private", "--hub_model_id", "me/digits")


def test_the_card_of_an_adapter_that_is_pushed_later_loads_it_from_the_hub(hub, digit_folders, tmp_path):
    base = ["--base_model", DEMO_CLIP, "--epochs", "1", "--folds", "0"]
    data = ["--train_dir", digit_folders / "train", "--output_dir", tmp_path / "digits"]
    train.main(train.parse_args(list(map(str, [*data, *base]))))
    push.main(push.parse_args([str(tmp_path / "digits"), "--hub_model_id", "me/numbers"]))
    card = hub.files("me/numbers")["README.md"].decode()
    assert 'adapter = "me/numbers"' in card and "# `numbers`" in card
    assert "base_model_name_or_path" not in card and str(DEMO_CLIP) not in card
    (tmp_path / "digits" / "README.md").write_text(card)
    push.main(push.parse_args([str(tmp_path / "digits"), "--hub_model_id", "me/others"]))  # nobody has edited it
    assert 'adapter = "me/others"' in hub.files("me/others")["README.md"].decode()


def test_a_folder_without_an_adapter_is_not_pushed(hub, tmp_path):
    with pytest.raises(SystemExit, match="There is no adapter in"):
        push.main(push.parse_args([str(tmp_path)]))
    assert not hub.branches


def test_an_adapter_of_the_hub_is_bundled_with_its_base_model(hub, demo_images, demo_processor, tmp_path, monkeypatch):
    clip = CLIPModel.from_pretrained(DEMO_CLIP, dtype=torch.float16)
    clip.push_to_hub("me/clip")
    demo_processor.push_to_hub("me/clip")
    model = scramble(get_peft_model(CLIPModel.from_pretrained("me/clip", dtype=torch.float32), MMRLConfig(rep_dim=16)))
    model.set_classes(["cat", "dog"], demo_processor)
    model.push_to_hub("me/pets")
    expected = logits_of(model.eval(), demo_images)
    main(["bundle", "me/pets", str(tmp_path / "bundle")])
    assert json.loads((tmp_path / "bundle" / "adapter_config.json").read_text())["base_model_name_or_path"] == "./base"
    size = (tmp_path / "bundle" / "base" / "model.safetensors").stat().st_size
    assert size < 1.1 * len(hub.files("me/clip")["model.safetensors"])
    hub.branches.clear()  # nothing more comes from there
    shutil.rmtree(tmp_path / "cache")
    bundled = AutoPeftModelForZeroShotImageClassification.from_pretrained(tmp_path / "bundle", dtype=torch.float32)
    torch.testing.assert_close(logits_of(bundled.eval(), demo_images), expected)
    push_folder(tmp_path / "bundle", "me/again")  # the base model stays here, and the card says so
    files = hub.files("me/again")
    assert not [name for name in files if name.startswith("base")]
    assert b"{adapter}/base" not in files["README.md"]
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] is None
