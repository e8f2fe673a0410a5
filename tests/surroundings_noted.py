"""The state of this process that no plugin may change."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch


def state_of_the_process() -> list[Any]:
    state = np.random.get_state()
    return [
        str(Path.cwd()),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.get_default_device(),
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.matmul.fp32_precision,
        torch.is_autocast_enabled("cpu"),
        umask(),
        [
            (one.level, one.disabled, one.handlers[:])
            for one in (logging.getLogger(), logging.getLogger("ood_harness"))
        ],
        torch.are_deterministic_algorithms_enabled(),
        torch.random.get_rng_state().tolist(),
        np.geterr(),
        list(warnings.filters),
        dict(os.environ),
        sys.getrecursionlimit(),
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
        logging.root.manager.disable,
        sys.stdout,
        sys.stderr,
        (state[0], state[1].tolist(), *state[2:]),
        random.getstate(),
    ]


def umask() -> int:
    """Return the rights that new files lack."""
    os.umask(mask := os.umask(0))
    return mask
