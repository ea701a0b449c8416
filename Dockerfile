# docker build -t melanoma .                              CPU
# docker build -t melanoma:gpu --build-arg LOCK=gpu .     NVIDIA GPUs
# docker run --rm -v "$PWD:/work" melanoma train data=folder data.path=my_images        (--gpus all for GPUs)
FROM python:3.12-slim-bookworm
ARG LOCK=runtime
COPY requirements/ /opt/melanoma/requirements/
RUN pip install --no-cache-dir --no-deps --require-hashes -r /opt/melanoma/requirements/${LOCK}.txt
COPY . /opt/melanoma/source/
RUN pip install --no-cache-dir --no-deps /opt/melanoma/source && rm -r /opt/melanoma
# Of the folder that is mounted: results are in mlflow.db and mlartifacts, decoded images in .cache.
ENV XDG_CACHE_HOME=/work/.cache GIT_PYTHON_REFRESH=quiet
WORKDIR /work
ENTRYPOINT ["melanoma"]
CMD ["--help"]
