"""A project's base model, shared by all threads: what it sees in pictures and names, and adapters on top of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count

import datasets
import torch
from peft import get_peft_model

from ..auto import load_clip
from ..data import PictureFacts, Preprocessing
from ..data.checking import examine_pictures
from ..data.preprocessing import ImageProcessor
from ..data.sources import labelled
from ..scoring.listing import Listing
from ..scoring.reference import LIGHT_MEASURES, seeing
from ..scoring.sightings import frozen_sight
from ..scoring.unlabelled import PictureBatch, load_classifier, over_pictures, read_config
from ..training import make_accelerator
from ..tuner.config import MMRLConfig
from ..tuner.peft_model import PeftModelForZeroShotImageClassification
from .project import Project
from .seen_features import SeenFeatures, key_of_seeing


SEEN_AT_A_TIME = 8  # pictures: between two batches others may ask the model
PLAIN = "default"  # the adapter that is never trained: it carries the classes, and frozen CLIP is asked
TAKEN_AWAY = "it was moved or taken away just now"
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Sights:
    """Pictures that were looked at.

    Args:
        pictures: N paths below the project's folder.
        facts: what they are like.
        unreadable: path and reason of others, that cannot be read.
        dataset: the N pictures as `peft_mmrl.data` describes it; None: there are none.
        features: f_0 (N, d) in frozen CLIP; None: that was not looked at yet.
        measures: (N, 3), see [`~peft_mmrl.scoring.reference.measure`].
    """

    pictures: list[str]
    facts: list[PictureFacts]
    unreadable: list[tuple[str, str]]
    dataset: datasets.Dataset | None
    features: torch.Tensor | None = None
    measures: torch.Tensor | None = None

    @classmethod
    def of(cls, project: Project, pictures: Sequence[str], labels: Sequence[str], names: Sequence[str]) -> Sights:
        """Read pictures; those that did not change since they were last read are not decoded again.

        Args:
            project: that they lie in.
            pictures: paths below its folder.
            labels: the class of each, by folder.
            names: all classes.
        """
        if not pictures:
            return cls([], [], [], None)
        files = [{"path": str(project.folder / picture), "bytes": None} for picture in pictures]
        groups = ["/".join(parts[:3]) if len(parts := picture.split("/")) > 3 else "" for picture in pictures]
        dataset = labelled(files, labels, pictures, names, groups)
        facts = examine_pictures(dataset)
        rows = [row for row, fact in enumerate(facts) if isinstance(fact, PictureFacts)]
        bad = [(picture, fact) for picture, fact in zip(pictures, facts, strict=True) if isinstance(fact, str)]
        kept = dataset.select(rows) if rows else None
        return cls([pictures[row] for row in rows], [facts[row] for row in rows], bad, kept)

    @property
    def labels(self) -> torch.Tensor:
        """Of the pictures (N,), positions in the names."""
        return torch.tensor([] if self.dataset is None else self.dataset["label"][:], dtype=torch.long)

    def seen(self, found: Sequence[torch.Tensor | None]) -> Sights:
        """With what was seen; pictures that are gone meanwhile are left out.

        Args:
            found: for each picture f_0 and measures side by side, or None.
        """
        rows = [row for row, one in enumerate(found) if one is not None]
        gone = [(picture, TAKEN_AWAY) for picture, one in zip(self.pictures, found, strict=True) if one is None]
        both = torch.stack([found[row] for row in rows]) if rows else torch.empty(0, len(LIGHT_MEASURES))
        features, measures = both.split([both.shape[1] - len(LIGHT_MEASURES), len(LIGHT_MEASURES)], dim=1)
        seen = replace(self, features=features, measures=measures)
        if not gone:
            return seen
        pictures, facts = ([of[row] for row in rows] for of in (self.pictures, self.facts))
        dataset = self.dataset.select(rows) if rows else None
        return replace(seen, pictures=pictures, facts=facts, unreadable=self.unreadable + gone, dataset=dataset)


@dataclass(frozen=True, eq=False)
class _Loaded:
    """An adapter of a run.

    Args:
        state: of its files when it was read.
        model: with it, and maybe others.
        adapter: its name in there.
        image_processor: of its base model.
    """

    state: list[tuple[str, int]]
    model: PeftModelForZeroShotImageClassification
    adapter: str
    image_processor: ImageProcessor


class BaseModel:
    """A CLIP for many threads, with the adapters of a project's runs on it.

    Args:
        project: whose runs these are, and that keeps what is seen.
        name: of the CLIP, Hub id or folder.

    Raises:
        OSError: it cannot be loaded.
        ValueError: MMRL does not adapt such a model.
    """

    def __init__(self, project: Project, name: str) -> None:
        clip, self.processor = load_clip(name)
        self.project, self.name, self.accelerator = project, name, make_accelerator()
        self.model = get_peft_model(clip, MMRLConfig()).to(self.accelerator.device).eval()
        self._lock = threading.RLock()  # an adapter is active for one thread at a time
        self._bound: tuple[list[str], str | None] | None = None
        self._store: SeenFeatures | None = None
        self._adapters: dict[str, _Loaded] = {}
        self._numbers = count()

    # --- frozen CLIP ------------------------------------------------------------------------------------------------

    @contextmanager
    def frozen(self) -> Iterator[PeftModelForZeroShotImageClassification]:
        """The model without adapters, for this thread alone."""
        with self._lock, torch.no_grad():
            self.model.set_adapter(PLAIN, inference_mode=True)
            with self.model.disable_adapter():
                yield self.model

    def read_names(
        self, names: list[str], template: str | None, preprocessing: Preprocessing
    ) -> tuple[torch.Tensor, float]:
        """w_0 (C, d) of classes, and the scale of the logits.

        Args:
            names: C names, of which some may be the same class.
            template: of their prompts; None: the default.
            preprocessing: says how large pictures are.

        Raises:
            ValueError: a name that CLIP cannot read.
        """
        with self.frozen() as model:
            if (names, template) != self._bound:
                how = {} if template is None else {"template": template}
                model.set_classes(names, self.processor, seen="none", allow_duplicates=True, **how)
                self._bound = list(names), template
            nothing = torch.zeros(1, 3, *preprocessing.size, device=self.accelerator.device)  # any picture would do
            text = model(pixel_values=nothing).text_embeds.float().cpu()
            return text, model.get_base_model().logit_scale.exp().item()

    def look(self, sights: Sights, preprocessing: Preprocessing, on_progress: OnProgress | None = None) -> Sights:
        """See pictures: what was not seen before, by its content, is looked at now, and kept.

        Args:
            sights: pictures.
            preprocessing: how they become `pixel_values`.
            on_progress: called with how many are done of those that were not seen before, and how many these are.
        """
        store = self._store_for(preprocessing)
        place_of = dict(zip((fact.digest for fact in sights.facts), sights.pictures, strict=True))
        new = {digest: place for digest, place in place_of.items() if store.get(digest) is None}
        listing = Listing(str(self.project.folder / place) for place in new.values())
        seen = over_pictures(self._see, listing, preprocessing, self.accelerator, SEEN_AT_A_TIME)
        found: dict[str, torch.Tensor] = {}
        for done, (digest, row) in enumerate(zip(new, seen, strict=True), start=1):
            if row is not None:
                found[digest] = row
            if done % SEEN_AT_A_TIME == 0 or done == len(new):
                store.add(found)
                found = {}
            if on_progress is not None:
                on_progress(done, len(new))
        return sights.seen([store.get(fact.digest) for fact in sights.facts])

    def _see(self, batch: PictureBatch) -> list[torch.Tensor | None]:
        rows: Iterator[torch.Tensor] = iter(())
        if len(batch.pixel_values):
            with self.frozen() as model:
                rows = iter(torch.cat(frozen_sight(model, batch.pixel_values.to(self.accelerator.device)), 1).cpu())
        return [None if error else next(rows) for error in batch.errors]

    def _store_for(self, preprocessing: Preprocessing) -> SeenFeatures:
        wanted = key_of_seeing(seeing(self.model, preprocessing))
        if self._store is None or self._store.seen_by != wanted:
            self._store = SeenFeatures(self.project.cache, wanted)
        return self._store

    # --- adapters of runs -------------------------------------------------------------------------------------------

    @contextmanager
    def adapted(self, run: str) -> Iterator[tuple[PeftModelForZeroShotImageClassification, Preprocessing]]:
        """The model with the adapter of a run, for this thread alone, and how that takes pictures.

        An adapter is loaded once, and again where it was trained anew. One of another base model brings that along.

        Args:
            run: name of its folder in `adapters/`.

        Raises:
            ValueError: there is none of that name, or it is damaged.
            OSError: it cannot be read.
        """
        with self._lock, torch.no_grad():
            loaded = self._load(run)
            loaded.model.set_adapter(loaded.adapter, inference_mode=True)
            yield loaded.model, Preprocessing.of(loaded.model, loaded.image_processor)

    def _load(self, run: str) -> _Loaded:
        folder = self.project.path(f"adapters/{run}")
        try:
            state = [(path.name, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.*")) if path.is_file()]
        except OSError:
            state = []
        known = self._adapters.get(run)
        if known is not None and known.state == state:
            return known
        config = read_config(folder)
        if known is not None:
            del self._adapters[run]
            if known.model is self.model:
                self.model.set_adapter(PLAIN)
                self.model.delete_adapter(known.adapter)
        own = self.model.base_model.base_fingerprint
        if own is not None and config.base_fingerprint == own and config.classes:
            name = f"run{next(self._numbers)}"  # names of folders may be none of adapters
            self.model.load_adapter(folder, name)
            model, processor = self.model.eval(), self.processor
        else:
            model, processor = load_classifier(folder)
            model, name = model.to(self.accelerator.device), PLAIN
        self._adapters[run] = _Loaded(state, model, name, processor)
        return self._adapters[run]
