"""Adapters by server: broker, result store, publisher, reader, bus and caller of one server live in one package.

Chosen by URL in ``celeriac.client.resolver``; never imported directly. They know nothing of each other.
Each module of the scheme table offers::

    broker(url, options) -> Broker (and Bus; and Unified where store and broker are one server)
    store(url, options) -> ResultStore
    publisher(url, options) -> Publisher
    reader(url, options) -> Reader
    caller(url, options) -> Caller
    ledger(url, options) -> BlockingLedger, where the server has a ledger
    dead_letters(url, options) -> DeadLetters, where it shows them
    scratch(url, options, name) -> Scratch, where it can be put to the test in use (``celeriac broker test``)
"""
