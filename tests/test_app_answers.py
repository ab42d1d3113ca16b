"""What the page says to a picture and asks about pictures: who answers, how sure that is, what is asked again."""

import os
import re
import shutil
from dataclasses import replace

import pytest
from conftest import DEMO_CLIP

import peft_mmrl
from peft_mmrl.projects.picture_answers import PictureAnswer
from peft_mmrl.projects.project import Project


gr = pytest.importorskip("gradio", reason='needs the extra "app": pip install "peft_mmrl[app]"')


@pytest.fixture
def project(tmp_path, digits):
    """Zeros and ones, and a class "two" without pictures."""
    project = Project.open(tmp_path / "project", DEMO_CLIP)
    for name in ("zero", "one", "two"):
        project.add_class(name)
    for name in ("zero", "one"):
        for number, picture in enumerate(digits[name][:8]):
            picture.save(project.pictures / name / f"{number}.png")
    return project


def train(project, name, ended=1):
    """A training without its steps, that ended at a time."""
    folder = project.adapters / name
    if name == "run-1":
        peft_mmrl.fit(project.pictures, str(DEMO_CLIP), folder, quick=True)
    else:
        shutil.copytree(project.adapters / "run-1", folder)
    os.utime(folder / "run.json", (ended, ended))


def tabs(project):
    from peft_mmrl.app.desk import Desk
    from peft_mmrl.app.figure import Figure
    from peft_mmrl.app.improve_tab import ImproveTab
    from peft_mmrl.app.try_tab import TryTab

    with gr.Blocks(analytics_enabled=False):
        desk = Desk(project)
        figure = Figure(desk)
        return TryTab(desk, figure), ImproveTab(desk, figure)


def numbers(html):
    """What stands beside bars."""
    return re.findall(r"[^>]+%(?=</span>)", html)


def drop(project, picture, name="new.png"):
    """As the browser drops a picture."""
    path = project.folder / ".uploads" / "1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return {"path": str(path)}


@pytest.fixture
def answering(project, monkeypatch):
    """The tab that tries, and who was asked so far."""
    tab, asked = tabs(project)[0], []
    monkeypatch.setattr(
        tab._desk.workbench, "answer", lambda _, run: asked.append(run) or PictureAnswer("It cannot be opened.")
    )
    return tab, asked


def test_a_picture_that_was_dropped_too_long_ago_goes_from_the_page(project, digits, answering):
    tab, asked = answering
    given = drop(project, digits["zero"][9])
    shown = dict(zip(tab.outputs, tab.show(None, given), strict=True))
    assert len(asked) == 1 and shown[tab.picture] is not None
    os.unlink(given["path"])  # as Gradio does
    shown = dict(zip(tab.outputs, tab.show(None, given), strict=True))
    assert len(asked) == 1 and shown[tab.picture] is None and "Drop a picture" in shown[tab.answer]


def test_the_newest_training_answers_unless_the_visitor_has_chosen_another(project, digits, answering):
    tab, asked = answering
    given = drop(project, digits["zero"][9])

    def open_tab(which):
        shown = tab.show(which, given)[0]
        return shown.get("value", which), shown["visible"], asked[-1], dict(shown["choices"])

    value, visible, run, choices = open_tab(None)
    assert (visible, run, choices) == (False, None, {})
    train(project, "run-1")
    value, visible, run, choices = open_tab(value)  # what the hidden choice was before
    assert (visible, run) == (True, "run-1")
    assert list(choices) == ["The newest training (run-1)", "Your pictures at once, without training"]
    train(project, "run-2", ended=2)
    tab._ask(value, given)  # nobody has come back to the tab since
    assert asked[-1] == "run-2"
    value, visible, run, choices = open_tab(value)
    assert run == "run-2" and len(choices) == 3

    assert open_tab(choices["Training “run-1”"])[:3] == ("run-1", True, "run-1")
    at_once = choices["Your pictures at once, without training"]
    assert open_tab(at_once)[:3] == (at_once, True, None)
    shutil.rmtree(project.adapters / "run-1")
    assert open_tab("run-1")[:3] == (value, True, "run-2")  # it has gone


def test_a_class_that_is_known_by_name_alone_is_never_said_to_be_sure(project, digits):
    from peft_mmrl.app.answer_html import answer_html

    trying, _ = tabs(project)
    workbench = trying._desk.workbench
    html = answer_html(workbench.answer(digits["two"][0]))
    assert "This looks like <b>two</b>" in html and "cannot be said" in html
    assert numbers(html) == [] and " sure." not in html and "by name" in html
    html = answer_html(workbench.answer(digits["zero"][9]))
    assert " sure.</p>" in html and len(numbers(html)) == 4  # of zero and one, and the same by their names alone

    train(project, "run-1")
    for number, picture in enumerate(digits["two"][1:4]):  # which the training has not seen
        picture.save(project.pictures / "two" / f"{number}.png")
    workbench.update()
    html = answer_html(workbench.answer(digits["two"][0], "run-1"))
    assert "This looks like <b>two</b>" in html and numbers(html) == []
    assert "two came after this training" in html
    html = answer_html(workbench.answer(digits["two"][0]))
    assert "cannot be said" not in html and len(numbers(html)) == 6  # without the training it is known by its pictures


def test_before_there_are_pictures_nothing_is_sure(tmp_path, digits):
    from peft_mmrl.app.answer_html import ALONE, answer_html

    project = Project.open(tmp_path / "project", DEMO_CLIP)
    project.add_class("zero"), project.add_class("one")
    html = answer_html(tabs(project)[0]._desk.workbench.answer(digits["zero"][0]))
    assert "This looks like" in html and numbers(html) == []
    assert ALONE not in html  # it would say the same


def test_an_answer_is_confirmed_by_one_click(project, digits):
    tab, _ = tabs(project)
    given = drop(project, digits["zero"][9])
    shown = dict(zip(tab._answered, tab._ask(None, given), strict=True))
    assert shown[tab.guess] == [given["path"], "zero"] and shown[tab.agree] == gr.update(
        value="Yes, it is zero", visible=True, variant="primary"
    )
    assert [folder for _, folder in shown[tab.belongs]["choices"]] == ["", "one", "two"]
    assert "main view" in shown[tab.maps]["value"] and "token" not in shown[tab.maps]["value"]
    tab._keep(given, shown[tab.guess][1], "Thank you")
    assert (project.pictures / "zero" / "new.png").is_file()

    for likely in (["zero", "one"], []):  # one of these; none of these
        doubtful = PictureAnswer("it depends", ranks=[("zero", 0.6), ("one", 0.4)], likely=likely)
        tab._desk.workbench.answer = lambda *_, doubtful=doubtful: doubtful
        shown = dict(zip(tab._answered, tab._ask(None, given), strict=True))
        assert shown[tab.guess] == [given["path"], "zero"] and shown[tab.agree] == gr.update(
            value="It is zero", visible=True, variant="secondary"
        )
        assert shown[tab.belongs]["choices"] == [("It is …", ""), ("one", "one"), ("two", "two")]


@pytest.mark.parametrize(
    "token, name", [("class token", "main view"), ("token 1", "added view 1"), ("token 12", "added view 12")]
)
def test_maps_are_named_in_plain_words(token, name):
    from peft_mmrl.app.answer_html import view_name

    assert view_name(token) == name


def test_the_guess_of_a_class_that_is_known_by_name_alone_is_not_called_sure(project, digits):
    from peft_mmrl.app.questions import IN_DOUBT, new_pictures

    for name, prefix in (("two", ""), ("zero", ""), ("two", IN_DOUBT), ("zero", IN_DOUBT)):
        digits[name][10 + bool(prefix)].save(project.unlabelled / f"{prefix}{name}.png")
    improve = tabs(project)[1]
    workbench = improve._desk.workbench
    workbench.update()
    asked = {one.picture.split("/")[1]: one for one in new_pictures(workbench)}
    assert len(asked) == 4
    for picture, one in asked.items():
        assert picture.removeprefix(IN_DOUBT) == f"{one.guess}.png"
        assert (one.sure is None) == (one.guess == "two")
        assert ("sure" in improve._words(one, {})) == (one.guess != "two")


def refuse(*_):
    raise ValueError("A training is looking at these pictures just now.")


def before(workbench, name, change, monkeypatch):
    """Let another tab change the project just before a method of the workbench is called."""
    method = getattr(workbench, name)

    def changed(*given, **named):
        change()
        workbench.update()
        return method(*given, **named)

    monkeypatch.setattr(workbench, name, changed)


def test_what_is_asked_is_of_one_time_also_where_another_tab_changes_the_classes_meanwhile(
    project, digits, monkeypatch
):
    from peft_mmrl.app.questions import IN_DOUBT, doubtful_labels, new_pictures

    digits["zero"][9].save(project.pictures / "one" / "wrong.png")
    improve = tabs(project)[1]
    workbench = improve._desk.workbench
    workbench.update()
    asked = doubtful_labels(workbench)
    assert ("pictures/one/wrong.png", "one", "zero") in [(one.picture, one.lies_in, one.guess) for one in asked]
    before(workbench, "held_out", lambda: project.add_class("aleph"), monkeypatch)  # comes before the others
    assert doubtful_labels(workbench) == asked

    digits["zero"][10].save(project.unlabelled / f"{IN_DOUBT}zero.png")
    folders = project.class_folders()
    before(workbench, "answer", lambda: [project.rename_class(name, f"{name} it is") for name in folders], monkeypatch)
    (one,) = new_pictures(workbench)
    assert one.guess is None and one.sure is None
    words = improve._words(one, project.prompt_names())
    assert "What is this?" in words and "guess" not in words and "None" not in words


class Visit:
    """Somebody who answers questions; `round` is what the server keeps for them."""

    def __init__(self, project, kind):
        from peft_mmrl.app.improve_tab import Round

        self.tab, self.kind = tabs(project)[1], kind
        self.see(self.tab._begin(kind, Round()))

    def see(self, shown):
        self.round, self.seen, self.state = shown[0], shown[1], shown[3]

    def do(self, what, *given):
        self.see(what(*given, self.round))

    @property
    def asked(self):
        return [one.picture for one in self.round.queue]


def test_what_somebody_does_not_know_is_not_asked_again_and_what_they_answered_counts(project, digits):
    from peft_mmrl.app.improve_tab import LABELS, NEW

    for number, picture in enumerate([*digits["zero"][9:12], *digits["one"][9:12]]):
        picture.save(project.unlabelled / f"{number}.png")
    me = Visit(project, NEW)
    first = me.asked[0]
    me.do(me.tab._skip)
    me.do(me.tab._put, "zero")
    digits["three"][0].save(project.unlabelled / "dropped.png")
    me.do(me.tab._look)  # after a drop
    assert first not in me.asked and "unlabelled/dropped.png" in me.asked
    assert me.round.answered == 1 and me.round.last is not None
    me.do(me.tab._begin, NEW)  # after another tab
    assert first not in me.asked and me.round.last is not None
    me.do(me.tab._begin, LABELS)
    assert me.round.kind == LABELS and me.round.last is not None  # an answer can be taken back there, too
    me.do(me.tab._begin, NEW)
    assert first not in me.asked and me.asked
    while me.asked:
        me.do(me.tab._skip)
    assert "seen them all" in me.state and "All pictures have a class" not in me.state
    me.do(me.tab._undo)
    me.do(me.tab._put, "zero")
    assert "1 picture answered" in me.state and "What you did not know is asked again" in me.state
    assert Visit(project, NEW).asked  # another visitor, or the page opened anew
    with pytest.raises(ValueError, match="no questions of kind 'other'"):
        me.do(me.tab._begin, "other")


def test_a_picture_of_no_class_yet_gets_a_new_one(project, digits, monkeypatch):
    from peft_mmrl.app import improve_tab
    from peft_mmrl.app.improve_tab import NEW

    for number, name in enumerate(("three", "zero")):
        digits[name][9].save(project.unlabelled / f"{number}.png")
    me = Visit(project, NEW)
    with monkeypatch.context() as training, pytest.raises(ValueError, match="training"):
        training.setattr(improve_tab, "move_pictures", refuse)
        me.do(me.tab._create, "three")
    with pytest.raises(ValueError, match="name of letters"):
        me.do(me.tab._create, " ")
    assert project.class_folders() == ["one", "two", "zero"] and len(me.asked) == 2
    for name in ("Three", "ZERO"):  # of which there is none yet; of which there is one
        me.do(me.tab._create, name)
    assert project.class_folders() == ["one", "Three", "two", "zero"] and me.asked == []
    assert len(project.pictures_in(project.pictures / "Three")) == 1
    assert len(project.pictures_in(project.pictures / "zero")) == 9


def test_an_answer_counts_for_the_picture_that_was_seen(project, digits):
    from peft_mmrl.app.improve_tab import NEW

    for number in range(3):
        digits["zero"][9 + number].save(project.unlabelled / f"{number}.png")
    me = Visit(project, NEW)
    first, second, third = me.asked
    seen = me.seen
    assert seen == [first, *me.round.keys]
    answer = me.tab._to_what_is_seen(me.tab._put)
    me.see(answer("zero", me.round, me.seen))
    assert me.asked == [second, third] and me.seen[0] == second
    assert answer("one", me.round, seen) == gr.skip()  # clicked before the page showed what is asked next
    assert answer("one", me.round, [second, *reversed(me.round.keys)]) == gr.skip()  # the keys had other classes
    assert [picture for picture in me.asked if (project.folder / picture).is_file()] == [second, third]
    assert answer("one", replace(me.round, queue=[]), me.seen) == gr.skip()


def test_an_answer_that_is_undone_is_asked_again(project, digits):
    from peft_mmrl.app.improve_tab import LABELS

    digits["zero"][8].save(project.pictures / "one" / "wrong.png")
    me = Visit(project, LABELS)
    assert me.asked == ["pictures/one/wrong.png"]
    for answer in ("one", "zero"):  # it is right as it is; it belongs elsewhere
        me.do(me.tab._put, answer)
        assert me.asked == []
        me.do(me.tab._undo)
        assert me.asked == ["pictures/one/wrong.png"] and me.round.answered == 0


def test_not_to_know_is_an_answer_that_can_be_undone(project, digits):
    from peft_mmrl.app.improve_tab import NEW

    for number, picture in enumerate([*digits["zero"][9:12], *digits["one"][9:12]]):
        picture.save(project.unlabelled / f"{number}.png")
    me = Visit(project, NEW)
    me.do(me.tab._put, "zero")
    skipped, answered = me.asked[0], me.round.last.picture
    me.do(me.tab._skip)
    assert "The last one is in" not in me.state and skipped not in me.asked
    me.do(me.tab._undo)
    assert me.asked[0] == skipped and me.round.answered == 1 and me.round.last is None
    assert project.path(answered).is_file()  # what was said before stays


def test_a_class_that_was_made_for_an_answer_goes_with_it(project, digits):
    from peft_mmrl.app.improve_tab import NEW

    for number, name in enumerate(("three", "zero")):
        digits[name][9].save(project.unlabelled / f"{number}.png")
    me = Visit(project, NEW)
    first = me.asked[0]
    for name in ("three", "two"):  # made for it; there already, and as empty
        me.do(me.tab._create, name)
        me.do(me.tab._undo)
        assert project.class_folders() == ["one", "two", "zero"] and me.asked[0] == first


def test_keys_keep_their_classes_where_one_is_made(project, digits):
    from peft_mmrl.app.improve_tab import LABELS, NEW

    for number, picture in enumerate(digits["zero"][9:12]):
        picture.save(project.unlabelled / f"{number}.png")
    me = Visit(project, NEW)
    assert me.round.keys == ["one", "two", "zero"]
    me.do(me.tab._create, "eight")
    assert me.round.keys == ["one", "two", "zero", "eight"]
    me.do(me.tab._begin, LABELS)
    me.do(me.tab._begin, NEW)
    assert me.round.keys == ["one", "two", "zero", "eight"]
    project.rename_class("two", "deux")  # by another tab
    me.do(me.tab._skip)
    assert me.round.keys == ["one", "zero", "eight", "deux"]


def test_an_undo_that_is_refused_leaves_the_answer_as_it_was(project, digits, monkeypatch):
    from peft_mmrl.app import improve_tab
    from peft_mmrl.app.improve_tab import LABELS
    from peft_mmrl.projects.agreed import is_agreed

    digits["zero"][8].save(project.pictures / "one" / "wrong.png")
    me = Visit(project, LABELS)
    me.do(me.tab._put, "zero")
    with monkeypatch.context() as training, pytest.raises(ValueError, match="training"):
        training.setattr(improve_tab, "move_pictures", refuse)
        me.do(me.tab._undo)
    assert is_agreed(project, ["pictures/zero/wrong.png"]) == [True]
    me.do(me.tab._undo)
    me.tab._project.path("pictures/one/wrong.png").rename(project.pictures / "zero" / "wrong.png")
    assert is_agreed(project, ["pictures/zero/wrong.png"]) == [False]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("The dropped file is gone.")])
def test_a_drop_that_fails_says_why_and_the_next_is_taken(project, digits, monkeypatch, error):
    from peft_mmrl.app import improve_tab

    def refuse(*_):
        raise error

    tab, given = tabs(project)[1], [drop(project, digits["zero"][9])["path"]]
    with monkeypatch.context() as full:
        full.setattr(improve_tab, "take_in", refuse)
        said, before = tab._drop(given, ["<p>Before.</p>"])
    assert said["visible"]
    assert "Nothing was taken" in said["value"] and str(error) in said["value"]
    said, before = tab._drop(given, before)
    assert said["value"].startswith("<p>Before.</p>") and "1 picture added" in said["value"]
    assert str(error) in said["value"]  # not wiped away


@pytest.mark.parametrize("answer", ["zero", "one", None])
def test_a_question_about_a_picture_that_has_gone_meanwhile_gives_way_to_the_next(project, digits, answer, capsys):
    from peft_mmrl.app.improve_tab import NEW, NOT_ASKED

    for number, picture in enumerate(digits["zero"][9:12]):
        picture.save(project.unlabelled / f"{number}.png")
    me = Visit(project, NEW)
    first, *others = me.asked
    project.path(first).rename(project.pictures / "one" / "by another tab.png")
    me.do(*([me.tab._take_out] if answer is None else [me.tab._put, answer]))
    assert me.asked == others and me.round.answered == 0 and NOT_ASKED in capsys.readouterr().out
    me.do(me.tab._put, "zero")
    project.path(me.round.last.picture).unlink()
    me.do(me.tab._undo)  # which cannot be offered any more either
    assert me.round.last is None and me.round.answered == 1 and me.asked


def test_how_many_are_left_is_told_truly(project, digits):
    from peft_mmrl.app.improve_tab import ASKED_NEXT, LABELS, NEW

    digits["zero"][8].save(project.pictures / "one" / "wrong.png")
    assert "1 picture to look at. " in Visit(project, LABELS).state
    unknown = [picture for name in ("one", "two", "three") for picture in digits[name][8:12]] + digits["three"][:8]
    for number, picture in enumerate(unknown):
        picture.save(project.unlabelled / f"{number}.png")
    me = Visit(project, NEW)
    assert len(me.asked) == ASKED_NEXT
    assert f"{len(unknown)} pictures without a class." in me.state
    seen = set(me.asked)
    for _ in range(ASKED_NEXT):  # then come others, which were not asked before
        me.do(me.tab._skip)
    assert me.asked and not seen & set(me.asked) and "seen them all" not in me.state


def test_pictures_that_are_never_asked_about_are_not_said_to_have_a_class(project, digits):
    from peft_mmrl.app.improve_tab import NEW, NOTHING, REST

    assert NOTHING[NEW] in Visit(project, NEW).state
    digits["zero"][0].save(project.unlabelled / "copy.png")
    assert REST in Visit(project, NEW).state


def test_the_line_above_the_tabs_says_that_there_are_doubts_until_they_are_settled(project, digits):
    from peft_mmrl.app.figure import Figure
    from peft_mmrl.app.improve_tab import LABELS

    digits["zero"][8].save(project.pictures / "one" / "wrong.png")
    me = Visit(project, LABELS)
    with gr.Blocks(analytics_enabled=False):
        figure = Figure(me.tab._desk)
    assert "1 picture may be in a wrong class: look into <b>Improve</b>." in figure.show()
    me.do(me.tab._put, "one")
    assert "wrong class" not in figure.show()


def test_thanks_hold_for_whatever_was_answered(project, digits):
    from peft_mmrl.app.improve_tab import LABELS

    for answer in ("one", None):  # confirmed; taken out
        digits["zero"][8].save(project.pictures / "one" / "wrong.png")
        me = Visit(project, LABELS)
        me.do(*([me.tab._take_out] if answer is None else [me.tab._put, answer]))
        assert "1 picture answered" in me.state and "learn" not in me.state
        (project.folder / "agreed.json").unlink(missing_ok=True)
