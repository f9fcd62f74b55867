# The service with the demonstration bundle, ready to run; mount your own bundle to replace it.
#   docker build --target cpu  --tag vip5-serve:cpu .
#   docker build --target cuda --tag vip5-serve:cuda .
# The base image is pinned by digest; `make digests` looks it up again. Packages are installed by hash.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

# Wheels of the packages in the lock files.
FROM ${PYTHON_IMAGE} AS sources
WORKDIR /build
COPY requirements.lock requirements-torch.lock requirements-cuda.lock requirements-onnx-gpu.lock pyproject.toml README.md LICENSE ./
COPY service ./service
COPY model ./model
COPY feature_cache ./feature_cache
COPY quiet_libraries ./quiet_libraries

FROM sources AS wheels-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip wheel --no-cache-dir --no-deps --require-hashes --wheel-dir /wheels --extra-index-url "${TORCH_INDEX}" \
        --requirement requirements.lock --requirement requirements-torch.lock
RUN pip install --no-cache-dir --no-index /wheels/setuptools-*.whl \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# PyPI's torch for Linux needs CUDA's libraries; onnxruntime-gpu replaces onnxruntime.
FROM sources AS wheels-cuda
ARG TORCH_INDEX=https://pypi.org/simple
RUN sed '/^onnxruntime==/,/[^\\]$/d' requirements.lock > served.lock \
    && pip wheel --no-cache-dir --no-deps --require-hashes --wheel-dir /wheels --extra-index-url "${TORCH_INDEX}" \
        --requirement served.lock --requirement requirements-torch.lock \
        --requirement requirements-cuda.lock --requirement requirements-onnx-gpu.lock
RUN pip install --no-cache-dir --no-index /wheels/setuptools-*.whl \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# The runtime image: no compiler, no package index, no root, writes only to /tmp.
FROM ${PYTHON_IMAGE} AS runtime
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    VIP5_BUNDLE=/srv/bundles/demo \
    VIP5_BUNDLES_ROOT=/srv/bundles \
    VIP5_HOST=0.0.0.0 \
    VIP5_PORT=8000
RUN groupadd --gid 10001 vip5 \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin vip5
WORKDIR /srv
COPY demo/bundle ./bundles/demo
COPY demo/bundle-pictures ./bundles/demo-pictures
COPY demo/bundle-requests.jsonl ./bundles/demo-requests.jsonl
COPY LICENSE ./
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-m", "service.observability.probe"]
ENTRYPOINT ["vip5"]
CMD ["serve"]

FROM runtime AS cuda
ENV VIP5_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN --mount=type=bind,from=wheels-cuda,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl
USER 10001:10001

# The last stage is the default target.
FROM runtime AS cpu
RUN --mount=type=bind,from=wheels-cpu,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl
USER 10001:10001
