"""The decision's rule on features: fitted and applied as the textbook says, whatever the classes and their order."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from peft_mmrl.tuner import probe
from peft_mmrl.tuner.decision import Decision, decide
from peft_mmrl.tuner.decision_fit import fit
from peft_mmrl.tuner.mirroring import judge_mirroring
from peft_mmrl.tuner.probe import choose_factor, deal_into_folds, fit_probe
from peft_mmrl.tuner.textbook import textbook_decision, textbook_fit, textbook_probe


WIDTH = 12


@dataclasses.dataclass
class Problem:
    """Features in float64 of pictures and classes that frozen CLIP tells apart somewhat."""

    images: torch.Tensor
    texts: torch.Tensor
    labels: torch.Tensor
    scale: torch.Tensor = dataclasses.field(default_factory=lambda: torch.tensor(20.0).double())

    def fit(self, **settings):
        return fit(self.images, self.texts, self.labels, self.scale, **settings)

    def textbook(self):
        return textbook_fit(self.images, self.texts, self.labels, self.scale)


def make_problem(counts, seed=0, spread=0.8):
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, generator=generator).double()

    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = normalize(noise(len(counts), WIDTH), dim=-1)
    common = normalize(noise(2, 1, WIDTH), dim=-1)
    images = common[0] + centres[labels] + spread * noise(len(labels), WIDTH) / WIDTH**0.5
    texts = common[1] + centres + 0.5 * noise(len(counts), WIDTH) / WIDTH**0.5
    shuffled = torch.randperm(len(labels), generator=generator)
    return Problem(normalize(images, dim=-1)[shuffled], normalize(texts, dim=-1), labels[shuffled])


@pytest.fixture
def problem():
    return make_problem([4, 3, 6])


def close(ours, theirs, tolerance=2e-4):
    ours, theirs = torch.as_tensor(ours).double(), torch.as_tensor(theirs).double()
    return bool((ours - theirs).norm() <= tolerance * max(1, theirs.norm()))


def is_fitted_as(decision, fitted):
    names = {"W": "probe_weight", "c": "probe_bias", "M": "prototypes"}
    names |= {"a": "prototype_scale", "b": "prototype_shift", "w": "prototype_weight", "q": "zero_shot_share"}
    return all(close(getattr(decision, name), fitted[symbol]) for symbol, name in names.items())


# --- fitting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "counts",
    [[4, 4, 4], [16, 16], [1, 1, 1, 1], [2, 2], [1, 9, 4], [40, 3, 5], [7], [1]],
    ids=["balanced", "two classes", "one picture a class", "two pictures", "one of one", "rare", "one class", "one"],
)
@pytest.mark.parametrize("seed", range(3))
def test_fit_is_the_textbooks(counts, seed):
    problem = make_problem(counts, seed)
    assert is_fitted_as(problem.fit(), problem.textbook())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 8), min_size=2, max_size=6),
    st.integers(0, 99),
    st.sampled_from([0.2, 0.8, 3.0]),
    st.booleans(),
)
def test_fit_of_any_problem_is_the_textbooks(counts, seed, spread, is_misnamed):
    problem = make_problem(counts, seed, spread)
    if is_misnamed:  # frozen CLIP takes the classes for one another
        problem.texts = problem.texts.roll(1, dims=0)
    assert is_fitted_as(problem.fit(), problem.textbook())


def test_chunks_change_nothing(problem, monkeypatch):
    whole = problem.fit()
    monkeypatch.setattr(probe, "CHUNK_NUMBERS", 7)
    assert is_fitted_as(problem.fit(), problem.textbook())
    assert close(problem.fit().probe_weight, whole.probe_weight)


def test_fit_in_fp32_is_that_in_fp64(problem):
    single = fit(problem.images.float(), problem.texts.float(), problem.labels, 20.0)
    assert is_fitted_as(single, problem.textbook())
    assert single.probe_weight.dtype == single.prototypes.dtype == torch.float32


class WithoutDoubles(torch.Tensor):
    """A tensor on a device that has no float64, as MPS: only copies on the CPU may be doubles."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        result = super().__torch_function__(function, types, args, kwargs or {})
        if isinstance(result, cls) and result.dtype == torch.float64:
            raise TypeError(f"{function} makes a float64")
        return result


def test_a_device_without_doubles_fits_the_same(problem):
    images, texts, labels, scale = problem.images.float(), problem.texts.float(), problem.labels, torch.tensor(20.0)
    expected = fit(images, texts, labels, scale)
    given = [tensor.as_subclass(WithoutDoubles) for tensor in (images, texts, labels, scale)]
    with pytest.raises(TypeError, match="makes a float64"):
        given[0].sum(dtype=torch.double)
    fitted = fit(*given)
    assert isinstance(fitted.probe_weight, WithoutDoubles)
    for field in dataclasses.fields(Decision):
        ours, theirs = getattr(fitted, field.name), getattr(expected, field.name)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, field.name
    mirrored = images.roll(1, dims=0)
    assert judge_mirroring(given[0], mirrored.as_subclass(WithoutDoubles), *given[1:]) == judge_mirroring(
        images, mirrored, texts, labels, scale
    )


@pytest.mark.parametrize("seed", range(5))
def test_order_of_pictures_changes_nothing(seed):
    problem = make_problem([5, 2, 9], seed)
    order = torch.randperm(len(problem.labels), generator=torch.Generator().manual_seed(seed))
    shuffled = Problem(problem.images[order], problem.texts, problem.labels[order])
    assert is_fitted_as(shuffled.fit(), problem.textbook())


def test_order_of_classes_orders_the_rows(problem):
    order = torch.tensor([2, 0, 1])
    other = Problem(problem.images, problem.texts[order], order.argsort()[problem.labels])
    ours, theirs = other.fit(), problem.fit()
    for name in ("probe_weight", "probe_bias", "prototypes"):
        assert close(getattr(ours, name), getattr(theirs, name)[order])
    assert close(ours.prototype_scale, theirs.prototype_scale)
    assert ours.prototype_weight == theirs.prototype_weight
    assert ours.zero_shot_share == theirs.zero_shot_share


def test_one_picture_a_class_leaves_out_what_needs_two():
    decision = make_problem([1, 1, 1]).fit()
    assert (decision.prototype_scale, decision.prototype_weight) == (0, 0)
    assert decision.probe_weight.abs().sum() > 0


def test_one_class_is_scored_by_text_alone():
    decision = make_problem([6]).fit()
    assert decision.probe_weight.abs().sum() == decision.probe_bias.abs().sum() == decision.prototype_weight == 0


def test_prototypes_that_tell_nothing_weigh_nothing():
    problem = make_problem([6, 6], spread=0.0)
    problem.images = problem.images.roll(1, dims=0)  # labels that have nothing to do with the pictures
    problem.labels = torch.arange(12) % 2
    problem.images[:] = problem.images[:1]
    assert problem.fit().prototype_weight == 0


@pytest.mark.parametrize(("counts", "most"), [([2, 2], 0), ([3, 3], 0.25), ([2, 2, 1, 1], 0), ([4, 4], 0.5)])
def test_few_pictures_of_few_classes_leave_prototypes_little_to_say(counts, most):
    weights = {make_problem(counts, seed, 0.3).fit().prototype_weight for seed in range(20)}
    assert max(weights) == most


def test_class_weight_balances_the_probe():
    problem = make_problem([30, 3], spread=3.0)
    plain, _ = fit_probe(problem.images, problem.labels, 2)
    balanced, bias = fit_probe(problem.images, problem.labels, 2, class_weight=torch.tensor([1.0, 10.0]))
    rare = problem.labels == 1
    repeated = torch.cat([torch.arange(33), *[rare.nonzero().flatten()] * 9])
    expected, expected_bias = textbook_probe(problem.images[repeated], problem.labels[repeated], 2)
    assert close(balanced, expected, 1e-3) and close(bias, expected_bias, 1e-3) and not close(balanced, plain, 1e-3)


def test_probe_of_many_pictures_is_at_its_optimum():
    problem = make_problem([50] * 8, spread=2.0)
    weight, bias = fit_probe(problem.images.float(), problem.labels, 8)
    expected, expected_bias = textbook_probe(problem.images, problem.labels, 8)
    assert close(weight, expected, 1e-3) and close(bias, expected_bias, 1e-3)


def test_folds_hold_every_class_alike():
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 0, 1, 1])
    fold = deal_into_folds(labels, torch.randn(10), 3)
    counts = torch.stack([labels[fold == index].bincount(minlength=2) for index in range(3)])
    assert counts.min() >= 1 and (counts.max(dim=0).values - counts.min(dim=0).values).max() <= 1


def test_the_factor_is_chosen_by_pictures_that_are_held_out():
    assert choose_factor(*vars(make_problem([1, 1, 1])).values()) == 0.5  # none can be
    clean = {choose_factor(*vars(make_problem([6, 6, 6], seed, 0.1)).values()) for seed in range(3)}
    noise = make_problem([8, 8, 8], spread=0.0)
    noise.images = normalize(torch.randn(24, WIDTH, generator=torch.Generator().manual_seed(1)).double(), dim=-1)
    noise.scale = torch.tensor(0.01).double()
    assert clean == {2} and choose_factor(*vars(noise).values()) == 0


def test_a_class_of_one_picture_does_not_stop_the_others_from_being_held_out():
    assert choose_factor(*vars(make_problem([1, 6, 6], spread=0.1)).values()) == 2


# --- deciding ----------------------------------------------------------------------------------------------------


ROWS = {
    "trained only": [0, 1, 2],
    "other order": [2, 0, 1],
    "a part": [2, 1],
    "one of them": [1],
    "new only": [-1, -1],
    "mixed": [-1, 2, -1, 0],
    "one among new": [-1, 1, -1, -1],
}


def logits_of(problem, decision, rows, o=0.5, alpha=0.7, seed=5, function=decide):
    generator = torch.Generator().manual_seed(seed)
    texts = normalize(torch.randn(len(rows), WIDTH, generator=generator).double(), dim=-1)
    adapted = 4 * torch.randn(2, len(problem.images), len(rows), generator=generator).double()
    return function(decision, rows, problem.images, texts, *adapted, problem.scale, alpha, o)


def by_textbook(decision, rows, *arguments):
    names = {"W": "probe_weight", "c": "probe_bias", "M": "prototypes"}
    names |= {"a": "prototype_scale", "b": "prototype_shift", "w": "prototype_weight", "q": "zero_shot_share"}
    fitted = {symbol: torch.as_tensor(getattr(decision, name), dtype=torch.double) for symbol, name in names.items()}
    rows = [None if row < 0 else row for row in rows]
    images, texts, *logits, scale, alpha, o = arguments
    if decision.features == "frozen":
        logits = [scale * images @ texts.T] * 2
    return textbook_decision(fitted, rows, images, texts, *logits, scale, alpha, o)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("o", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("features", ["adapted", "frozen"])
@pytest.mark.parametrize("counts", [[4, 3, 6], [1, 1, 1]], ids=["some pictures", "one picture a class"])
def test_logits_are_the_textbooks(rows, o, features, counts):
    problem = make_problem(counts)
    decision = problem.fit(features=features)
    ours = logits_of(problem, decision, rows, o)
    theirs = logits_of(problem, decision, rows, o, function=by_textbook)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_new_classes_are_zero_shot_bit_for_bit_where_asked_for(problem):
    rows = [-1, 0, -1]
    for seed in range(3):
        texts = normalize(torch.randn(3, WIDTH).double(), dim=-1)
        zero_shot = problem.scale * problem.images @ texts.T
        adapted = torch.randn(2, len(problem.images), 3).double()
        logits = decide(problem.fit(), rows, problem.images, texts, *adapted, problem.scale, 0.7, 1.0)
        assert torch.equal(logits[:, [0, 2]], zero_shot[:, [0, 2]]), seed


def test_new_classes_do_not_change_which_trained_class_is_named(problem):
    decision = problem.fit()
    together = logits_of(problem, decision, [0, 1, 2, -1, -1])[:, :3]
    generator = torch.Generator().manual_seed(5)
    texts = normalize(torch.randn(5, WIDTH, generator=generator).double(), dim=-1)[:3]
    adapted = 4 * torch.randn(2, len(problem.images), 5, generator=generator).double()[:, :, :3]
    alone = decide(decision, range(3), problem.images, texts, *adapted, problem.scale, 0.7, 0.5)
    torch.testing.assert_close(together.softmax(dim=1), alone.softmax(dim=1))


def test_features_in_half_precision_are_decided_in_fp32(problem):
    decision = dataclasses.replace(problem.fit(), prototype_scale=10.0, prototype_weight=0.75)
    images, texts = problem.images.float(), problem.texts.float()
    adapted = torch.randn(2, len(images), 3)
    arguments = decision, [0, -1, 2], images, texts, *adapted, torch.tensor(100.0), 0.7, 0.5
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = decide(*arguments)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, decide(*arguments))


# --- mirroring ---------------------------------------------------------------------------------------------------


def judged(problem, mirrored):
    return judge_mirroring(problem.images, mirrored, problem.texts, problem.labels, problem.scale)


def test_mirroring_that_changes_nothing_is_harmless(problem):
    mirroring = judged(problem, problem.images)
    assert mirroring.gain == pytest.approx(0, abs=1e-9) and mirroring.is_harmless


def test_mirroring_into_another_class_is_seen_where_names_mean_nothing():
    problem = make_problem([4, 4], spread=0.2)
    problem.texts = problem.texts[:1].expand(2, -1)
    other = problem.images[torch.stack([(problem.labels != label).nonzero()[0, 0] for label in problem.labels])]
    mirroring = judged(problem, other)
    assert mirroring.gain < -1 and not mirroring.is_harmless


def test_pictures_that_are_not_recognised_are_not_mirrored():
    problem = make_problem([8, 8])
    generator = torch.Generator().manual_seed(0)
    problem.images = normalize(torch.randn(16, WIDTH, generator=generator).double(), dim=-1)
    problem.texts = problem.texts[:1].expand(2, -1)
    mirroring = judged(problem, problem.images)
    assert mirroring.gain == pytest.approx(0, abs=1e-9) and mirroring.known < 0.25 and not mirroring.is_harmless


@pytest.mark.parametrize("counts", [[1, 3], [1, 1], [5]])
def test_one_picture_a_class_says_nothing_of_mirroring(counts):
    problem = make_problem(counts)
    assert judged(problem, problem.images) is None


def test_mirrored_pictures_must_be_as_many(problem):
    with pytest.raises(ValueError, match="`mirrored` must have the shape"):
        judged(problem, problem.images[1:])


# --- bad input, saving -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.full((13, WIDTH), float("nan"))}, "`frozen_image` must hold finite"),
        ({"texts": torch.full((3, WIDTH), float("inf"))}, "`frozen_text` must hold finite"),
        ({"images": torch.zeros(0, WIDTH)}, "`frozen_image` must have the shape"),
        ({"texts": torch.zeros(3, WIDTH + 1)}, "`frozen_text` must have the shape"),
        ({"images": [1.0]}, "`frozen_image` must be a tensor of floats"),
        ({"labels": torch.zeros(13, dtype=torch.long)}, r"no pictures of the class\(es\) at position \[1, 2\]"),
        ({"labels": torch.arange(13)}, "`labels` must lie between 0 and 2"),
        ({"labels": torch.arange(13) - 1}, "`labels` must lie between 0 and 2"),
        ({"labels": torch.zeros(12, dtype=torch.long)}, "`labels` must have the shape"),
        ({"labels": torch.zeros(13)}, "`labels` must be a tensor of whole numbers"),
    ],
)
def test_what_is_no_problem_is_refused(problem, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(problem, **change).fit()


def test_an_unknown_pass_is_refused(problem):
    with pytest.raises(ValueError, match='`features` must be "adapted" or "frozen"'):
        problem.fit(features="both")


def test_a_decision_comes_back_from_its_state(problem):
    decision = problem.fit(
        features="frozen", classes=["a", "b", "c"], fitted_for={"template": ["{}."], "image size": [32, 48]}
    )
    tensors, metadata = decision.state()
    again = Decision.from_state(tensors, metadata)
    for field in dataclasses.fields(Decision):
        ours, theirs = getattr(again, field.name), getattr(decision, field.name)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, field.name
    assert decision.nbytes == 4 * (2 * 3 * WIDTH + 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probe_bias": torch.zeros(4)}, "`probe_bias` must have the shape"),
        ({"prototypes": torch.full((3, WIDTH), float("nan"))}, "`prototypes` must hold finite"),
        ({"probe_weight": None}, "`probe_weight` must have the shape"),
        ({"prototype_weight": 2}, "`prototype_weight` must be a number from 0 to 1"),
        ({"prototype_scale": -1}, "`prototype_scale` must be a number of at least 0"),
        ({"prototype_shift": float("nan")}, "`prototype_shift` must be a number"),
        ({"classes": ("a",)}, "`classes` has 1 names for 3 rows"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(problem, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(problem.fit(), **change)


@pytest.mark.parametrize("metadata", [None, {}, {"decision": "no json"}, {"decision": '{"unknown": 1}'}])
def test_other_files_are_no_decision(problem, metadata):
    tensors, _ = problem.fit().state()
    with pytest.raises(ValueError, match="This is no decision"):
        Decision.from_state(tensors, metadata)
