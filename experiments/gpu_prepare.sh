#!/usr/bin/env bash
# Gathers what a machine with a GPU but without a network needs, in one folder:
#
#   experiments/gpu_prepare.sh FOLDER small [PIP OPTIONS]   data; wheels of what comes beside JAX
#   experiments/gpu_prepare.sh FOLDER cuda  [PIP OPTIONS]   data; JAX for CUDA and all it needs (GBs)
#
# "small" is for machines that have jax, flax, optax, orbax-checkpoint, safetensors, rich, filelock,
# matplotlib and pillow already. Both take wheels for the Python that runs pip, or for another one:
#
#   experiments/gpu_prepare.sh FOLDER small --python-version 3.12 --platform manylinux_2_28_x86_64
#
# The data are the four idx.gz files of Fashion-MNIST, taken from $DD_JAX_DATA or from Debian's
# package dataset-fashion-mnist. On the machine:
#
#   python -m pip install --no-index --no-deps --target SITE FOLDER/wheels/*.whl
#   PYTHONPATH=SITE:. DD_JAX_DATA=FOLDER python -m experiments.gpu ...
set -euo pipefail

folder=${1:?usage: gpu_prepare.sh FOLDER small|cuda [PIP OPTIONS]}
kind=${2:?usage: gpu_prepare.sh FOLDER small|cuda [PIP OPTIONS]}
shift 2
python=${PYTHON:-python3}
cuda=${JAX_CUDA:-cuda13}

case $kind in
  small) wanted=(--no-deps tyro typeguard docstring-parser) ;;
  cuda) wanted=("jax[$cuda]" flax optax orbax-checkpoint safetensors tyro rich filelock matplotlib
                pillow) ;;
  *) echo "gpu_prepare.sh: the second word is '$kind', expected small or cuda" >&2; exit 2 ;;
esac

data=${DD_JAX_DATA:-/usr/share/datasets}
for place in "$data/fashion_mnist" "$data/fashion-mnist" "$data" ""; do
  if [ -n "$place" ] && [ -f "$place/train-images-idx3-ubyte.gz" ]; then break; fi
done
if [ -z "$place" ]; then
  echo "gpu_prepare.sh: no train-images-idx3-ubyte.gz below $data; set DD_JAX_DATA" >&2
  exit 2
fi

mkdir -p "$folder/fashion_mnist" "$folder/wheels"
cp "$place"/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz "$folder/fashion_mnist/"
"$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: \
  --dest "$folder/wheels" "$@" "${wanted[@]}"
du -sk "$folder/fashion_mnist" "$folder/wheels"
