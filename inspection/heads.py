"""The heads of a bundle: one for every product, so that one is taught without the others.

What a head is and does: see `inspection.scoring`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from inspection.bank import safetensors_metadata
from inspection.errors import BundleError
from inspection.scoring import Head


def head_arrays(head: Head) -> dict[str, NDArray[np.float32]]:
    """Give the weights of a head by name, as `full.onnx` takes them; each is C-contiguous."""
    return {
        "hidden_weight": np.ascontiguousarray(head.hidden_weight),
        "hidden_bias": np.ascontiguousarray(head.hidden_bias),
        "output_weight": np.ascontiguousarray(head.output_weight),
        "output_bias": np.array([head.output_bias], np.float32),
    }


def heads_to_bytes(heads: Mapping[str, Head]) -> bytes:
    """Write the head of every product as safetensors; they are numbered in order."""
    arrays = {
        f"{i}.{name}": array
        for i, head in enumerate(heads.values())
        for name, array in head_arrays(head).items()
    }
    names = json.dumps({"products": list(heads)})
    return bytes(safetensors.numpy.save(arrays, metadata={"names": names}))


def heads_from_bytes(data: bytes) -> dict[str, Head]:
    """Read what `heads_to_bytes` wrote.

    Raises:
        BundleError: Not heads: damaged, incomplete, more arrays than products name, or arrays that
            `inspection.scoring.Head` refuses.
    """
    try:
        arrays = safetensors.numpy.load(data)
        products = json.loads(safetensors_metadata(data)["names"])["products"]
        heads = {
            product: Head(
                hidden_weight=arrays.pop(f"{i}.hidden_weight"),
                hidden_bias=arrays.pop(f"{i}.hidden_bias"),
                output_weight=arrays.pop(f"{i}.output_weight"),
                output_bias=float(arrays.pop(f"{i}.output_bias").item()),
            )
            for i, product in enumerate(products)
        }
        if len(heads) < len(products) or not all(isinstance(name, str) for name in heads):
            raise ValueError(f"products must be texts and differ, got {products}")
        if arrays:
            raise ValueError(f"expected heads of {products}, got more: {sorted(arrays)}")
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"these are not heads: {error}") from error
    return heads
