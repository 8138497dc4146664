# astarpo on a CPU, with the versions that the tests ran with:
#     docker build -t astarpo .
#     docker run --rm -v "$PWD/runs:/work/runs" astarpo demo --out runs/demo
FROM python:3.11-slim-bookworm

# PyTorch's own index has builds without CUDA, which are a tenth of the size of PyPI's.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt --index-url "$TORCH_INDEX" torch
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir -c constraints.txt ".[peft,tensorboard]" \
    && useradd --create-home --uid 1000 astarpo \
    && mkdir /work && chown astarpo /work

USER 1000
WORKDIR /work
ENTRYPOINT ["astarpo"]
CMD ["--help"]
