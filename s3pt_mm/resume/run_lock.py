"""One training run a work folder: a lock file that other hosts can judge, too."""

from __future__ import annotations

import atexit
import json
import os
import socket
import threading
from pathlib import Path

from s3pt_mm.common.processes import alive, file_system_time, machine, started
from s3pt_mm.resume.checkpoint_files import CheckpointError

NAME = '.run.lock'
BEAT = 30.0  # seconds between signs of life
SILENCE = 600.0  # seconds without one after which another machine's run counts as gone


class RunLock:
    """Held from before training to its end, by one process of the run.

    The file names host and process and is touched every half minute. Whether the holder lives is
    asked of the system on its own machine; another machine's is gone when the file, by the file
    system's clock, was not touched for ten minutes. A run whose process ended goes on at once.

    Args:
        folder: The work folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._me = json.dumps(
            dict(
                host=socket.gethostname(),
                process=os.getpid(),
                machine=machine(),
                started=started(os.getpid()),
            )
        )
        self._stop = threading.Event()

    def acquire(self) -> None:
        """Take the lock, also from a run that is gone.

        Raises:
            CheckpointError: Another run holds it.
            OSError: The folder cannot be written to.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(10):  # the lock may change hands while we look
            try:
                self._create()
                break
            except FileExistsError:
                there = self._read()
                if there == self._me:  # an earlier run of this very process, which failed
                    break
                if there is not None:
                    self._judge(there)
                    self._take_away(there)
        else:
            raise CheckpointError(f'{self.path} changes hands all the time; try again.')
        atexit.register(self.release)
        threading.Thread(target=self._beat, daemon=True, name='run lock').start()

    def _create(self) -> None:
        with open(self.path, 'x', encoding='utf-8') as file:
            try:
                file.write(self._me)
                file.flush()
            except OSError:  # a full disk: an empty lock would be taken for a run that starts
                self.path.unlink()
                raise

    def check(self) -> None:
        """Before writing: whether the folder is still ours.

        Raises:
            CheckpointError: Another run took the lock, because this one had shown no sign of life.
        """
        there = self._read()
        if there is not None and there != self._me:
            raise CheckpointError(
                f'{self.path.parent} was taken over by {_name(there)} while this run stood still; '
                'nothing was written. End that run and continue with --resume, if you want this '
                'one.'
            )

    def release(self) -> None:
        """Give the folder back; harmless when repeated and in forked children."""
        self._stop.set()
        atexit.unregister(self.release)
        if self._read() == self._me and json.loads(self._me)['process'] == os.getpid():
            self.path.unlink(missing_ok=True)

    def _read(self) -> str | None:
        try:
            return self.path.read_text(encoding='utf-8')
        except FileNotFoundError:
            return None

    def _judge(self, there: str) -> None:
        """Raise if the holder lives, or may."""
        try:
            holder = json.loads(there)
            process, since = int(holder['process']), str(holder['started'])
        except (ValueError, LookupError, TypeError, OverflowError):
            # Its writer was killed, or is about to write.
            holder = {}
        try:
            silent = file_system_time(self.path.parent) - self.path.stat().st_mtime
        except FileNotFoundError:
            return  # given back meanwhile
        if holder.get('machine') == machine():
            gone = not alive(process, since)
        else:
            gone = silent > SILENCE
        if not gone:
            raise CheckpointError(
                f'{self.path.parent} is in use by {_name(there)}, whose last sign of life is '
                f'{silent:.0f} s old. Wait for it, end it, or choose another --work-dir.'
            )

    def _take_away(self, there: str) -> None:
        """Remove the lock that was judged, and no other that came in its place."""
        aside = self.path.with_name(f'{NAME}.{machine()}.{os.getpid()}')
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        if aside.read_text(encoding='utf-8') == there:
            aside.unlink()
        else:
            os.rename(aside, self.path)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                if self._read() == self._me:
                    os.utime(self.path)
            except OSError:  # a file server that is away for a while
                pass


def _name(content: str) -> str:
    try:
        holder = json.loads(content)
        return f'process {holder["process"]} on {holder["host"]}'
    except (ValueError, KeyError, TypeError):
        return 'a run that is just starting'
