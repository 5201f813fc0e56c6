"""Pure tests: no sockets, ten seconds in all. Mirrors src/celeriac."""
