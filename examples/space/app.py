"""A Hugging Face Space, or a page on your own machine, on which a classifier can be tried and nothing is changed.

    python examples/space/app.py

The digits of scikit-learn and the demo's small CLIP are all that it needs; nothing is downloaded.
"""

import sys
import tempfile
from pathlib import Path


HERE = Path(__file__).parent
PLACE = HERE if (HERE / "demo_clip").is_dir() else HERE.parent  # of demo_clip and digits.py: a Space, or a clone
sys.path.append(str(PLACE))

from digits import CLASS_NAMES, TEMPLATE, load_digits  # noqa: E402

from peft_mmrl.app.serving import serve  # noqa: E402
from peft_mmrl.projects.project import Project  # noqa: E402


PICTURES_EACH = 16


def make_project(folder: Path) -> Project:
    """A project of the first digits."""
    project = Project.create(folder, str(PLACE / "demo_clip"))
    project.set_template(TEMPLATE)
    rows = load_digits()["train"]
    for label, name in enumerate(CLASS_NAMES):
        place = project.pictures / project.add_class(name)
        own = [number for number, other in enumerate(rows["label"]) if other == label][:PICTURES_EACH]
        for number in own:
            rows[number]["image"].save(place / f"{number}.png")
    return project


if __name__ == "__main__":
    page = serve(make_project(Path(tempfile.mkdtemp()) / "digits"), host="0.0.0.0", read_only=True)
    print(page.local_url)
    page.block_thread()
