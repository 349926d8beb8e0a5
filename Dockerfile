# docker build -t prove/provectl .
#
# provectl with what it imports, and without the servers it builds from Go: for what reads files or asks a running shop,
#   docker run --rm -v "$PWD:/work:ro" -w /work prove/provectl slo explain observability/slos/checkout.yaml
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
COPY requirements/build.txt requirements/runtime.txt /requirements/
RUN python3 -m venv /build && /build/bin/pip install --quiet --require-hashes -r /requirements/build.txt \
 && /build/bin/pip install --quiet --no-compile --require-hashes -r /requirements/runtime.txt --target /app
COPY libs/service-kit /source/service-kit
COPY pyproject.toml README.md /source/prove/
COPY src /source/prove/src
RUN /build/bin/pip install --quiet --no-compile --no-deps --no-build-isolation --upgrade --target /app \
    /source/service-kit /source/prove \
 && rm -rf /app/bin

FROM ${BASE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="provectl" \
      org.opencontainers.image.description="The command line of prove" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /app /app
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["python3", "-m", "prove"]
CMD ["--help"]
