#!/usr/bin/env bash
# Makes the Python bindings of several TensorRT versions importable without TensorRT, so that
# test_tensorrt_bindings.py can ask each for its names and arguments. Nothing in them can be run.
#
#   tests/deploy/tensorrt_bindings.sh [PYTHON]
#
# The wheels of the bindings are small and real; the libraries they are linked against are not among
# them. Empty ones take their place: every symbol that the bindings want is there and answers 0.
set -euo pipefail

python=${1:-python3}
into=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)/build/tensorrt_bindings

# The oldest (JetPack 6.1), two that brought Blackwell and CUDA 13, and the newest.
for wheel in \
    tensorrt-cu12-bindings==10.3.0 \
    tensorrt-cu12-bindings==10.8.0.43 \
    tensorrt-cu13-bindings==10.13.3.9 \
    tensorrt-cu13-bindings==11.4.0.106
do
    version=${wheel#*==}
    folder=$into/$version
    [ -e "$folder/complete" ] && continue
    rm -rf "$folder"
    mkdir -p "$folder"
    "$python" -m pip download --quiet --no-deps --dest "$folder" "$wheel"
    "$python" -m zipfile -e "$folder"/*.whl "$folder"
    rm "$folder"/*.whl
    bindings=$folder/tensorrt_bindings
    needed=$(readelf --dynamic "$bindings/tensorrt.so" | sed -n 's/.*NEEDED.*\[\(libnv[^]]*\)\].*/\1/p')
    # What is neither Python's nor the C libraries' must be TensorRT's.
    nm --dynamic --undefined-only "$bindings/tensorrt.so" | awk '$1 == "U" { print $2 }' |
        grep -v -e '@' -e '^_\?Py' |
        sed 's/.*/void *&(void) { return 0; }/' >"$folder/empty.c"
    : >"$folder/nothing.c"
    sources=$folder/empty.c
    for library in $needed; do
        cc -shared -fPIC -w -o "$bindings/$library" "-Wl,-soname,$library" "$sources"
        sources=$folder/nothing.c
    done
    # The bindings look for libraries of this name through the loader's path alone.
    LD_LIBRARY_PATH=$bindings PYTHONPATH=$folder \
        "$python" -c "import tensorrt_bindings as t; assert t.__version__ == '$version', t.__version__"
    touch "$folder/complete"
    echo "$folder"
done
