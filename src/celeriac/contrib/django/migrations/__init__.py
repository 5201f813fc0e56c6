"""Migrations of Django's: each makes the table what ``celeriac outbox migrate`` makes it."""
