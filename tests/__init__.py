"""The tests. `from tests.servers import RedisServer` works from every test file."""
