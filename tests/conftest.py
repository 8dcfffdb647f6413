"""All tests run on the CPU, also where a TPU's library is installed."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
