"""Adapter and base model in one folder: `peft-mmrl bundle`."""

from peft_mmrl.commands.bundle import main, parse_args


if __name__ == "__main__":
    main(parse_args())
