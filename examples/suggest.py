"""Which pictures to label next: `peft-mmrl suggest`."""

from peft_mmrl.commands.suggest import main, parse_args


if __name__ == "__main__":
    main(parse_args())
