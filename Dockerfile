# Prefect's server, a worker and every command, in one image: compose.yaml and docs/server.md use it.
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 xmore \
    && install --directory --owner xmore /xmore

USER xmore
WORKDIR /xmore
COPY --chown=xmore . .
# A volume takes owner and content of the folder that it is mounted on.
RUN make setup && mkdir -p data/datasets data/memory data/models results/prefect

ENV PATH=/xmore/.venv/bin:$PATH
CMD ["xmore", "up", "--wait"]
