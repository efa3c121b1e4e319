"""What `dualbank-train` can be asked to do: one verb a module, its options and its answers."""
