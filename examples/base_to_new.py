"""Base-to-new generalisation: `peft-mmrl base-to-new`, which here also knows the embedded digits.

python examples/base_to_new.py --datasets digits --seeds 1    # some minutes
"""

from functools import partial

import digits

from peft_mmrl.commands import base_to_new


parse_args = base_to_new.parse_args
main = partial(base_to_new.main, others=digits.DIGIT_BENCHMARKS)

if __name__ == "__main__":
    main(parse_args())
