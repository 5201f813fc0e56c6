-- Events, remote control and its replies: rows that listeners read once and that go after a minute.

-- Stores one item, and tells those who listen. Nothing, when nobody does; a reply is always stored.
CREATE OR REPLACE FUNCTION {schema}.emit(
    p_exchange text, p_routing_key text, p_headers bytea, p_payload bytea, p_reply boolean
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT p_reply AND NOT EXISTS (SELECT FROM {schema}.ear WHERE exchange = p_exchange AND until > {schema}.moment()) THEN
        RETURN false;
    END IF;
    -- One after the other: so numbers are in the order of the commits, and no reader passes over one.
    PERFORM pg_advisory_xact_lock({schema}.gate('bus', ''));
    INSERT INTO {schema}.bus (exchange, routing_key, expires, headers, payload)
    VALUES (p_exchange, p_routing_key, {schema}.moment() + 60, p_headers, p_payload);
    PERFORM pg_notify({schema}.channel('e', CASE WHEN p_reply THEN p_exchange || ' ' || p_routing_key ELSE p_exchange END), '');
    RETURN true;
END $$;

-- Somebody listens to an exchange, for a minute from now; returns the number of the newest item.
CREATE OR REPLACE FUNCTION {schema}.hear(p_exchange text, p_name text, p_listen boolean) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.ear (exchange, name, until) VALUES (p_exchange, p_name, {schema}.moment() + 60)
    ON CONFLICT (exchange, name) DO UPDATE SET until = excluded.until;
    IF p_listen THEN
        EXECUTE format('LISTEN %I', {schema}.channel('e', p_exchange));
    END IF;
    RETURN (SELECT coalesce(max(seq), 0) FROM {schema}.bus);
END $$;

-- Nobody does under this name.
CREATE OR REPLACE FUNCTION {schema}.turn_away(p_exchange text, p_name text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM {schema}.ear WHERE exchange = p_exchange AND name = p_name
$$;

-- Items of an exchange behind a number, the oldest first.
CREATE OR REPLACE FUNCTION {schema}.heard(p_exchange text, p_routing_key text, p_after bigint, p_limit integer)
RETURNS TABLE (seq bigint, headers bytea, payload bytea) LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT b.seq, b.headers, b.payload FROM {schema}.bus AS b
        WHERE b.seq > p_after AND b.exchange = p_exchange AND (p_routing_key IS NULL OR b.routing_key = p_routing_key)
        ORDER BY b.seq LIMIT p_limit;
END $$;
