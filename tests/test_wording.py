"""Messages list the first of many things, and say how many more there are."""

from peft_mmrl.data.wording import counted, first_few


def test_the_first_of_many_and_how_many_more():
    assert first_few([]) == "none"
    assert first_few(["a", "b"], 2) == "a, b"
    assert first_few(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert first_few(list(map(str, range(12)))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


def test_counts_are_of_one_or_several():
    assert [counted(1, "file"), counted(0, "file"), counted(1200, "file")] == ["1 file", "0 files", "1,200 files"]
    assert [counted(1, "class", "classes"), counted(2, "class", "classes")] == ["1 class", "2 classes"]
