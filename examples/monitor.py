"""Name pictures with a trained adapter: `peft-mmrl monitor`."""

from peft_mmrl.commands.monitor import main, parse_args


if __name__ == "__main__":
    main(parse_args())
