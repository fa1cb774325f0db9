"""One process at a time writes to a run folder."""

import contextlib
import errno
import os
import socket
import warnings
from pathlib import Path

from tinyllm.errors import UserError

LOCK = ".lock"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class RunLock:
    """Held from the beginning by the one process that may write to `folder`; UserError names another that holds it.

    The file .lock says who that is. What counts is not the file but the system's lock on it, which goes when the
    process ends, in whatever way: a killed run never blocks the next.
    """

    def __init__(self, folder):
        self.folder, self.path = Path(folder), Path(folder) / LOCK
        self.file = None
        while self.file is None:
            self.file = self.locked()
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())

    def locked(self):
        """The opened and locked file; None if it was deleted meanwhile by the run that held it."""
        file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 (release() closes it)
        try:
            lock(file)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read(200).decode("utf-8", "replace") or "another process"
            file.close()
            raise UserError(
                f"{self.folder} is in use by {holder}; wait until it has ended, or stop it, or choose another folder"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warnings.warn(f"{self.folder} is on a disk without locks; let only one run write to it", stacklevel=4)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                file.truncate(0)
                return file
        file.close()
        return None

    def release(self):
        """Let go; a second time does nothing."""
        if self.file is None:
            return
        if os.name == "posix":  # Windows deletes no open file, and lets others wait for a closed one
            self.path.unlink(missing_ok=True)
        self.file.close()
        self.file = None
        if os.name != "posix":
            with contextlib.suppress(OSError):  # the next run has it already
                self.path.unlink(missing_ok=True)


def lock(file):
    """Take the system's lock on an open file; BlockingIOError or PermissionError if another process has it."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        file.seek(1 << 20)  # beyond what is in it: a locked part cannot be read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
