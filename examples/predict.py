"""Name pictures with a trained adapter: `peft-mmrl predict`."""

from peft_mmrl.commands.predict import main, parse_args


if __name__ == "__main__":
    main(parse_args())
