"""Adapt CLIP to your own pictures: `peft-mmrl train`."""

from peft_mmrl.commands.train import main, parse_args


if __name__ == "__main__":
    main(parse_args())
