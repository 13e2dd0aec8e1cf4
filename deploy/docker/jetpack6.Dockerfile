# Runs bundles on a Jetson Orin with JetPack 6.1 or 6.2: TensorRT 10.3, Python 3.10, no torch.
#
# Never built, never run on a Jetson; hadolint has nothing to say.
# Build it on the board or an arm64 machine, from the root of edgevision's repository:
#   docker build -f deploy/docker/jetpack6.Dockerfile -t edgevision:jp6 .
# Run it (the runtime `nvidia` brings the board's own drivers; host and image must both be JetPack 6):
#   docker run --rm --runtime nvidia --read-only --tmpfs /tmp -v /srv/models:/models:ro \
#     -v edgevision-state:/state edgevision:jp6 finish /models/model.ev --target local \
#     --key /models/ours.pub
# A tag may be moved: once you have proven an image, give its digest, --build-arg BASE=...@sha256:...
ARG BASE=nvcr.io/nvidia/tensorrt:24.08-py3-igpu
FROM ${BASE}

# The bindings belong to the image's TensorRT: the venv sees the system's packages, and no wheel on
# PyPI is for TensorRT 10.3 on aarch64. Only what the image does not have is installed.
COPY pyproject.toml README.md LICENSE deploy/docker/jetpack6.txt /opt/edgevision/
COPY edgevision /opt/edgevision/edgevision
RUN python3 -m venv --system-site-packages /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r /opt/edgevision/jetpack6.txt \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation /opt/edgevision \
    && /opt/venv/bin/python -c "import importlib.util as i; assert i.find_spec('tensorrt'), 'this base image has no TensorRT for Python: apt-get install python3-libnvinfer'" \
    && useradd --system --uid 10001 --groups video --no-create-home edgevision \
    && install -d -m 0700 -o edgevision /state

# The root file system may be read-only: what is written goes to the volume /state.
ENV PATH=/opt/venv/bin:$PATH \
    EDGEVISION_CACHE=/state/cache \
    EDGEVISION_STATE=/state \
    PYTHONDONTWRITEBYTECODE=1
VOLUME /state
USER 10001
ENTRYPOINT ["edgevision"]
CMD ["doctor"]
