# Polyhead's server: nginx, TorchServe, ONNX Runtime, the handler, and nothing that installs, trains or logs in: no shell,
# no package manager, no compiler, no training code. docs/container.md is its page.
#
#   docker build --target cpu -t polyhead .
#   docker run --init --read-only --tmpfs /tmp:size=512m -p 8080:8080 -v "$PWD/bundles:/models:ro" polyhead
#
# Targets: cpu (the default), gpu (CUDA 13 as torch's wheels bring it; the host brings the driver alone).
# Pip is reached through PIP_FIND_LINKS, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and PIP_CERT, in the build alone: nothing of
# them is in the image. torch's CPU build is on no package index: see requirements/install.sh.
ARG BASE=python:3.11-slim-bookworm

# The system: nginx joins the base, then all that is not needed leaves it, the shell last.
FROM ${BASE} AS system
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates nginx-light libstdc++6 \
    && echo 'polyhead:x:10001:10001:Polyhead:/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'polyhead:x:10001:' >> /etc/group \
    && mkdir /models /etc/polyhead
COPY container /src/container
RUN ["python3", "-c", "import sys; sys.path.insert(0, '/src'); from container.system import main; main()"]

# The environment, as the locks say: pip refuses a file of any other hash.
FROM ${BASE} AS build
ARG PIP_FIND_LINKS
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
RUN apt-get update && apt-get install --yes --no-install-recommends binutils ca-certificates
WORKDIR /src
RUN python3 -m venv /opt/polyhead
COPY requirements /src/requirements
RUN sh requirements/install.sh serve none /opt/polyhead/bin/python

# Polyhead itself.
FROM build AS wheel
COPY pyproject.toml setup.py README.md LICENSE config.properties /src/
COPY models /src/models
COPY export /src/export
COPY serving /src/serving
COPY cli /src/cli
# In an image the front door stands whatever arguments replace CMD, and whether they name a file or not.
RUN sed -i 's/^polyhead_front_door=false$/polyhead_front_door=true/' config.properties \
    && grep -qx polyhead_front_door=true config.properties \
    && cp --remove-destination config.properties serving/torchserve/config.properties
RUN /opt/polyhead/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels .

# What is specific to a device; then the environment is pruned, stripped, compiled, and put on record.
FROM build AS application-cpu
ARG PIP_FIND_LINKS
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
ARG SOURCE_DATE_EPOCH=0
RUN sh requirements/install.sh none cpu /opt/polyhead/bin/python
COPY --from=wheel /wheels /wheels
RUN /opt/polyhead/bin/python -m pip install --quiet --no-deps --no-index /wheels/*.whl \
    && /opt/polyhead/bin/python -m pip check
COPY container /src/container
COPY LICENSE /src/LICENSE
COPY --from=system /var/lib/dpkg /system/var/lib/dpkg
COPY --from=system /usr/share/polyhead /usr/share/polyhead
RUN /opt/polyhead/bin/python -m container.application cpu \
    && /opt/polyhead/bin/python -m container.records /system /usr/share/polyhead

FROM build AS application-gpu
ARG PIP_FIND_LINKS
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
ARG SOURCE_DATE_EPOCH=0
RUN sh requirements/install.sh gpu cuda /opt/polyhead/bin/python
COPY --from=wheel /wheels /wheels
RUN /opt/polyhead/bin/python -m pip install --quiet --no-deps --no-index /wheels/*.whl \
    && /opt/polyhead/bin/python -m pip check
COPY container /src/container
COPY LICENSE /src/LICENSE
COPY --from=system /var/lib/dpkg /system/var/lib/dpkg
COPY --from=system /usr/share/polyhead /usr/share/polyhead
RUN /opt/polyhead/bin/python -m container.application gpu \
    && /opt/polyhead/bin/python -m container.records /system /usr/share/polyhead

# What both images say of themselves and how they run.
FROM scratch AS server
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG BASE
LABEL org.opencontainers.image.title="Polyhead" \
      org.opencontainers.image.description="Serves multi-task models: one trunk, many heads, one forward pass" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="/usr/share/polyhead/README.md"
ENV PATH=/opt/polyhead/bin:/usr/local/bin:/usr/bin:/usr/sbin \
    LANG=C.UTF-8 \
    TMPDIR=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
EXPOSE 8080
STOPSIGNAL SIGTERM
# Every model has answered its golden samples of late, through the front door. The side server is asked, two ports after
# the server's own: with another --port, POLYHEAD_HEALTH names it (docs/container.md).
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-I", "-m", "polyhead.serving.torchserve.health"]
# Bundles lie at /models: one, or a folder of them. Everything that is written goes to /tmp.
ENTRYPOINT ["polyhead", "serve"]
CMD ["/models", "--host", "0.0.0.0", "--front-door", "--config", "/etc/polyhead/config.properties"]

FROM server AS cpu
COPY --from=system / /
COPY --from=application-cpu /opt/polyhead /opt/polyhead
COPY --from=application-cpu /native /usr/lib
COPY --from=application-cpu /usr/share/polyhead /usr/share/polyhead
COPY --from=wheel /src/config.properties /etc/polyhead/config.properties
COPY README.md /usr/share/polyhead/README.md
WORKDIR /tmp
USER 10001:10001

FROM server AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=system / /
COPY --from=application-gpu /opt/polyhead /opt/polyhead
COPY --from=application-gpu /native /usr/lib
COPY --from=application-gpu /usr/share/polyhead /usr/share/polyhead
COPY --from=wheel /src/config.properties /etc/polyhead/config.properties
COPY README.md /usr/share/polyhead/README.md
WORKDIR /tmp
USER 10001:10001

# Where no target is named.
FROM cpu
