-- The server's clock, and names made of the schema.

-- Seconds since the epoch; goes on within a transaction.
CREATE OR REPLACE FUNCTION {schema}.moment() RETURNS float8 LANGUAGE sql VOLATILE AS
$$ SELECT extract(epoch FROM clock_timestamp())::float8 $$;

-- A position before all others, those of earlier calls included. There is room for 1024 behind it each microsecond.
CREATE OR REPLACE FUNCTION {schema}.front() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT -((extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1024) $$;

-- The position of one that was due: before arrivals, the earliest first.
CREATE OR REPLACE FUNCTION {schema}.ripe(due float8) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT (due * 1000000)::bigint - 72057594037927936 $$;

-- The key of an advisory lock: whoever waits for messages of a queue holds it, shared.
CREATE OR REPLACE FUNCTION {schema}.door(queue text) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT hashtextextended({schema_text} || ' queue ' || queue, 0) $$;

-- The key of an advisory lock for some purpose of this schema.
CREATE OR REPLACE FUNCTION {schema}.gate(purpose text, name text) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT hashtextextended({schema_text} || ' ' || purpose || ' ' || name, 0) $$;

-- The channel of a queue, an exchange or the rules.
CREATE OR REPLACE FUNCTION {schema}.channel(purpose text, name text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT 'celeriac_' || purpose || '_' || to_hex(hashtextextended({schema_text} || ' ' || name, 0)) $$;
