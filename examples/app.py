"""A page for people who do not write code: `peft-mmrl app`."""

from peft_mmrl.commands.app import main, parse_args


if __name__ == "__main__":
    main(parse_args())
