"""How well an adapter recognises labelled pictures, beside CLIP without it.

    python examples/evaluate.py my-adapter photos/test --output_dir evaluation     # photos/test/cat/1.jpg, ...
    accelerate launch examples/evaluate.py me/my-adapter beans --split test --output_dir evaluation

Labels are matched by name with the classes that the adapter was trained on. Classes of the data that it was not trained
on count as new classes: they are scored by the class feature alone. The output folder gets a row per picture
(`predictions.csv`), `metrics.json` and a page to open in a browser (`report.html`).
"""
