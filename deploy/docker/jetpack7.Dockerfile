# Runs bundles on a Jetson Thor (JetPack 7.0, 7.1) or Orin (7.2): Python 3.12, no torch.
#
# Never built, never run on a Jetson; hadolint has nothing to say.
# Build it on the board or an arm64 machine, from the root of edgevision's repository:
#   docker build -f deploy/docker/jetpack7.Dockerfile -t edgevision:jp7 .
# Run it (the runtime `nvidia` brings the board's own drivers; host and image must both be JetPack 7):
#   docker run --rm --runtime nvidia --read-only --tmpfs /tmp -v /srv/models:/models:ro \
#     -v edgevision-state:/state edgevision:jp7 finish /models/model.ev --target local \
#     --key /models/ours.pub
# JetPack 7 runs the ordinary arm64 images. This one has TensorRT 10.13 and CUDA 13.0, as JetPack 7.0 and
# 7.1 have; for 7.2 give --build-arg BASE= an image of TensorRT 10.16.
# A tag may be moved: once you have proven an image, give its digest, --build-arg BASE=...@sha256:...
ARG BASE=nvcr.io/nvidia/tensorrt:25.09-py3
FROM ${BASE}

# The bindings belong to the image's TensorRT: the venv sees the system's packages. Only what the image
# does not have is installed.
COPY pyproject.toml README.md LICENSE deploy/docker/jetpack7.txt /opt/edgevision/
COPY edgevision /opt/edgevision/edgevision
RUN python3 -m venv --system-site-packages /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r /opt/edgevision/jetpack7.txt \
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
