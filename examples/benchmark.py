"""How long training steps take, beside LoRA and the papers' code: `peft-mmrl benchmark`."""

from peft_mmrl.commands.benchmark import main, parse_args


if __name__ == "__main__":
    main(parse_args())
