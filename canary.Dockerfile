# docker build -f canary.Dockerfile -t prove/canary .
#
# The canary is of provectl's package, but imports no more than the services do: a third of provectl's size.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
COPY requirements/build.txt requirements/services.txt /requirements/
RUN python3 -m venv /build && /build/bin/pip install --quiet --require-hashes -r /requirements/build.txt \
 && /build/bin/pip install --quiet --no-compile --require-hashes -r /requirements/services.txt --target /app
COPY pyproject.toml README.md /source/prove/
COPY src /source/prove/src
RUN /build/bin/pip install --quiet --no-compile --no-deps --no-build-isolation --upgrade --target /app /source/prove \
 && rm -rf /app/bin

FROM ${BASE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="canary" \
      org.opencontainers.image.description="The canary of prove's shop" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /app /app
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["python3", "-m", "prove.canary"]
CMD ["--help"]
