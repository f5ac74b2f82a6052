# Everything in one image, without a GPU's drivers:
#   docker build -t orpo .
#   docker run --rm -it -v orpo:/work orpo train --help
# A machine with NVIDIA's container toolkit adds --gpus all. Data, adapters and caches are in the volume /work.
FROM python:3.12-slim

# uv from PyPI: no second image to trust.
RUN pip install --no-cache-dir 'uv>=0.9,<1' \
    && useradd --create-home --uid 1000 orpo \
    && mkdir /app /work \
    && chown orpo:orpo /app /work

USER 1000
WORKDIR /app
ENV UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    PATH=/app/.venv/bin:$PATH

# The packages first: they change less often than the code, and take most of the time.
COPY --chown=1000:1000 pyproject.toml README.md LICENSE ./
RUN uv sync --no-dev --no-install-project --extra gguf
COPY --chown=1000:1000 orpo ./orpo
COPY --chown=1000:1000 recipes ./recipes
RUN uv sync --no-dev --extra gguf

ENV ORPO_HOME=/work \
    HF_HOME=/work/huggingface
VOLUME /work
WORKDIR /work
ENTRYPOINT ["orpo"]
CMD ["--help"]
