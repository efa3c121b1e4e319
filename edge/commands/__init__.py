"""The verbs of `dualbank-edge`, one module each."""
