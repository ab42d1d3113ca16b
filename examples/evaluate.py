"""How well an adapter recognises labelled pictures: `peft-mmrl evaluate`."""

from peft_mmrl.commands.evaluate import main, parse_args


if __name__ == "__main__":
    main(parse_args())
