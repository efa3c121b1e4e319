"""A bundle that the trainer wrote, through the whole pipeline under the emulated driver.

The trunk is the bundle's own, in FP32, and with every result rounded as in the FP16 that
`dualbank-deploy build` writes; heads that were taught labelled defects raise their product's
patches.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import half_precision
from deploy.precision import in_half
from edge.bundle_folder import open_bundle
from edge.check import check_runtime, golden_frames, warm_up
from edge.gpu_scorer import open_gpu_scorer
from edge.onnx_scorer import OnnxScorer
from edge.scorer import Question
from inspection.bundle import TRUNK
from inspection.engines import TOLERANCE
from inspection.errors import ParityError
from tests.gpu.emulated_trunk import EmulatedTrunk
from tests.gpu.test_gpu_scorer import answers_of
from tests.trainer.conftest import SMALL
from tests.trainer.parts import PRODUCTS, write_category
from tests.trainer.test_fit_labelled import write_labels
from trainer.cli import main
from trainer.dataset import read_image


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    for product in PRODUCTS:
        write_category(root / "good" / product, product, masks=product == "bolt")
    write_labels(root / "labels", "mask")
    return root


@pytest.fixture(scope="module")
def bundle(parts, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "bundle"
    labelled = ("--labelled", str(parts / "labels"))
    assert main(["fit", str(parts / "good"), "--out", str(out), *labelled, *SMALL]) == 0
    return open_bundle(out)


@pytest.fixture
def opened(driver, device, bundle):
    """A scorer of that bundle with its trunk in some precision."""

    def open_it(precision="fp32", judges=bundle):
        graph = None
        if precision == "fp16":
            graph = half_precision.rounded(in_half(TRUNK, bundle.file(TRUNK)))
        trunk = EmulatedTrunk(driver, bundle, graph=graph)
        return open_gpu_scorer(device, trunk, judges)

    return open_it


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_golden_frames_hold_within_the_tolerance_of_the_precision(opened, bundle, precision):
    with opened(precision) as scorer:
        results = check_runtime(bundle, scorer, TOLERANCE[precision])
        warm_up(bundle, scorer, TOLERANCE[precision])

    assert all(result.holds for result in results), results
    assert {result.golden.product for result in results} >= {*PRODUCTS}


def test_half_precision_does_not_hold_within_the_tolerance_of_the_cpu(opened, bundle):
    with opened("fp16") as scorer, pytest.raises(ParityError):
        warm_up(bundle, scorer)


def test_heads_that_speak_raise_patches_as_on_the_cpu(opened, bundle):
    """Cross-validation gave the drawn bolts' head no weight: here it has one."""
    golden = [each for each in golden_frames(bundle) if each.product == "bolt"]
    speaks = replace(bundle.routes["bolt"], abnormal_weight=0.8)
    loud = replace(bundle, routes={**bundle.routes, "bolt": speaks})
    cpu, raised = OnnxScorer(loud), []
    with opened(judges=loud) as scorer:
        for each in golden:
            scorer.submit([Question(each.prepared, True, "bolt")])
            (ours,) = answers_of(scorer)
            theirs = cpu.score(each.prepared, speaks)
            np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, rtol=2e-4, atol=1e-5)
            raised.append(ours.anomaly_map / np.maximum(each.anomaly_map, 1e-6))

    assert (np.stack(raised) > 1.01).mean() > 0.01, "a head that says nothing would pass as well"


def test_frames_from_files_get_the_scores_of_the_cpu(opened, bundle, parts):
    paths = sorted((parts / "good").glob("*/test/*/*.png"))[::3]
    cpu = OnnxScorer(bundle)
    with opened() as scorer:
        for path in paths:
            for product in (path.parents[2].name, None):
                said = []
                for each in (scorer, cpu):
                    each.submit([each.question(read_image(path), product)])
                    said += answers_of(each)
                ours, theirs = said
                assert ours.route == theirs.route
                # Resized on the device: up to a level off, where a sum lies on a half.
                assert ours.score == pytest.approx(theirs.score, rel=5e-3)


def test_the_benchmark_of_half_precision_has_half_the_precision_and_holds(bundle):
    figures = half_precision.golden_errors(half_precision.halved(bundle))

    assert figures["hold"]
    assert 1e-5 < figures["map_error_max"] < TOLERANCE["fp16"].map
    whole = half_precision.golden_errors(bundle)
    assert whole["map_error_max"] < 1e-5
