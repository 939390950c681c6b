# docker build -t s3pt_mm . && docker run --gpus all --shm-size 8g -v /data:/data s3pt_mm \
#     s3pt-train configs/s3pt/vits16_nuscenes.py --cfg-options train_dataloader.dataset.data_root=/data/nuscenes
FROM python:3.11-slim
WORKDIR /s3pt_mm
COPY . .
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/* \
    && make setup VENV=/opt/venv && rm -rf /root/.cache
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/s3pt_mm
CMD ["s3pt-train", "--help"]
