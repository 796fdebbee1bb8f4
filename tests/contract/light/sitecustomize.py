"""With this folder in PYTHONPATH, the process that becomes torchrun imports only what torchrun uses of torch.

Python imports this module at every start, so all else stays in another file.
"""

import sys

if sys.orig_argv[-2:] == ["late-launch", "torch.distributed.run"]:
    import light_torch

    light_torch.stand_in()
