"""A host's loader of images that does not pass over damage."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import get
from mmpretrain.registry import TRANSFORMS

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.transforms.image import EncodedImage


@TRANSFORMS.register_module()
class LoadWholeImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile``, which refuses a damaged image by name.

    OpenCV paints what is missing or damaged in a JPEG, and of an empty file says only that a
    buffer is empty. In mmseg's scope this one has mmcv's name, so that mmseg's inferencers and
    anybody's config find it. Arguments and keys are mmcv's. Other backends and colour types than
    ``color`` and ``color_ignore_orientation`` are left to mmcv.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Load ``img`` (h, w, 3), BGR uint8; None where a broken file may be passed over.

        Raises:
            DataError: The file is absent, empty, torn or no image.
        """
        path = results['img_path']
        try:
            image = self._read(path)
        except (DataError, OSError, ValueError, cv2.error) as error:
            if self.ignore_empty:
                return None
            if isinstance(error, DataError):
                raise
            problem = f'the image cannot be read ({" ".join(str(error).split())})'
            remedy = 'Check data_root and data_prefix, or copy the file again'
            raise DataError(path, problem, remedy) from error
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> np.ndarray:
        upright = {'color': True, 'color_ignore_orientation': False}.get(self.color_type)
        if upright is None or self.imdecode_backend != 'cv2' or self.file_client_args:
            return super().transform(dict(img_path=path))['img']
        data = get(path, backend_args=self.backend_args)
        return cv2.cvtColor(EncodedImage(data, path, upright=upright).decode(), cv2.COLOR_RGB2BGR)
