"""Turn a checkpoint of the papers' own code into an adapter. Nothing in the file is executed.

    peft-mmrl convert model.pth.tar-5 my-adapter --base_model_name_or_path openai/clip-vit-base-patch16 \\
        --classes cat dog                       # or one text file with a name per line
    peft-mmrl convert model.pth.tar-5 adapter --base_model_name_or_path clip --classes names.txt --beta 0.7  # MMRL++

`python -m peft_mmrl.convert` is the same.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from accelerate import PartialState
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from ..conversion import convert_checkpoint
from ..training.run_folder import RunFolder
from . import arguments as cli
from .console import clear_errors, command_line


@command_line()
def main(args: argparse.Namespace) -> None:
    """Read, convert, write."""
    classes, template = args.classes, args.template or ["a photo of a {}."]
    with clear_errors():
        cli.check_arguments(args)
        if len(classes) == 1 and Path(classes[0]).is_file():
            classes = Path(classes[0]).read_text(encoding="utf-8-sig").splitlines()
        run = {"kind": "conversion", "checkpoint": args.checkpoint, "base_model": args.base_model_name_or_path}
        with TemporaryDirectory() as new:
            convert_checkpoint(
                args.checkpoint,
                new,
                base_model_name_or_path=args.base_model_name_or_path,
                classes=classes,
                template=template[0] if len(template) == 1 else template,
                vision_layers=args.vision_layers,
                text_layers=args.text_layers,
                alpha=args.alpha,
                reg_weight=args.reg_weight,
                beta=args.beta,
            )
            folder = RunFolder(args.output_dir, "the output folder")
            own = [CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME]
            folder.check("conversion", overwrite=args.overwrite_output_dir, own=own)
            inputs = {"the checkpoint": args.checkpoint, "--base_model_name_or_path": args.base_model_name_or_path}
            folder.check_inputs(others={**inputs, "--classes": args.classes[0] if len(args.classes) == 1 else None})
            folder.start(run, PartialState())
            with folder.finish(run) as place:
                shutil.copytree(new, place, dirs_exist_ok=True)
    print(f"Wrote the adapter to {args.output_dir}")


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.make_parser(__doc__, prog)
    parser.add_argument("checkpoint", help="the file, model.pth.tar-N")
    parser.add_argument("output_dir", help="folder of the adapter to write")
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace what a conversion wrote there")
    parser.add_argument("--base_model_name_or_path", required=True, help="the CLIP that was adapted")
    parser.add_argument("--classes", required=True, nargs="+", help="trained class names, or one text file of them")
    parser.add_argument(
        "--template", action="append", help='prompt template, repeatable; "a photo of a {}." by default'
    )
    layers = "the last 7 of 12 by default, scaled to the depth"
    parser.add_argument("--vision_layers", type=int, nargs="+", help=f"0-based adapted layers; {layers}")
    parser.add_argument("--text_layers", type=int, nargs="+", help=f"0-based adapted layers; {layers}")
    parser.add_argument("--alpha", type=float, default=0.7, help="weight of the class feature, 0.7 by default")
    parser.add_argument("--reg_weight", type=float, default=0.5, help="lambda of the training, 0.5 by default")
    parser.add_argument("--beta", type=float, help="required for MMRL++")
    return parser.parse_args(argv)
