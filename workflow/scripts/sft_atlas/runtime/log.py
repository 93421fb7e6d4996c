"""What a job says while it works, a line with its time each, to the log that its rule names."""

import logging
import sys

FORMAT = "%(asctime)s %(levelname)s %(message)s"


def set_up() -> None:
    """Have this process's own messages, and only these, written to its standard output."""
    logger = logging.getLogger("sft_atlas")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    # libraries set up the root logger in ways of their own
    logger.propagate = False
