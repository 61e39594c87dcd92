# The demo, on the CPU and without a network once it is built:
#   docker build --tag regraft . && docker run --rm regraft
# Any other command: docker run --rm --volume "$PWD:/work" --workdir /work --user "$(id -u):$(id -g)" regraft plan ...
FROM python:3.12-slim

WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# PyTorch's own index has the build for CPUs, a tenth as large as the one with CUDA.
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu .

RUN useradd --create-home regraft
USER regraft
WORKDIR /home/regraft
ENTRYPOINT ["regraft"]
CMD ["demo"]
