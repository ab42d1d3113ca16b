"""Few-shot learning: `peft-mmrl few-shot`, which here also knows the embedded digits.

python examples/few_shot.py --datasets digits --shots 1 4 16 --seeds 1    # some minutes
"""

from functools import partial

import digits

from peft_mmrl.commands import few_shot


parse_args = few_shot.parse_args
main = partial(few_shot.main, others=digits.DIGIT_BENCHMARKS)

if __name__ == "__main__":
    main(parse_args())
