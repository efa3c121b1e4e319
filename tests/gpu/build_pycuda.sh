#!/usr/bin/env bash
# Builds pycuda, which the package index has as source only, where there is no driver to link with.
#
# usage: tests/gpu/build_pycuda.sh PYTHON [FOLDER]
#
# FOLDER (build/pycuda unless said) keeps the wheel: the next call installs it in a second. The
# wheel belongs to one Python version and one CUDA major version. Needs g++, nvcc on the path and
# the headers beside it. The wheel works with the real driver: what is linked here is only a name.
set -euo pipefail
version=2026.1
python=$(command -v "$1")
# The folder changes below; links stay, because a virtual environment is one.
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
cd "$(dirname "$0")/../.."
folder=$(mkdir -p "${2:-build/pycuda}" && cd "${2:-build/pycuda}" && pwd)
: "${CUDA_HOME:=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")}"
# An nvcc on the path may be a script that calls the real one.
[ -f "$CUDA_HOME/include/cuda.h" ] || CUDA_HOME=/usr/local/cuda
tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')

if ! ls "$folder/pycuda-$version-$tag-"*.whl >/dev/null 2>&1; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$python" -m pip download --quiet --no-deps --no-binary pycuda --dest "$work" "pycuda==$version"
    tar -xzf "$work/pycuda-$version.tar.gz" -C "$work"
    # A library of the driver's name without a symbol in it: a shared object may leave symbols open,
    # and the loader finds them in whatever libcuda.so.1 is there when pycuda is imported.
    mkdir "$work/stub"
    g++ -shared -Wl,-soname,libcuda.so.1 -o "$work/stub/libcuda.so" -x c++ /dev/null
    (
        cd "$work/pycuda-$version"
        "$python" configure.py --cuda-root="$CUDA_HOME" --no-cuda-enable-curand \
            --cudadrv-lib-dir="$work/stub"
        # Without --no-as-needed a linker may leave out a library that it takes no symbol from.
        # Nothing here is hot: without optimisation and debugging symbols it takes half the time.
        export LDFLAGS=-Wl,--no-as-needed CFLAGS="-O1 -g0 -w"
        "$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" .
    )
fi
"$python" -m pip install --quiet "$folder/pycuda-$version-$tag-"*.whl
"$python" - <<'P'
from importlib.metadata import version
print("pycuda", version("pycuda"))
P
