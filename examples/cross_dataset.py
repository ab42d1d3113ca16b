"""Transfer to other data sets: `peft-mmrl cross-dataset`, which here also knows the embedded digits.

python examples/cross_dataset.py --source digits --targets digits_inverted --seeds 1    # some minutes
"""

from functools import partial

import digits

from peft_mmrl.commands import cross_dataset


parse_args = cross_dataset.parse_args
main = partial(cross_dataset.main, others=digits.DIGIT_BENCHMARKS)

if __name__ == "__main__":
    main(parse_args())
