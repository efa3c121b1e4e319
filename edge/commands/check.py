"""`check`: a bundle, proven on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.commands.options import DONE, GATE, print_json
from edge.proof import print_proof, proof_as_json, prove
from edge.settings import read_settings


def add_check(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    verb = verbs.add_parser("check", help="prove a bundle on this machine")
    verb.set_defaults(verb=_check)
    verb.description = (
        "Asks full.onnx on the CPU and every engine of the bundle that can run here. Exit 0 if "
        "every digest and golden frame holds, 1 damaged, 3 other answers."
    )
    verb.add_argument("--bundle", type=Path, required=True, help="folder of the model bundle")
    verb.add_argument("--gpu", help="which GPU, as the driver counts [0]")
    verb.add_argument("--json", action="store_true", help="the table as JSON")


def _check(given: argparse.Namespace) -> int:
    chosen = {} if given.gpu is None else {"gpu": given.gpu}
    proof = prove(given.bundle, read_settings(None, chosen))
    if given.json:
        print_json(proof_as_json(proof))
    else:
        print_proof(proof)
    return DONE if proof.holds else GATE
