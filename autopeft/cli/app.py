"""The command line: parse, call, print. Heavy modules are imported inside the command that needs them."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
import warnings

from autopeft.cli.options import VERBOSE, app
from autopeft.common import machine
from autopeft.common.exceptions import AutopeftError, StreamError, in_a_line
from autopeft.common.streams import plain_streams, tell_error

RARELY = 100_000
"""New objects between two collections. What libraries make as they are imported stays, and to look through it again
and again, as Python does by default, takes a second of each start."""

for commands in (
    "init_command",
    "study_commands",
    "predict_command",
    "export_command",
    "writing_commands",
    "serve_command",
    "method_commands",
    "task_commands",
):  # each enters its own; as --help lists them
    importlib.import_module(f"autopeft.cli.{commands}")


def main() -> None:
    """Run the command line; an error of ours is one sentence on stderr, never a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    gc.set_threshold(RARELY, 20, 20)
    plain_streams()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries warn their developers; the user can do nothing about it
    try:
        app()
    except StreamError:  # as of `| head`: who closed it does not want to be told
        raise SystemExit(1) from None
    except AutopeftError as error:
        if VERBOSE:
            traceback.print_exc()
        tell_error(str(error))
        raise SystemExit(error.exit_code) from None
    except (MemoryError, RuntimeError) as error:
        if not (why := machine.fault(error)):
            raise
        tell_error(f"{why}. Then run the same command again.")
        raise SystemExit(1) from None
    except OSError as error:  # a full disk, a folder that is not the user's: nothing that a traceback would explain
        tell_error(f"{in_a_line(error)}. Fix that and run the same command again.")
        raise SystemExit(1) from None
