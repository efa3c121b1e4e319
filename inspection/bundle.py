"""What a model bundle is, and when its bytes may be believed. No disk: callers pass `read`.

A bundle is a manifest and files named by their own SHA-256. Its id is the digest of the manifest,
so one id names every byte that a verdict depends on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from inspection.bank import MemoryBank, bank_from_bytes
from inspection.errors import BundleError, InputError
from inspection.foreground import Foreground, everywhere, foregrounds_from_bytes, laid_over
from inspection.frame_checks import FrameLimits
from inspection.heads import head_arrays, heads_from_bytes
from inspection.manifest import (
    FORMAT,
    MANIFEST,
    FileEntry,
    Manifest,
    manifest_bytes,
    parse_manifest,
)
from inspection.preprocessing import Preprocessing
from inspection.routing import Router, descriptor, router_from_bytes
from inspection.scoring import Head, Scoring, enhanced_length, image_score
from inspection.thresholds import Calibration, Thresholds
from inspection.views import View, map_of_canvas, over_views

ANY_PRODUCT = "*"
"""Route of a frame that shows no product we know: it searches the rows of every category."""

TRUNK, HEAD_GRAPH, FULL = "trunk.onnx", "head.onnx", "full.onnx"
NORMAL_BANK, ABNORMAL_BANK = "normal_bank.safetensors", "abnormal_bank.safetensors"
HEAD, GOLDEN, MODEL_CARD = "head.safetensors", "golden.safetensors", "model_card.md"
LINEAGE = "lineage.json"
ROUTER, FOREGROUND = "router.safetensors", "foreground.safetensors"
REQUIRED = (
    *(TRUNK, HEAD_GRAPH, FULL, NORMAL_BANK, ABNORMAL_BANK, HEAD, ROUTER, FOREGROUND, GOLDEN),
    *(LINEAGE, MODEL_CARD),
)

Read = Callable[[str], bytes]

Feeds = dict[str, NDArray[Any]]
"""Inputs of `full.onnx` by name."""

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Route:
    """How frames of one product are judged.

    Attributes:
        category: Whose bank rows are searched; None searches all.
        scoring: The constants; the temperature is the product's own.
        abnormal_weight: How much the abnormal side may raise a patch; 0 leaves it out.
        calibration: Scores of good parts outside the bank.
        thresholds: In standardised units.
        limits: Within which a frame can be judged; None in bundles that have none.
    """

    category: str | None
    scoring: Scoring
    abnormal_weight: float
    calibration: Calibration
    thresholds: Thresholds
    limits: FrameLimits | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: the manifest, its id, and its decoded numbers.

    Attributes:
        id: SHA-256 of the manifest's bytes, hex.
        manifest: As read.
        bank_id: Digest over both banks: which evidence a verdict rests on.
        normal: Bank of good parts.
        abnormal: Bank of defects, real or pseudo.
        heads: By product, what judges the enhanced representation.
        routes: By product; `ANY_PRODUCT` is always there.
        router: Knows the product of a frame that names none.
        foregrounds: By product, where it is inspected.
    """

    id: str
    manifest: Manifest
    bank_id: str
    normal: MemoryBank
    abnormal: MemoryBank
    heads: Mapping[str, Head]
    routes: Mapping[str, Route]
    router: Router
    foregrounds: Mapping[str, Foreground]
    _read: Read

    @property
    def preprocessing(self) -> Preprocessing:
        """How frames are prepared."""
        return Preprocessing(**self.manifest.preprocessing.model_dump())

    def file(self, name: str) -> bytes:
        """Read a file by its name in the manifest and check it: the bytes given are those checked.

        Raises:
            BundleError: The manifest does not list it, or its size or digest differ.
        """
        return read_file(self.manifest, name, self._read)

    def bank_feeds(self, route: Route) -> Feeds:
        """Give the inputs of `full.onnx` that are the same for every view: what a route searches.

        `full.onnx` takes `frames` (B, S, S, 3) uint8 RGB, `places` (B, P, 2) float32, `foreground`
        (Gh, Gw) float32 and these, and gives `anomaly_map` (B, Gh, Gw) float32 in units of feature
        distance, `image_score` (B,) float32 and `patch_features` (B, P, D) float32.
        """
        rows, defects = self.normal.rows_of(route.category), self.abnormal.rows_of(route.category)
        return {
            "normal_rows": self.normal.features[rows],
            "normal_valid": self.normal.valid[rows],
            "normal_places": _places(self.normal.position[rows], route.scoring),
            "abnormal_rows": self.abnormal.features[defects],
            "abnormal_valid": self.abnormal.valid[defects],
            "temperature": np.array(route.scoring.temperature, np.float32),
            "abnormal_weight": np.array(route.abnormal_weight, np.float32),
            **head_arrays(self.head(route)),
        }

    def head(self, route: Route) -> Head:
        """Give the head of a route's product; that of `ANY_PRODUCT` is never asked."""
        return self.heads[route.category or self.normal.categories[0]]

    def over_views(
        self, prepared: NDArray[np.uint8], route: Route, run: Callable[[Feeds], NDArray[T]]
    ) -> NDArray[T]:
        """Run `full.onnx` on every view of a prepared frame.

        Args:
            prepared: (8 · Mh, 8 · Mw, 3) uint8.
            route: How the frame is judged.
            run: Given all inputs for one view, answers (Gh, Gw, …).

        Returns:
            (Mh, Mw, …), as `inspection.views.over_views`.
        """
        spec, feeds = self.preprocessing, self.bank_feeds(route)
        foreground = self.foreground(route, map_of_canvas(prepared))

        def see(pixels: NDArray[np.uint8], view: View) -> NDArray[T]:
            inspected = view.inspected(foreground, spec).astype(np.float32)
            position = np.argwhere(np.ones(spec.grid, np.bool_)) + np.array([view.top, view.left])
            places = _places(position, route.scoring)[None]
            return run({**feeds, "frames": pixels[None], "foreground": inspected, "places": places})

        return over_views(prepared, spec, see)

    def foreground(self, route: Route, shape: tuple[int, int]) -> Foreground:
        """Say where a route inspects a map of (Mh, Mw); `ANY_PRODUCT` inspects everywhere."""
        if route.category is None:
            return everywhere(shape)
        return laid_over(self.foregrounds[route.category], shape)

    def image_score(self, anomaly_map: NDArray[np.floating], route: Route) -> float:
        """Score a frame by its map, (Mh, Mw)."""
        return image_score(anomaly_map, route.scoring, self.preprocessing.patches)

    def route(self, product: str | None) -> Route:
        """Choose how a frame is judged: by its product, or by the only one there is, or by all.

        A frame that names no product is better judged by `recognise`.

        Raises:
            InputError: The bundle was not trained on that product.
        """
        products = [name for name in self.routes if name != ANY_PRODUCT]
        if product is None:
            return self.routes[products[0] if len(products) == 1 else ANY_PRODUCT]
        if product not in products:
            raise InputError(
                f"product {product!r} is not in this bundle; it knows {', '.join(products)}"
            )
        return self.routes[product]

    def recognise(self, patches: NDArray[np.floating]) -> Route:
        """Choose the route of a frame that names no product, by patch features, (P, D).

        They are those of `inspection.views.recognised_patches`. It is the route of the product that
        the frame looks like, or the route of `ANY_PRODUCT` if it looks like none.
        """
        return self.routes[self.router.product_of(descriptor(patches)) or ANY_PRODUCT]


def read_bundle(read: Read) -> Bundle:
    """Read a bundle and check every byte that is used.

    Args:
        read: Gives the bytes of a path below the bundle's folder, or raises OSError.

    Raises:
        BundleError: A file is missing or damaged, the format is unknown, or parts contradict.
    """
    data = _bytes_of(MANIFEST, MANIFEST, read)
    manifest = parse_manifest(data)
    for name in REQUIRED:
        if name not in manifest.files:
            raise BundleError(f"the manifest lists no {name}; the bundle is incomplete")
    banks = manifest.files[NORMAL_BANK].sha256 + manifest.files[ABNORMAL_BANK].sha256
    bundle = Bundle(
        id=digest(data),
        manifest=manifest,
        bank_id=digest(banks.encode()),
        normal=bank_from_bytes(read_file(manifest, NORMAL_BANK, read)),
        abnormal=bank_from_bytes(read_file(manifest, ABNORMAL_BANK, read)),
        heads=heads_from_bytes(read_file(manifest, HEAD, read)),
        routes=_routes(manifest),
        router=router_from_bytes(read_file(manifest, ROUTER, read)),
        foregrounds=foregrounds_from_bytes(read_file(manifest, FOREGROUND, read)),
        _read=read,
    )
    _check_whole(bundle)
    return bundle


def read_file(manifest: Manifest, name: str, read: Read) -> bytes:
    """Read one file of a manifest and check size and digest over the bytes returned.

    Raises:
        BundleError: Not listed, not there, or not the bytes that the manifest names.
    """
    entry = manifest.files.get(name)
    if entry is None:
        raise BundleError(f"the manifest lists no file {name!r}")
    data = _bytes_of(name, entry.path, read)
    if len(data) != entry.size_bytes or digest(data) != entry.sha256:
        raise BundleError(
            f"{name} is damaged: expected {entry.size_bytes} bytes, SHA-256 {entry.sha256[:12]}…, "
            f"got {len(data)}, {digest(data)[:12]}…; copy the bundle again"
        )
    return data


def pack(files: Mapping[str, bytes], **document: Any) -> dict[str, bytes]:
    """Lay out a new bundle: path below its folder → bytes. The inverse of `read_bundle`.

    Takes `files` by name, `REQUIRED` among them, and every other field of `Manifest` but `format`.
    """
    entries = {
        name: FileEntry(sha256=digest(data), size_bytes=len(data)) for name, data in files.items()
    }
    manifest = Manifest(format=FORMAT, files=entries, **document)
    laid_out = {entries[name].path: data for name, data in files.items()}
    return {**laid_out, MANIFEST: manifest_bytes(manifest)}


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def _bytes_of(name: str, path: str, read: Read) -> bytes:
    try:
        return read(path)
    except OSError as error:
        raise BundleError(f"cannot read {name} at {path}: {error.strerror or error}") from error


def _routes(manifest: Manifest) -> dict[str, Route]:
    try:
        return {
            product: Route(
                category=None if product == ANY_PRODUCT else product,
                scoring=Scoring(
                    temperature=entry.temperature,
                    position_weight=entry.position_weight,
                    **manifest.scoring.model_dump(),
                ),
                abnormal_weight=entry.abnormal_weight,
                calibration=Calibration(tuple(entry.good_scores)),
                thresholds=Thresholds(entry.review, entry.reject),
                limits=FrameLimits(**entry.limits.model_dump()) if entry.limits else None,
            )
            for product, entry in manifest.routes.items()
        }
    except InputError as error:
        raise BundleError(f"{MANIFEST}: {error}") from error


def _places(position: NDArray[np.integer], scoring: Scoring) -> NDArray[np.float32]:
    """(n, 2) positions → what `full.onnx` puts beside the features of those patches, float32."""
    return np.asarray(scoring.position_weight * position, np.float32)


def _check_whole(bundle: Bundle) -> None:
    """Refuse a bundle whose parts are each well-formed but do not fit together."""
    normal, abnormal = bundle.normal, bundle.abnormal
    try:
        k, _ = bundle.manifest.scoring.k, bundle.preprocessing
    except InputError as error:
        raise BundleError(f"{MANIFEST}: {error}") from error
    expected = enhanced_length(normal.dimensions, k)
    inputs = sorted({head.hidden_weight.shape[0] for head in bundle.heads.values()})
    if abnormal.dimensions != normal.dimensions or inputs != [expected]:
        raise BundleError(
            f"parts do not fit: banks of D = {normal.dimensions} and {abnormal.dimensions}, "
            f"heads of {inputs} inputs, expected {expected}"
        )
    products = set(bundle.routes) - {ANY_PRODUCT}
    known = [set(normal.categories), set(abnormal.categories)]
    if ANY_PRODUCT not in bundle.routes or known != [products, products]:
        raise BundleError(
            f"routes {sorted(bundle.routes)} must be {ANY_PRODUCT!r} and the categories of both "
            f"banks, {sorted(normal.categories)} and {sorted(abnormal.categories)}"
        )
    parts = {
        "router": set(bundle.router.products),
        "heads": set(bundle.heads),
        "foregrounds": set(bundle.foregrounds),
    }
    for part, found in parts.items():
        if found != products:
            raise BundleError(f"expected {part} of {sorted(products)}, got {sorted(found)}")
    if bundle.routes[ANY_PRODUCT].abnormal_weight > 0:
        raise BundleError(f"route {ANY_PRODUCT!r} has no head, so its abnormal_weight must be 0")
    grid = bundle.preprocessing.grid
    shapes = {product: each.shape for product, each in bundle.foregrounds.items()}
    if bundle.preprocessing.fit == "stretch" and set(shapes.values()) != {grid}:
        raise BundleError(f"expected foregrounds of {grid} patches, got {shapes}")
    described = bundle.router.prototypes.shape[1]
    if described != 2 * normal.dimensions:
        raise BundleError(
            f"expected a router of descriptors of {2 * normal.dimensions}, got {described}"
        )
    for product, route in bundle.routes.items():
        for bank, needed in ((normal, True), (abnormal, route.abnormal_weight > 0)):
            valid = int(bank.valid[bank.rows_of(route.category)].sum())
            if needed and valid < k:
                raise BundleError(f"product {product!r} has {valid} valid rows, but k = {k}")
