"""Labelled pictures come from folders, tables and `datasets` data sets, the same on every machine."""

import io
import json
import os
import shutil
import sys

import datasets
import PIL.Image
import pytest
from pyarrow import parquet

from peft_mmrl.data import (
    PictureSource,
    check_pictures,
    check_several_classes,
    clean_class_name,
    load_folder,
    load_named,
    load_table,
    match_labels,
    read_class_names,
    read_picture,
)


PICTURES = ("cat/1.png", "cat/2.JPG", "cat/10.webp", "dog/1.gif", "dog/2.png")


def draw(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (8, 8), "red").save(root / path)
    return root


@pytest.fixture
def root(tmp_path):
    return draw(tmp_path / "train", *PICTURES)


def by_class(dataset):
    names = dataset.features["label"].names
    return [(row["path"], names[row["label"]]) for row in dataset.remove_columns("image")]


def saved(tmp_path, columns, features):
    dataset = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    dataset.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    return str(tmp_path / "data")


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_per_class(root):
    dataset, notes = load_folder(root)
    assert dataset.column_names == ["image", "label", "path"]
    assert dataset.features["label"].names == ["cat", "dog"]
    assert by_class(dataset) == [
        ("cat/1.png", "cat"), ("cat/10.webp", "cat"), ("cat/2.JPG", "cat"), ("dog/1.gif", "dog"), ("dog/2.png", "dog"),
    ]  # fmt: skip
    assert all(read_picture(image).size == (8, 8) for image in dataset["image"])
    assert notes == []


def test_neither_the_order_of_creation_nor_the_root_matters(root, tmp_path):
    other = draw(tmp_path / "elsewhere" / "deeper", *reversed(PICTURES))
    assert by_class(load_folder(other)[0]) == by_class(load_folder(root)[0])


def test_classes_are_in_natural_order(tmp_path):
    dataset, _ = load_folder(draw(tmp_path, "class 10/a.png", "class 2/a.png", "Class 1/a.png"))
    assert dataset.features["label"].names == ["Class 1", "class 2", "class 10"]


def test_hidden_files_and_folders_are_ignored(root):
    draw(root, ".ipynb_checkpoints/1.png", "__MACOSX/cat/1.png", "cat/.ipynb_checkpoints/1.png")
    for litter in (".DS_Store", "Thumbs.db", "cat/Thumbs.db", "cat/desktop.ini", "dog/._1.png"):
        (root / litter).write_bytes(b"litter")
    dataset, notes = load_folder(root)
    assert (len(dataset), dataset.features["label"].names, notes) == (5, ["cat", "dog"], [])


def test_what_is_left_out_is_said(root):
    draw(root, "loose.png", "dog/puppies/1.png")
    (root / "empty").mkdir()
    (root / "metadata.csv").write_text("file_name,label\ncat/1.png,bird\n")
    (root / "cat" / "a.txt").write_text("")
    (root / "cat" / "b.TXT").write_text("")
    (root / "dog" / "README").write_text("")
    dataset, notes = load_folder(root)
    assert dataset.features["label"].names == ["cat", "dog"]
    assert by_class(dataset)[-1] == ("dog/puppies/1.png", "dog")
    assert notes == [
        "class folders without pictures, left out: empty",
        "3 files are no pictures and left out: .txt (2), without extension (1)",
        "1 pictures lie beside the class folders and are left out: loose.png ...",
        "1 pictures lie in folders below their class folder and belong to that class",
        "metadata.csv: not read, since the folders' names are the classes",
    ]


def test_formats_that_need_a_plug_in_are_no_strangers(root):
    for name in ("x.heic", "y.avif"):
        (root / "cat" / name).write_bytes(b"")
    dataset, notes = load_folder(root)
    assert {"cat/x.heic", "cat/y.avif"} <= set(dataset["path"])
    assert notes == []


def test_content_counts_where_the_extension_says_nothing(root):
    for name in ("2", "3.jfif", "4.cr2"):
        (root / "cat" / name).write_bytes((root / "cat" / "2.JPG").read_bytes())
    dataset, notes = load_folder(root)
    assert {"cat/2", "cat/3.jfif", "cat/4.cr2"} <= set(dataset["path"])
    assert notes == []


def test_links_are_followed_but_not_in_circles(root, tmp_path):
    (tmp_path / "linked").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "linked" / name).symlink_to(root / name)
    (root / "cat" / "again").symlink_to(root / "cat")
    assert by_class(load_folder(tmp_path / "linked")[0]) == by_class(load_folder(root)[0])


def test_folders_may_lie_deep_in_each_other(root, monkeypatch):
    monkeypatch.chdir(root / "cat")
    for _ in range(1100):  # step by step, as a path may not be as long as this one comes to be on every system
        os.mkdir("x")
        os.chdir("x")
    shutil.copyfile(root / "cat" / "2.JPG", "3.jpg")
    try:
        assert f"cat/{'x/' * 1100}3.jpg" in load_folder(root)[0]["path"]
    finally:  # Python itself cannot take them away
        os.unlink("3.jpg")
        for _ in range(1100):
            os.chdir("..")
            os.rmdir("x")


def test_a_folder_without_class_folders(tmp_path):
    with pytest.raises(ValueError, match=r"no class folders under .*expected .*cat/1\.jpg"):
        load_folder(draw(tmp_path, "1.png", "2.png"))


def test_splits_are_no_classes(tmp_path):
    for pictures in (("train/1.png", "test/1.png"), ("train/cat/1.png", "train/dog/1.png", "test/cat/2.png")):
        draw(tmp_path, *pictures)
        with pytest.raises(ValueError, match="no class folders under .* found test, train"):
            load_folder(tmp_path)


def test_there_is_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder .*gone"):
        load_folder(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file"):
        load_folder(tmp_path / "file")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_unicode(root):
    os.link(root / "cat" / "1.png", os.fsencode(root / "cat") + b"/\xff.png")
    with pytest.raises(ValueError, match=r"udcff\.png' is no valid Unicode: rename the file"):
        load_folder(root)


def test_one_class_is_not_enough(tmp_path):
    dataset, _ = load_folder(draw(tmp_path, "cat/1.png", "cat/2.png"))
    with pytest.raises(ValueError, match=r"photos must have pictures of at least two classes, got 'cat'\."):
        check_several_classes(dataset, "photos")


# --- tables ----------------------------------------------------------------------------------------------------------

ODD = ["no", "yes", "1.0", "a: b", "007", "null"]


def write_csv(path, rows, header="path,label"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8-sig")
    return path


def test_labels_of_a_table_are_text(root):
    files = [f"cat/{name}.png" for name in ODD]
    table = write_csv(root / "labels.csv", [f"{file},{label}" for file, label in zip(files, ODD, strict=True)])
    assert by_class(load_table(table)[0]) == list(zip(files, ODD, strict=True))
    lines = [json.dumps({"path": file, "label": label}) for file, label in zip(files, ODD, strict=True)]
    (root / "labels.jsonl").write_text("\n".join([*lines, ""]))
    assert by_class(load_table(root / "labels.jsonl")[0]) == list(zip(files, ODD, strict=True))


def test_numbers_of_json_are_written_as_they_stand(tmp_path):
    labels = [2, 10, 1.0, True]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"file": f"{n}.png", "class": n}) for n in labels))
    assert load_table(tmp_path / "a.jsonl")[0].features["label"].names == ["1.0", "2", "10", "true"]


def test_paths_are_relative_to_the_table(root, monkeypatch, tmp_path):
    write_csv(root / "labels.csv", [f"{root}/cat/1.png,a", "dog/1.gif,b"], header="picture,kind,note")
    monkeypatch.chdir(tmp_path)
    dataset, _ = load_table("train/labels.csv", label_column="kind")
    assert all(read_picture(image).size == (8, 8) for image in dataset["image"])


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (["1.png,cat"], {"label_column": "kind"}, r"no column 'kind' \(`label_column`\), only path, label"),
        (["1.png,cat", "2.png,"], {}, "line 3: the column 'label' is empty"),
        (["1.png,cat", ",dog"], {}, "line 3: the column 'path' is empty"),
        (["1.png,cat", "2.png,a,b"], {}, "line 3: more values than the 2 columns"),
        (["1.png,cat", "2.png,a", "1.png,dog"], {}, "line 4: 1.png is listed in line 2 already"),
        ([], {}, "has no rows"),
    ],
)
def test_a_table_that_is_wrong(tmp_path, rows, options, message):
    with pytest.raises(ValueError, match=message):
        load_table(write_csv(tmp_path / "labels.csv", rows), **options)


def test_columns_that_cannot_be_found(tmp_path):
    with pytest.raises(ValueError, match=r"`image_column` must be given, there is none .* Columns: a, b"):
        load_table(write_csv(tmp_path / "t.csv", ["1,2"], header="a,b"))
    with pytest.raises(ValueError, match=r"`label_column` must be given, .*\(label, category\)"):
        load_table(write_csv(tmp_path / "t.csv", ["1.png,2,3"], header="path,label,category"))


@pytest.mark.parametrize("line", ["[1]", "{", "3"])
def test_lines_that_are_no_objects(tmp_path, line):
    (tmp_path / "t.jsonl").write_text('{"path": "1.png", "label": "a"}\n' + line)
    with pytest.raises(ValueError, match="line 2: each line must be a JSON object"):
        load_table(tmp_path / "t.jsonl")


def test_a_table_in_another_encoding(tmp_path):
    (tmp_path / "t.csv").write_bytes("path,label\n1.png,Löwe\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"t\.csv must be encoded in UTF-8"):
        load_table(tmp_path / "t.csv")


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_table_with_another_delimiter(tmp_path, sign, name):
    write_csv(tmp_path / "t.csv", [f"1.png{sign}cat"], header=f"image{sign}label")
    with pytest.raises(ValueError, match=f"t.csv: its columns are separated by {name}.* must be separated by commas"):
        load_table(tmp_path / "t.csv")


def test_a_table_without_a_header(tmp_path):
    write_csv(tmp_path / "t.csv", ["cat/2.png,cat"], header="cat/1.png,cat")
    with pytest.raises(ValueError, match=r"has no header: its first line \(cat/1.png,cat\).* such as image,label"):
        load_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("C:\\photos\\{}.png", "10000 of these have backslashes, which separate folders on Windows alone: write /"),
        ("https://example.org/{}.png", "10000 of these are addresses: download the pictures, and list the files"),
        ("photos/{}.png", "line 2: photos/0.png: there is no such file"),
    ],
)
def test_ten_thousand_rows_that_are_wrong_are_said_in_a_dozen_lines(tmp_path, path, advice):
    table = write_csv(tmp_path / "t.csv", [f"{path.format(n)},{'ab'[n % 2]}" for n in range(10000)])
    with pytest.raises(ValueError, match="10000 pictures cannot be read") as error:
        check_pictures(load_table(table)[0])
    lines = str(error.value).splitlines()
    assert len(lines) <= 12
    assert any(line.strip().startswith(advice) for line in lines)
    assert "and 9992 more: there is no such file (9992)" in str(error.value)


def test_rows_of_a_table_are_named_by_number(root):
    table = write_csv(root / "labels.csv", ["cat/1.png,a", "gone.png,b", "dog/1.gif,b"])
    kept, bad = check_pictures(load_table(table)[0])
    assert (len(kept), bad) == (2, [("line 3: gone.png", "there is no such file")])


def test_a_table_of_another_kind(tmp_path):
    with pytest.raises(ValueError, match="must be a CSV file"):
        load_table(tmp_path / "labels.xlsx")
    with pytest.raises(FileNotFoundError):
        load_table(tmp_path / "labels.csv")


# --- `datasets` ------------------------------------------------------------------------------------------------------


def red():
    return PIL.Image.new("RGB", (8, 8), "red")


def test_a_local_data_set(tmp_path):
    features = {"id": datasets.Value("int64"), "img": datasets.Image()}
    features |= {"fine": datasets.ClassLabel(names=["dog", "bird", "cat"]), "caption": datasets.Value("string")}
    columns = {"id": [1, 2, 3], "img": [red()] * 3, "fine": [2, 0, 2], "caption": ["a", "b", "c"]}
    dataset, notes = load_named(saved(tmp_path, columns, features))
    assert dataset.column_names == ["image", "label", "path"]
    assert by_class(dataset) == [("train/0", "cat"), ("train/1", "dog"), ("train/2", "cat")]
    assert dataset.features["label"].names == ["dog", "cat"]
    assert notes == [f"classes without pictures in {tmp_path / 'data'}, split 'train', left out: bird"]
    assert read_picture(dataset[0]["image"]).size == (8, 8)


@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [
        (datasets.Value("string"), ["b 10", "b 2", "a"], ["a", "b 2", "b 10"]),
        (datasets.Value("int32"), [10, 2, 10], ["2", "10"]),
        (datasets.Value("bool"), [True, False, True], ["False", "True"]),
    ],
)
def test_labels_without_names(tmp_path, kind, values, names):
    columns = {"image": [red()] * 3, "label": values}
    dataset, _ = load_named(saved(tmp_path, columns, {"image": datasets.Image(), "label": kind}))
    assert dataset.features["label"].names == names
    assert [name for _, name in by_class(dataset)] == list(map(str, values))


@pytest.mark.parametrize(
    ("features", "values", "options", "message"),
    [
        ({"label": datasets.ClassLabel(names=["a", "b"])}, [-1, 0], {}, "1 of 2 pictures have no label"),
        ({"label": datasets.ClassLabel(names=["a", "b"])}, [-1, -1], {}, "2 of 2 pictures have no label"),
        ({"label": datasets.Value("float32")}, [0.0, 1.0], {}, "must hold a label per picture"),
        ({"label": datasets.List(datasets.Value("int64"))}, [[0], [1]], {}, "must hold a label per picture"),
        ({"score": datasets.Value("float32")}, [0.0, 1.0], {}, "`label_column` must be given, there is none"),
        ({"label": datasets.Value("string")}, ["train", "test"], {}, "names of splits"),
        ({"label": datasets.Value("string")}, ["a", "b"], {"label_column": "kind"}, "no column 'kind'"),
        ({"label": datasets.Value("string")}, ["a", "b"], {"image_column": "label"}, "'label' has no images"),
        ({"label": datasets.Value("string")}, ["a", "b"], {"split": "dev"}, "dev"),
    ],
)
def test_a_data_set_that_does_not_fit(tmp_path, features, values, options, message):
    columns = {"image": [red()] * 2, next(iter(features)): values}
    folder = saved(tmp_path, columns, {"image": datasets.Image(), **features})
    with pytest.raises(ValueError, match=message):
        load_named(folder, **options)


def test_a_data_set_of_several_configurations(tmp_path):
    for name in ("cats", "dogs"):
        pictures = {"image": [red()] * 2, "label": [f"{name} a", f"{name} b"]}
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
        datasets.Dataset.from_dict(pictures, features=features).to_parquet(tmp_path / name / "test.parquet")
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/*\n" for name in ("cats", "dogs")
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    source = PictureSource.find(str(tmp_path), config_name="dogs")
    source, notes = source.to_test()
    assert (source.split, notes) == ("test", [])
    assert source.load()[0].features["label"].names == ["dogs a", "dogs b"]
    assert load_named(tmp_path, "test", config_name="cats")[0].features["label"].names == ["cats a", "cats b"]
    with pytest.raises(ValueError, match="birds"):
        load_named(tmp_path, "test", config_name="birds")
    datasets.Dataset.from_dict({"label": [0]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="written by `save_to_disk` and has no configuration 'cats'"):
        load_named(tmp_path / "saved", config_name="cats")


@pytest.mark.parametrize("missing", [None, {"path": "/gone.png", "bytes": None}, {"path": None, "bytes": b""}])
def test_rows_without_a_picture_are_left_out(tmp_path, missing):
    content = io.BytesIO()
    red().save(content, "PNG")
    pictures = [{"bytes": content.getvalue(), "path": None}, missing, {"bytes": content.getvalue(), "path": None}]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"image": pictures, "label": ["a", "a", "b"]}, features=features)
    parquet.write_table(table.data.table, tmp_path / "train.parquet")  # `datasets` itself would read the files
    kept, bad = check_pictures(load_named(tmp_path)[0])
    assert [row["path"] for row in kept.remove_columns("image")] == ["train/0", "train/2"]
    assert [path for path, _ in bad] == ["train/1"]


def test_a_folder_with_a_table_that_names_a_missing_picture(root):
    """`datasets` calls this an image folder."""
    rows = [{"file_name": name, "label": "ab"[place % 2]} for place, name in enumerate([*PICTURES, "gone.png"])]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    kept, bad = check_pictures(load_named(root)[0])
    assert len(kept) == len(PICTURES)
    assert [reason for _, reason in bad] == ["there is no such file"]


def test_several_columns_that_could_be_meant(tmp_path):
    features = {"left": datasets.Image(), "right": datasets.Image()}
    features |= {"fine": datasets.ClassLabel(names=["a"]), "coarse": datasets.ClassLabel(names=["b"])}
    folder = saved(tmp_path, {"left": [red()], "right": [red()], "fine": [0], "coarse": [0]}, features)
    with pytest.raises(ValueError, match=r"`image_column` must be given, .*\(left, right\)"):
        load_named(folder)
    with pytest.raises(ValueError, match=r"`label_column` must be given, .*\(fine, coarse\)"):
        load_named(folder, image_column="left")
    assert load_named(folder, image_column="left", label_column="coarse")[0].features["label"].names == ["b"]


def test_a_data_set_that_was_saved_to_disk(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    part = datasets.Dataset.from_dict({"image": [red()], "label": ["a"]}, features=features)
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(tmp_path / "both")
    assert load_named(tmp_path / "both", "test")[0]["path"][:] == ["test/0"]
    with pytest.raises(ValueError, match="no split 'dev', only train, test"):
        load_named(tmp_path / "both", "dev")
    part.save_to_disk(tmp_path / "one")
    assert load_named(tmp_path / "one")[1] == [f"{tmp_path / 'one'} has no splits: all of it is read"]


def test_pictures_in_folders_of_train_and_test_alone_are_not_labelled(tmp_path):
    draw(tmp_path, "train/1.png", "train/2.png", "test/1.png")
    with pytest.raises(ValueError):
        load_named(tmp_path)


def test_a_data_set_that_is_damaged(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"label": 3')
    with pytest.raises(ValueError, match=f"^{tmp_path} cannot be read by `datasets`: .*JSON"):
        load_named(tmp_path)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("golden_retriever", "golden retriever"),
        ("_two__blanks ", "two blanks"),
        ("n02085620-Chihuahua", "Chihuahua"),
        ("n02085620", "n02085620"),
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("T-shirt", "T-shirt"),
        ("7_up", "7 up"),
        ("3.5mm", "3.5mm"),
        ("12.5mm", "12.5mm"),
    ],
)
def test_names_for_prompts(folder, name):
    assert clean_class_name(folder) == name


def test_a_file_of_nicer_names(tmp_path):
    (tmp_path / "names.csv").write_text('n01,tench\n\nn02, "shark, great white"\n', encoding="utf-8-sig")
    names = read_class_names(tmp_path / "names.csv", ["n01", "n02", "n03"])
    assert names == {"n01": "tench", "n02": "shark, great white"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("n09,bird", r"line 2: there is no class 'n09', only 'n01', 'n02'"),
        ("n01,bird", "line 2: the class 'n01' is named a second time"),
        ("n02", "line 2: each line must be `folder,name`, got 'n02'"),
        ("n02,", "line 2: each line must be"),
        ("n02,a,b", "line 2: each line must be"),
    ],
)
def test_a_file_of_names_that_is_wrong(tmp_path, line, message):
    (tmp_path / "names.csv").write_text(f"n01,tench\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_class_names(tmp_path / "names.csv", ["n01", "n02"])


def test_labels_are_matched_by_name(root):
    draw(root, "wolf_dog/1.png")
    dataset, unknown, missing = match_labels(load_folder(root)[0], ["bird", "Dog", "wolf dog"])
    assert by_class(dataset) == [("dog/1.gif", "Dog"), ("dog/2.png", "Dog"), ("wolf_dog/1.png", "wolf dog")]
    assert dataset["label"][:] == [1, 1, 2]
    assert (unknown, missing) == (["cat"], ["bird"])


def test_labels_are_matched_by_nicer_names_too(root):
    dataset, unknown, missing = match_labels(load_folder(root)[0], ["hound", "cat"], {"dog": "hound"})
    assert dataset["label"][:] == [1, 1, 1, 0, 0]
    assert (unknown, missing) == ([], [])


def test_labels_that_match_nothing(root):
    with pytest.raises(ValueError, match=r"No class .* Theirs: 'cat', 'dog'\. The model's: 'bird'"):
        match_labels(load_folder(root)[0], ["bird"])


def test_names_that_differ_in_capitals_alone_stay_apart(tmp_path):
    for name in ("Cat", "cat", "dog"):
        (tmp_path / name).mkdir()
        PIL.Image.new("RGB", (2, 2)).save(tmp_path / name / "1.png")
    pictures = load_folder(tmp_path)[0]
    matched, _, missing = match_labels(pictures, ["Cat", "cat", "dog"])
    assert (matched["label"][:], missing) == ([0, 1, 2], [])
    with pytest.raises(ValueError, match="'DOG' of these pictures could be any of 'Dog', 'dog'"):
        match_labels(pictures, ["Dog", "dog", "cat"], {"dog": "DOG"})


def test_a_table_that_is_none_is_named(tmp_path):
    (tmp_path / "labels.csv").write_text("image,label\n" + "a" * 200000 + ",cat\n")
    with pytest.raises(ValueError, match=r"labels\.csv, line 1: field larger"):
        load_table(tmp_path / "labels.csv")
