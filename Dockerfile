# One image for both services: `python -m relay` (the default) and `python -m worker`. docs/image.md has the rest.
# Commands in exec form need no shell, and cannot be joined to one RUN.
# hadolint global ignore=DL3059

# Debian's slim Python, the same in both stages. The tag is for people; it is the digest that counts.
ARG BASE=python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all:
WORKDIR /src
# pip stays outside: it installs into both environments and goes into neither.
RUN ["python", "-m", "venv", "--without-pip", "/opt/build"]
RUN ["python", "-m", "venv", "--without-pip", "/opt/relay"]
# What changes seldom comes first, so that a change of the code costs seconds.
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN ["python", "-m", "pip", "--python", "/opt/build/bin/python", "install", "--no-deps", "--require-hashes", "-r", "requirements/build.txt"]
RUN ["python", "-m", "pip", "--python", "/opt/relay/bin/python", "install", "--no-deps", "--require-hashes", "-r", "requirements/runtime.txt"]
# `/docs` shows the document; the editor that comes with the viewer is a quarter of everything.
RUN ["find", "/opt/relay/lib", "(", "-name", "swagger-editor*", "-o", "-name", "*.js.map", ")", "-delete"]
COPY pyproject.toml README.md LICENSE ./
COPY relay relay
COPY worker worker
RUN ["/opt/build/bin/python", "-m", "hatchling", "build", "-t", "wheel", "-d", "/dist"]
RUN ["python", "-m", "pip", "--python", "/opt/relay/bin/python", "install", "--no-deps", "--no-index", "--find-links", "/dist", "scrapellm-relay"]

FROM ${BASE}
COPY --from=build /opt/relay /opt/relay
# Nothing is written: the root file system can be read-only.
ENV PATH=/opt/relay/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 RELAY_LOG_FORMAT=json
WORKDIR /opt/relay
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# For Docker and Compose; Kubernetes has its own probes. Which service this is, process 1 says.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 CMD ["python", "-m", "relay.healthcheck"]
CMD ["python", "-m", "relay"]
# Last, because they change with every commit.
ARG BASE
ARG REVISION
LABEL org.opencontainers.image.title="scrapellm-relay" \
      org.opencontainers.image.description="Push notifications for ScrapeLLM: signed callbacks in place of polling" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="${BASE}"
