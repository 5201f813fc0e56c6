"""Bytes ⇄ values: envelopes, serializers, compression, failures and result records. Nothing here executes on decode."""
