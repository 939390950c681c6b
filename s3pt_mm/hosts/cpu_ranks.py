"""Several ranks on a machine without accelerator: gloo, and DDP without device numbers."""

from __future__ import annotations

import datetime

import torch
from mmengine.config import Config
from mmengine.dist import is_distributed


def prepare_cpu_ranks(cfg: Config) -> str | None:
    """Lets ``--launcher pytorch`` run where there is no GPU; elsewhere does nothing.

    mmengine 0.10.7 selects a CUDA device for every rank and gives DDP its number, both of which
    fail without CUDA. Here the process group exists before the runner looks, and the model wrapper
    is told to use none.

    Args:
        cfg: Changed in place.

    Returns:
        A line for the log, or None when nothing was done.
    """
    if cfg.get('launcher', 'none') != 'pytorch' or torch.cuda.is_available():
        return None
    timeout = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout', 1800)
    if not is_distributed():
        torch.distributed.init_process_group('gloo', timeout=datetime.timedelta(seconds=timeout))
    wrapper = dict(cfg.get('model_wrapper_cfg') or {})
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper.setdefault('device_ids', None)
    wrapper.setdefault('broadcast_buffers', False)  # mmengine's own default
    wrapper.setdefault('find_unused_parameters', cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg = wrapper
    return 'No accelerator: ranks communicate through gloo on the CPU.'
