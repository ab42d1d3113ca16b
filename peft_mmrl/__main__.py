"""`python -m peft_mmrl` and `accelerate launch -m peft_mmrl`."""

from .commands.main import main


if __name__ == "__main__":
    main()
