"""The standard library of the running interpreter, analysed by tasks: one task a file. Run it by `./dev run`."""
