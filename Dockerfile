# Two stages: the first needs pip and the package index, the second holds Python and the install alone.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
# The pip that installs stays behind in an environment of its own.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/imagegate
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The lock first, so that a change of our own code does not install every dependency anew.
COPY requirements.lock ./
RUN /opt/pip/bin/python -m pip --python /opt/imagegate/bin/python install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY config ./config
COPY gateway ./gateway
# --no-build-isolation: what builds is in the lock too, and nothing without a hash is fetched.
RUN /opt/pip/bin/python -m pip --python /opt/imagegate/bin/python \
    install --no-deps --no-build-isolation --no-index .

FROM ${PYTHON_IMAGE}
RUN mkdir /data && chown 10001:10001 /data
COPY --from=build /opt/imagegate /opt/imagegate
# Nothing is written outside /data and /tmp, so that the root may be read-only.
ENV PATH=/opt/imagegate/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=6s --start-period=30s --retries=3 CMD ["imagegate", "healthcheck"]
CMD ["imagegate", "serve"]
