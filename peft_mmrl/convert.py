"""`python -m peft_mmrl.convert`, which is `peft-mmrl convert`; `conversion.py` does it."""

from .commands.convert import main, parse_args
from .conversion import convert_checkpoint


__all__ = ["convert_checkpoint"]

if __name__ == "__main__":
    main(parse_args(prog="python -m peft_mmrl.convert"))
