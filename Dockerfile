# One image for both services: `python -m relay` (the default) and `python -m worker`.

FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all:
WORKDIR /src
# pip stays outside: it installs into both environments and goes into neither.
RUN ["python", "-m", "venv", "--without-pip", "/opt/build"]
RUN ["python", "-m", "venv", "--without-pip", "/opt/relay"]
# What changes seldom comes first, so that a change of the code costs seconds.
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN ["python", "-m", "pip", "--python", "/opt/build/bin/python", "install", "--no-deps", "--require-hashes", "-r", "requirements/build.txt"]
RUN ["python", "-m", "pip", "--python", "/opt/relay/bin/python", "install", "--no-deps", "--require-hashes", "-r", "requirements/runtime.txt"]
COPY pyproject.toml README.md LICENSE ./
COPY relay relay
COPY worker worker
RUN ["/opt/build/bin/python", "-m", "hatchling", "build", "-t", "wheel", "-d", "/dist"]
RUN ["python", "-m", "pip", "--python", "/opt/relay/bin/python", "install", "--no-deps", "--no-index", "--find-links", "/dist", "scrapellm-relay"]

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="scrapellm-relay" \
      org.opencontainers.image.description="Push notifications for ScrapeLLM: signed callbacks in place of polling" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/relay /opt/relay
# Nothing is written: the root file system can be read-only.
ENV PATH=/opt/relay/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 RELAY_LOG_FORMAT=json
WORKDIR /opt/relay
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# For Docker and Compose; Kubernetes has its own probes. Which service this is, process 1 says.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 CMD ["python", "-c", "import http.client, os, sys; worker = b'worker' in open('/proc/1/cmdline', 'rb').read(); port = os.environ.get('RELAY_WORKER_PORT', '9090') if worker else os.environ.get('RELAY_PORT', '8080'); probe = http.client.HTTPConnection('127.0.0.1', int(port), timeout=2); probe.request('GET', '/healthz'); sys.exit(probe.getresponse().status != 200)"]
CMD ["python", "-m", "relay"]
