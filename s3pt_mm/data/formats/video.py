"""Videos, through PyAV: frames by time, or by distance where a track says how far the car went."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.formats.base import CameraImage, LogFormat, Sample

SUFFIXES = ('.mp4', '.mov', '.mkv', '.avi', '.webm', '.m4v', '.ts')
_EARTH = 6_371_000.0  # metres, mean radius


class Video(LogFormat):
    """One video, or every video below a folder; images alone, without LiDAR."""

    help = 'a video or a folder of videos: frames by time or by distance driven'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """See the base class."""
        parser.add_argument(
            '--every', type=float, default=0.5, help='seconds between frames (%(default)s)'
        )
        parser.add_argument(
            '--every-metres', type=float, help='metres between frames instead; needs a track'
        )
        parser.add_argument(
            '--track',
            type=Path,
            help='CSV with columns time (seconds of the video) and x, y (metres) or lat, lon; '
            'default: beside each video, <name>.csv',
        )
        parser.add_argument('--quality', type=int, default=95, help='of the JPEGs (%(default)s)')

    def samples(self) -> Iterator[Sample]:
        """See the base class."""
        below = (path for path in self.root.rglob('*') if path.suffix.lower() in SUFFIXES)
        found = [self.root] if self.root.is_file() else below
        videos = self.some(found, 'video', f'Endings: {" ".join(SUFFIXES)}')
        names = [path.stem for path in videos]
        for path in videos:
            name = path.stem
            if names.count(name) > 1:  # two folders with the same file name
                name = '_'.join(path.relative_to(self.root).with_suffix('').parts)
            yield from self._video(path, name)

    def _video(self, path: Path, name: str) -> Iterator[Sample]:
        decoder = _Decoder(path, self.options.quality)
        seconds = decoder.seconds
        if self.options.every_metres:
            metres = distance_driven(self.options.track or path.with_suffix('.csv'), seconds)
            chosen = _spaced(metres, self.options.every_metres)
        else:
            chosen = _spaced(seconds, self.options.every)
        for index in chosen:
            yield Sample(
                token=f'{name}_{index:06d}',
                sequence=name,
                images={'camera': CameraImage(encoded=lambda index=index: decoder.frame(index))},
                timestamp=float(seconds[index]),
                container=path,
            )


def _spaced(values: np.ndarray, step: float) -> list[int]:
    """Indices whose values lie at least ``step`` apart."""
    chosen, last = [], -np.inf
    for index, value in enumerate(values):
        if value >= last + step - 1e-6:
            chosen.append(index)
            last = value
    return chosen


class _Decoder:
    """Frames of a video by number; in rising order nothing is decoded twice.

    Attributes:
        seconds: (frames,) when each is shown, from the first.
    """

    def __init__(self, path: Path, quality: int) -> None:
        self.path, self.quality = path, quality
        try:
            import av

            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                pts = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
                self._pts = np.sort(np.array(pts))
                self.seconds = (self._pts - self._pts[0]) * float(stream.time_base)
        except ImportError as error:
            raise DataError(
                path, f'reading it needs {error.name}', 'pip install "s3pt_mm[formats]"'
            ) from error
        except Exception as error:  # FFmpeg has many, and no video stream is an IndexError
            raise self._torn(error) from error
        self._frames: Iterator | None = None
        self._next = np.inf

    def _torn(self, error: Exception) -> DataError:
        return DataError(
            self.path,
            f'not a readable video ({type(error).__name__}: {error})',
            'Copy it again; the frames before the damage are kept with --on-error skip',
        )

    def frame(self, index: int) -> bytes:
        """JPEG of a frame."""
        wanted = self._pts[index]
        try:
            if self._frames is None or wanted < self._next:
                self._frames = self._from(wanted)
            for frame in self._frames:
                self._next = frame.pts + 1
                if frame.pts >= wanted:
                    buffer = io.BytesIO()
                    frame.to_image().save(buffer, 'JPEG', quality=self.quality)
                    return buffer.getvalue()
        except Exception as error:
            self._frames = None
            raise self._torn(error) from error
        self._frames = None
        raise self._torn(EOFError(f'no frame {index}'))

    def _from(self, pts: int) -> Iterator:
        import av

        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = 'AUTO'
            container.seek(int(pts), stream=stream, backward=True)
            yield from (frame for frame in container.decode(stream) if frame.pts is not None)


def distance_driven(track: Path, seconds: np.ndarray) -> np.ndarray:
    """Metres driven at each time, along a track.

    Args:
        track: CSV with columns time and x, y in metres, or lat, lon in degrees.
        seconds: (frames,) ascending.

    Raises:
        DataError: The file is missing, or lacks a column or a number.
    """
    try:
        with track.open(newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(file))
        time = np.array([float(row['time']) for row in rows])
        if rows and 'x' in rows[0]:
            xy = np.array([[float(row['x']), float(row['y'])] for row in rows])
        else:
            lat, lon = np.deg2rad([[float(r['lat']), float(r['lon'])] for r in rows]).T
            xy = _EARTH * np.stack([lon * np.cos(lat.mean()), lat], axis=1)
        steps = np.hypot(*np.diff(xy, axis=0).T)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            track,
            f'not a readable track ({type(error).__name__}: {error})',
            'A CSV with the columns time, x, y (metres) or time, lat, lon; or use --every',
        ) from error
    return np.interp(seconds, time, np.concatenate([[0.0], np.cumsum(steps)]))
