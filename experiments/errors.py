"""What a command does with a fault: a user's mistake is one line and exit code 2, a program's fault keeps its traceback."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from goalward import UserError

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130

# Faults of the machine that the user can mend; every other OSError is ours and keeps its traceback.
_MENDABLE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; choose a folder that can be written",
    errno.EACCES: "permission denied; choose a folder that can be written",
    errno.EPERM: "permission denied; choose a folder that can be written",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.ENAMETOOLONG: "the path is too long; choose a shorter one",
}


def exit_code_of(command: Callable[[], int]) -> int:
    """Runs a command and turns its faults into an exit code.

    Args:
        command: returns the exit code of its success.

    Returns:
        The command's own code; 2 after a user's mistake or a mendable fault of the disk (one line `error: ...` on standard error);
        130 when interrupted; 141 when the reader of standard output went away.
    """
    try:
        return command()
    except UserError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues where it stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads; say nothing, not even at exit
        return 141
    except OSError as error:
        if error.errno not in _MENDABLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _complain(where + _MENDABLE[error.errno])


def _complain(message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return EXIT_MISTAKE
