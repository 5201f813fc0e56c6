"""No secret is shown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.conf.masking import MASK, mask_url, mask_value


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@h:6379/0", f"redis://:{MASK}@h:6379/0"),
        ("amqp://u:p@h//", f"amqp://u:{MASK}@h//"),
        ("amqp://u@h//", "amqp://u@h//"),
        ("redis://:pa/ss@h/0", f"redis://:{MASK}@h/0"),
        ("redis://:p@ss@h/0", f"redis://:{MASK}@h/0"),
        ("sentinel://:secret@h1;sentinel://:other@h2/0", f"sentinel://:{MASK}@h1;sentinel://:{MASK}@h2/0"),
        ("sentinel://:secret@h1:1;h2:2/0", f"sentinel://:{MASK}@h1:1;h2:2/0"),
        ("redis://:se;cret@h/0", f"redis://:{MASK}@h/0"),
        ("db+postgresql://u:p@h/x", f"db+postgresql://u:{MASK}@h/x"),
        ("redis://h/0?password=x&db=1", f"redis://h/0?password={MASK}&db=1"),
        ("https://h/?sig=abc#x", f"https://h/?sig={MASK}#x"),
        ("sqlite:///file.db", "sqlite:///file.db"),
        ("plain text", "plain text"),
        ("", ""),
    ],
)
def test_urls(url, shown):
    assert mask_url(url) == shown


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("redis_password", "x", MASK),
        ("redis_password", None, None),
        ("security_key", "x", MASK),
        ("API_TOKEN", "x", MASK),
        ("task_default_routing_key", "celery", "celery"),
        ("global_keyprefix", "app:", "app:"),
        ("broker_url", "redis://:p@h", f"redis://:{MASK}@h"),
        ("urls", ["redis://:p@h"], [f"redis://:{MASK}@h"]),
        ("urls", ("redis://:p@h", 1), (f"redis://:{MASK}@h", 1)),
        ("options", {"sentinel_kwargs": {"password": "p"}, "n": 3}, {"sentinel_kwargs": {"password": MASK}, "n": 3}),
        ("broker_transport_options", {"global_keyprefix": "a"}, {"global_keyprefix": "a"}),
        ("worker_concurrency", 4, 4),
    ],
)
def test_values(key, value, shown):
    assert mask_value(key, value) == shown


@settings(max_examples=50)
@given(
    st.text("abcdefgh0123456789-_.~!$&'()*+,;=:@/", min_size=4).filter(lambda text: not text.isdigit()),
    st.text("uvwxyz"),
)
def test_a_password_never_survives(password, user):
    # Capitals mark it, so that no other part of the URL can contain it.
    secret = f"S{password.upper()}T"
    assert secret not in mask_url(f"redis://{user}:{secret}@host:6379/0")
