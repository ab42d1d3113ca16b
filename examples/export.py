"""Write an adapter as a classifier that runs without PyTorch: `peft-mmrl export`."""

from peft_mmrl.commands.export import main, parse_args


if __name__ == "__main__":
    main(parse_args())
