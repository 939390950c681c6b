#!/usr/bin/env bash
# gpu_check.py on a machine that has torch, a GPU and no network. Two halves, in the repository root:
#   tools/dev/gpu_check.sh prepare VENV   where there is a network: .gpu/ gets the hosts' Python files and wheels for CPython 3.12
#   tools/dev/gpu_check.sh                there, with .gpu/ beside the checkout: needs 8 minutes; writes to $OUT (default .)
#   tools/dev/gpu_check.sh exec COMMAND   there: another command with the same packages, e.g. tools/dev/evidence/gpu_ladder.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ "${1:-}" = prepare ]; then
    site=$("$2/bin/python" -c 'import mmengine, pathlib; print(pathlib.Path(mmengine.__file__).parents[1])')
    exclude=$(git rev-parse --git-path info/exclude)
    mkdir -p "$(dirname "$exclude")"
    grep -qx '/.gpu/' "$exclude" 2>/dev/null || echo '/.gpu/' >> "$exclude"
    rm -rf .gpu/wheels && mkdir -p .gpu/wheels
    # The hosts are Python alone (mmcv-lite): files and metadata of each, without what they carry for mim.
    (cd "$site" && ls -d mmcv mmengine mmpretrain mmseg mmdet mmdet3d lyft_dataset_sdk mmcv_lite-* mmengine-* mmpretrain-* mmsegmentation-* \
        mmdet-* mmdet3d-* | tar cz --exclude=__pycache__ --exclude=.mim -T -) > .gpu/hosts.tgz
    "$2/bin/python" -m pip --version > /dev/null 2>&1 && pip=("$2/bin/python" -m pip) || pip=(python3 -m pip)
    "${pip[@]}" download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d .gpu/wheels \
        addict yapf importlib-metadata==8.7.1 termcolor model-index ordered-set mat4py terminaltables prettytable wcwidth pyquaternion \
        nuscenes-devkit==1.2.0 simplejpeg ftfy plyfile shapely==2.0.7 pycocotools==2.0.11 cachetools platformdirs parameterized
    for pure in descartes fire; do "${pip[@]}" wheel -q --no-deps -w .gpu/wheels "$pure"; done
    du -sh .gpu
    exit
fi

out=${OUT:-.}
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
mkdir -p "$out"
if [ -d .gpu ]; then
    tar xzf .gpu/hosts.tgz -C "$packages"
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$packages" .gpu/wheels/*.whl
    export PYTHONPATH=$packages${PYTHONPATH:+:$PYTHONPATH}
fi
if [ "${1:-}" = exec ]; then
    "${@:2}"
    exit
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$out/gpu_check.log"
timeout 460 "${PYTHON:-python3}" tools/dev/gpu_check.py --out "$out/gpu_check.jsonl" --budget 420 "$@" 2>&1 | tee -a "$out/gpu_check.log"
