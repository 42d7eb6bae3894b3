# Polyhead's server: TorchServe, ONNX Runtime, the handler. What training and export need besides is not installed; no
# model is inside.
#
#   docker build -t polyhead .
#   docker run -p 8080:8080 -v "$PWD/bundles:/models:ro" polyhead
#
# TORCH says which build of torch: cpu, cuda, or auto (CPU where pip is offered one, else CUDA; see requirements/).
# PIP_FIND_LINKS and PIP_EXTRA_INDEX_URL reach pip in the build alone; they are not kept in the image.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TORCH=auto
ARG PIP_FIND_LINKS
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
RUN python3 -m venv /opt/polyhead
COPY requirements /src/requirements
RUN sh requirements/install.sh serve "${TORCH}" /opt/polyhead/bin/python
COPY pyproject.toml setup.py README.md LICENSE config.properties /src/
COPY models /src/models
COPY export /src/export
COPY serving /src/serving
COPY cli /src/cli
RUN /opt/polyhead/bin/python -m pip install --quiet --no-deps --no-build-isolation . \
    && /opt/polyhead/bin/python -m pip check

FROM ${BASE}
LABEL org.opencontainers.image.title="Polyhead" \
      org.opencontainers.image.description="Serves multi-task models: one trunk, many heads, one forward pass" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 polyhead \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin polyhead \
    && mkdir /models
COPY --from=build /opt/polyhead /opt/polyhead
COPY config.properties /etc/polyhead/config.properties
ENV PATH=/opt/polyhead/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Bundles are mounted at /models: one, or a folder of them. Everything that is written goes to /tmp.
WORKDIR /tmp
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-m", "polyhead.serving.torchserve.health"]
ENTRYPOINT ["polyhead", "serve"]
CMD ["/models", "--host", "0.0.0.0", "--config", "/etc/polyhead/config.properties"]
