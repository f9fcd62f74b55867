# The service with the demonstration bundle, ready to run; mount your own bundle to replace it.
#   docker build --target cpu  --tag vip5-serve:cpu .
#   docker build --target cuda --tag vip5-serve:cuda .
#   docker build --target ray  --tag vip5-serve:ray  .      for Ray's nodes; on GPUs --target ray-cuda
# Packages have a layer of their own, which only a change of the lock files renews; a change of code renews the last one.
# The base image is pinned by digest; `make digests` looks it up again. Packages are installed by hash.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

# An empty virtual environment. Pip stays outside of it.
FROM ${PYTHON_IMAGE} AS empty
WORKDIR /build
COPY deploy/image/trim.py ./
RUN python -m venv --without-pip /opt/vip5

# PyTorch's own build for CPUs: PyPI's has the kernels for GPUs too, twice the size.
FROM empty AS packages-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.lock requirements-torch-cpu.lock ./
RUN pip --python /opt/vip5/bin/python install --no-cache-dir --no-deps --require-hashes --extra-index-url "${TORCH_INDEX}" \
        --requirement requirements.lock --requirement requirements-torch-cpu.lock \
    && /opt/vip5/bin/python trim.py

# PyPI's torch for Linux needs CUDA's libraries; onnxruntime-gpu replaces onnxruntime.
FROM empty AS packages-cuda
ARG TORCH_INDEX=https://pypi.org/simple
COPY requirements.lock requirements-torch.lock requirements-cuda.lock requirements-onnx-gpu.lock ./
RUN sed '/^onnxruntime==/,/[^\\]$/d' requirements.lock > served.lock \
    && pip --python /opt/vip5/bin/python install --no-cache-dir --no-deps --require-hashes --extra-index-url "${TORCH_INDEX}" \
        --requirement served.lock --requirement requirements-torch.lock \
        --requirement requirements-cuda.lock --requirement requirements-onnx-gpu.lock \
    && /opt/vip5/bin/python trim.py

# What Ray needs beside them, apart from them: one layer more. Operators before KubeRay 1.4 start Ray from a login shell, whose PATH is Debian's.
FROM empty AS packages-ray
COPY requirements-ray.lock ./
RUN pip --python /opt/vip5/bin/python install --no-cache-dir --no-deps --require-hashes --prefix /ray/opt/vip5 \
        --requirement requirements-ray.lock \
    && /opt/vip5/bin/python trim.py /ray/opt/vip5/lib/python3.11/site-packages \
    && mkdir -p /ray/usr/local/bin \
    && ln -s /opt/vip5/bin/ray /ray/usr/local/bin/ray

# The project alone, below /project as below /opt/vip5. Built with the setuptools of the lock file.
FROM packages-cpu AS project
COPY pyproject.toml README.md LICENSE ./
COPY service ./service
COPY model ./model
COPY feature_cache ./feature_cache
COPY quiet_libraries ./quiet_libraries
COPY vip5 ./vip5
RUN pip --python /opt/vip5/bin/python install --no-cache-dir --no-deps --no-index --no-build-isolation --prefix /project .

# Other files of the image. COPY keeps modes, which depend on the umask of whoever checked the sources out.
FROM ${PYTHON_IMAGE} AS files
WORKDIR /srv
COPY demo/bundle ./bundles/demo
COPY demo/bundle-pictures ./bundles/demo-pictures
COPY demo/bundle-requests.jsonl ./bundles/demo-requests.jsonl
COPY LICENSE ./
RUN chmod -R u=rwX,go=rX /srv

# The runtime image: no compiler, no package manager, no root, writes only to /tmp.
FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/vip5/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    VIP5_BUNDLE=/srv/bundles/demo \
    VIP5_BUNDLES_ROOT=/srv/bundles \
    VIP5_HOST=0.0.0.0 \
    VIP5_PORT=8000
RUN echo 'vip5:x:10001:' >> /etc/group \
    && echo 'vip5:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && python -c 'import ensurepip, pip, shutil; [shutil.rmtree(each.__path__[0]) for each in (ensurepip, pip)]' \
    && rm -rf /usr/local/bin/pip* /usr/bin/pip* /usr/bin/apt* /usr/lib/apt /var/lib/apt /var/cache/apt
WORKDIR /srv
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-m", "service.observability.probe"]
ENTRYPOINT ["vip5"]
CMD ["serve"]

FROM runtime AS served-cuda
ENV VIP5_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages-cuda /opt/vip5 /opt/vip5
COPY --from=files /srv /srv

FROM runtime AS served-cpu
COPY --from=packages-cpu /opt/vip5 /opt/vip5
COPY --from=files /srv /srv

FROM served-cuda AS ray-cuda
ENV RAY_USAGE_STATS_ENABLED=0
COPY --from=packages-ray /ray /
COPY --from=project /project /opt/vip5
USER 10001:10001

FROM served-cpu AS ray
ENV RAY_USAGE_STATS_ENABLED=0
COPY --from=packages-ray /ray /
COPY --from=project /project /opt/vip5
USER 10001:10001

FROM served-cuda AS cuda
COPY --from=project /project /opt/vip5
USER 10001:10001

# The last stage is the default target.
FROM served-cpu AS cpu
COPY --from=project /project /opt/vip5
USER 10001:10001
