# One image for every part of the pool: docker-compose.yml says which part a container is.
#
# BASE: a Debian 12 image. What is installed in it already is not downloaded again, and wheels found in build/wheels
# are used instead of the package index, so that the image can be made where neither is reachable.
ARG BASE=debian:12
FROM ${BASE}

RUN packages="python3 python3-venv rabbitmq-server qemu-system-x86 qemu-utils ca-certificates" \
    && if ! dpkg-query -W $packages >/dev/null 2>&1; then \
           apt-get update && apt-get install -y --no-install-recommends $packages && rm -rf /var/lib/apt/lists/*; \
       fi

WORKDIR /opt/xapi
# The brackets make the folder optional; what is in it was checked against the hashes when it was made.
COPY requirements.lock buil[d] ./
RUN python3 -m venv .venv \
    && if [ -d wheels ]; then wanted="--no-index --no-deps wheels/*.whl"; \
       else wanted="--require-hashes -r requirements.lock"; fi \
    && .venv/bin/pip install --no-cache-dir --disable-pip-version-check $wanted \
    && rm -rf wheels
COPY . .
# Builds the guest of the bundled template, unless it came with the folder. Without it hosts are simulated.
RUN .venv/bin/python -m pool.guest || echo "no guest in this image: hosts will be simulated"

ENV PYTHONUNBUFFERED=1 PYTHONPATH=/opt/xapi
ENTRYPOINT ["/opt/xapi/.venv/bin/python", "-m", "pool.container"]
